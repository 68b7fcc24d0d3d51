"""Encodes a span in pure Python, as `infertrace.v1.Span` of proto/span.proto.

Both backends write fields in the order of their numbers, and maps in the order in which
their keys were first set, so that they write the same bytes.
Source of the format: Protocol Buffers, "Encoding".
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache

from infertrace.generated.pure_fields import (
    ATTRIBUTES_TAG,
    DURATION_NANOS_TAG,
    EVENTS_TAG,
    FLAGS_TAG,
    INFERENCE_FIELDS,
    INFERENCE_TAG,
    INVALID_FIELD_COUNT_TAG,
    KIND_TAG,
    LINKS_TAG,
    MODEL_NAME_TAG,
    OPERATION_NAME_TAG,
    PARENT_SPAN_ID_TAG,
    RESOURCE_FIELDS,
    RESOURCES_TAG,
    SAMPLE_AGE_MS_TAG,
    SERVICE_NAME_TAG,
    SPAN_ID_TAG,
    START_TIME_UNIX_NANO_TAG,
    STATUS_MESSAGE_TAG,
    STATUS_TAG,
    TAGS_TAG,
    TRACE_ID_TAG,
)
from infertrace.wire import token_intervals
from infertrace.wire.protobuf import delimited, varint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from infertrace.recording.pure import Span
    from infertrace.recording.values import Scalar

_DOUBLE = struct.Struct("<d").pack
_FLOAT = struct.Struct("<f").pack
# The field `flags`: sampled, and the parent is known to be remote. Source: SpanFlags of
# opentelemetry/proto/trace/v1/trace.proto.
_REMOTE_PARENT_FLAGS = FLAGS_TAG + varint(0x301)


def attribute_entries(tag: bytes, attributes: Mapping[str, Scalar]) -> bytes:
    """Entries of a `map<string, AttributeValue>` field."""
    return b"".join(
        delimited(tag, delimited(b"\x0a", key.encode()) + delimited(b"\x12", _value(value)))
        for key, value in attributes.items()
    )


def resource_metrics(metrics: Mapping[str, float | int | str]) -> bytes:
    """A `ResourceMetrics` message without the field written last, the sample's age."""
    out = b""
    for name, tag, kind in RESOURCE_FIELDS:
        value = metrics.get(name)
        if value is None:
            continue
        if kind is str:
            out += delimited(tag, str(value).encode())
        elif kind is int:
            out += tag + varint(int(value))
        else:
            out += tag + _DOUBLE(float(value))
    return out


def span(span: Span) -> bytes:
    """A finished span as one entry of `SendSpanBatchRequest.spans`."""
    out = [
        TRACE_ID_TAG + b"\x10",
        span._trace_id.to_bytes(16, "big"),
        SPAN_ID_TAG + b"\x08",
        span._span_id.to_bytes(8, "big"),
    ]
    add = out.append
    if span._parent_id:
        add(PARENT_SPAN_ID_TAG + b"\x08")
        add(span._parent_id.to_bytes(8, "big"))
    recorder = span._recorder
    add(_names(recorder.service_name, span._operation))
    add(START_TIME_UNIX_NANO_TAG)
    add(varint(span._start + recorder.anchor))
    duration = span._ended - span._start
    if duration:
        add(DURATION_NANOS_TAG)
        add(varint(duration))
    add(delimited(STATUS_TAG, span._status.encode()))
    if span._tags:
        for key, tag_text in span._tags.items():
            text = delimited(b"\x0a", key.encode()) + delimited(b"\x12", tag_text.encode())
            add(delimited(TAGS_TAG, text))
    inference = _inference(span)
    if inference:
        add(delimited(INFERENCE_TAG, inference))
    sample = span._sample
    if sample is not None:
        age_ms = (span._ended - sample[1]) / 1e6
        add(delimited(RESOURCES_TAG, sample[0] + SAMPLE_AGE_MS_TAG + _FLOAT(max(age_ms, 0.0))))
    if span._status_message:
        add(delimited(STATUS_MESSAGE_TAG, span._status_message.encode()))
    if span._attributes:
        add(attribute_entries(ATTRIBUTES_TAG, span._attributes))
    for time_ns, name, attributes in span._events or ():
        body = b"\x08" + varint(time_ns) + delimited(b"\x12", name.encode())
        add(delimited(EVENTS_TAG, body + attribute_entries(b"\x1a", attributes or {})))
    for trace_id, span_id, attributes in span._links or ():
        body = b"\x0a\x10%b\x12\x08%b" % (trace_id.to_bytes(16, "big"), span_id.to_bytes(8, "big"))
        add(delimited(LINKS_TAG, body + attribute_entries(b"\x1a", attributes or {})))
    if span._invalid:
        add(INVALID_FIELD_COUNT_TAG + varint(span._invalid))
    if span._kind:
        add(KIND_TAG + varint(span._kind))
    if span._parent_is_remote:
        add(_REMOTE_PARENT_FLAGS)
    return delimited(b"\x0a", b"".join(out))


@lru_cache(maxsize=16)
def _names(service_name: str, operation: str) -> bytes:
    service = delimited(SERVICE_NAME_TAG, service_name.encode()) if service_name else b""
    return service + delimited(OPERATION_NAME_TAG, operation.encode())


def _inference(span: Span) -> bytes:
    fields = span._fields
    out = delimited(MODEL_NAME_TAG, span._model.encode()) if span._model else b""
    for name, tag, kind in _in_order(tuple(fields)):
        value = fields[name]
        if kind is int:
            out += tag + varint(value)
        elif kind is str:
            if value:
                out += delimited(tag, value.encode())
        elif kind is bytes:
            out += delimited(tag, token_intervals.encode(value[0], value[1:]))
        else:
            out += tag + _FLOAT(value)
    return out


@lru_cache(maxsize=64)
def _in_order(names: tuple[str, ...]) -> list[tuple[str, bytes, type]]:
    """The fields of these names, in the order of their numbers."""
    return [field for field in INFERENCE_FIELDS if field[0] in names]


def _value(value: Scalar) -> bytes:
    if value is True:
        return b"\x10\x01"
    if value is False:
        return b"\x10\x00"
    if isinstance(value, str):
        return delimited(b"\x0a", value.encode())
    if isinstance(value, int):
        return b"\x18" + varint(value)
    return b"\x21" + _DOUBLE(value)
