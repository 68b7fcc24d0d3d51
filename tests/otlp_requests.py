"""Requests of OTLP, as any sender could make them."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Mapping
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

_START_NS = time.time_ns() - 10_000_000_000
_count = itertools.count()


def key_values(attributes: Mapping[str, str]) -> list[KeyValue]:
    return [KeyValue(key=k, value=AnyValue(string_value=v)) for k, v in attributes.items()]


def otlp_span(**fields: Any) -> Span:
    """A valid span, a microsecond later than the one before."""
    start_ns = _START_NS + next(_count) * 1_000
    span = Span(
        trace_id=os.urandom(16),
        span_id=os.urandom(8),
        name="chat",
        start_time_unix_nano=start_ns,
        end_time_unix_nano=start_ns + 1_500_000,
    )
    span.MergeFrom(Span(**fields))
    return span


def resource_spans(*spans: Span, **attributes: str) -> ResourceSpans:
    """Spans of one process; the dots in the names of its attributes are written as `_`."""
    named = {key.replace("_", "."): value for key, value in attributes.items()}
    resource = Resource(attributes=key_values({"service.name": "server", **named}))
    return ResourceSpans(resource=resource, scope_spans=[ScopeSpans(spans=spans)])


def export_request(*spans: Span, **attributes: str) -> ExportTraceServiceRequest:
    return ExportTraceServiceRequest(resource_spans=[resource_spans(*spans, **attributes)])
