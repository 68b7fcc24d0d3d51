"""Batches of spans for stores, without a wire."""

from __future__ import annotations

import itertools
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from infertrace.collector.store.ledger import ProducerReport
from infertrace.collector.store.resource import stored_resource
from infertrace.collector.store.span_rows import span_rows, with_origin
from infertrace.collector.store.store import Batch
from infertrace.generated.span_pb2 import AttributeValue, InferenceContext, Span

START_NS = time.time_ns() - 10_000_000_000
_count = itertools.count()


def new_span(model: str = "gpt-4", **fields: Any) -> Span:
    """A valid span, a microsecond later than the one before."""
    span = Span(
        trace_id=os.urandom(16),
        span_id=os.urandom(8),
        service_name="server",
        operation_name="inference",
        start_time_unix_nano=START_NS + next(_count) * 1_000,
        duration_nanos=1_500_000,
        status="OK",
        inference=InferenceContext(model_name=model, output_tokens=10),
    )
    span.MergeFrom(Span(**fields))
    return span


def batch_of(
    spans: Sequence[Span],
    producer: bytes = b"",
    first: int = 0,
    attributes: Mapping[str, AttributeValue] | None = None,
) -> Batch:
    """With a producer's id, also what it says: that it has made these and no more.

    `attributes` are those of its resource.
    """
    report = None
    if producer:
        produced = first + len(spans) - 1 if first else len(spans)
        report = ProducerReport(producer, "server", first, produced, {}, False)
    resource = stored_resource(attributes or {})
    rows = with_origin(
        span_rows(spans),
        uuid.UUID(bytes=producer) if producer else None,
        None if resource is None else resource.id,
    )
    resources = () if resource is None else (resource,)
    return Batch(rows, len(spans), (), report, resources=resources)
