"""Requests of OTLP in a form in which two are equal that say the same, whatever their order."""

from __future__ import annotations

import json
import math
import struct
from base64 import b64encode
from collections import Counter
from typing import Any

from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

_IDS = ("traceId", "spanId", "parentSpanId")
_NO_NUMBERS = {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}


def parse_json(line: bytes) -> ExportTraceServiceRequest:
    """A line of a file, as the protobuf runtime reads it, whose ids are base64."""

    def with_base64(value: Any) -> Any:
        if isinstance(value, list):
            return [with_base64(member) for member in value]
        if not isinstance(value, dict):
            return value
        return {
            key: b64encode(bytes.fromhex(member)).decode() if key in _IDS else with_base64(member)
            for key, member in value.items()
        }

    return ParseDict(with_base64(json.loads(line)), ExportTraceServiceRequest())


def canonical(*requests: ExportTraceServiceRequest) -> Counter[str]:
    """Each span with its resource and its scope, as a text.

    Of two values under one key the last counts; numbers that are none are texts, as a store has
    them; no span ends before it starts.
    """
    return Counter(
        repr((_part(group.resource), _part(scope.scope), _part(span)))
        for request in requests
        for group in request.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    )


def _part(message: Any) -> Any:
    found = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.name == "attributes":
            found[field.name] = _pairs(value)
        elif field.name in ("events", "links"):
            found[field.name] = list(map(_part, value))
        elif field.name == "status":
            found[field.name] = (value.code, value.message)
        elif field.name == "end_time_unix_nano":
            found[field.name] = max(value, message.start_time_unix_nano)
        elif field.name not in ("entity_refs", "schema_url"):
            found[field.name] = value
    return found


def _pairs(pairs: Any) -> Any:
    return sorted({pair.key: _value(pair.value) for pair in pairs}.items())


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return ""
    if kind == "array_value":
        return kind, list(map(_value, value.array_value.values))
    if kind == "kvlist_value":
        return kind, _pairs(value.kvlist_value.values)
    found = getattr(value, kind)
    if kind == "double_value":
        if not math.isfinite(found):
            return "string_value", _NO_NUMBERS[str(found)]
        return kind, struct.pack("d", found)
    return kind, found
