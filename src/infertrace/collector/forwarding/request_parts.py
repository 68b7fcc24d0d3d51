"""A request's spans in runs that can be sent: valid, of one resource, of the share of traces."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple

from infertrace.collector.ingest.sent_spans import SentSpans
from infertrace.generated.span_pb2 import SendSpanBatchRequest
from infertrace.otlp.pure_reader import fields
from infertrace.wire.protobuf import delimited, read_varint, skip_field

_SPAN_TAG: Final = 0x0A
_TRACE_ID_TAG: Final = 0x0A
_TRACE_ID_BYTES: Final = 16
# The part of a trace id that is random, as the W3C has it.
_RANDOM_BYTES: Final = 7
_INSTANCE_ID: Final = "service.instance.id"


class Part(NamedTuple):
    """Spans that follow one another in a batch."""

    resource: bytes
    """The field `resource` of a request; may be empty."""
    spans: bytes
    """The field `spans` of a request."""
    span_count: int


class RequestParts(NamedTuple):
    """All of a request but what is invalid."""

    parts: list[Part]
    left_out_count: int
    """Valid spans whose traces are not in the share."""


def parts_of(sent: SentSpans, share: float, max_bytes: int) -> RequestParts:
    """The runs, each of at most `max_bytes` or one span.

    The share is of traces, by their ids, as OpenTelemetry samples: what a collector with a smaller
    share takes, one with a larger share takes too.
    https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/
    """
    groups = _groups(sent)
    is_whole = share >= 1 and not sent.rejected_positions and not sent.others
    if is_whole and len(groups) == 1 and len(sent.raw) <= max_bytes:
        return RequestParts([Part(groups[0][0], sent.raw, sent.span_count)], 0)
    threshold = round((1 - share) * 256**_RANDOM_BYTES)
    rejected = frozenset(sent.rejected_positions)
    spans = enumerate(_spans(sent.raw))
    parts: list[Part] = []
    left_out = 0
    for resource, count in groups:
        run: list[bytes] = []
        size = 0
        for position, span in islice(spans, count):
            if position in rejected:
                continue
            if threshold and _randomness(span) < threshold:
                left_out += 1
                continue
            if run and size + len(span) > max_bytes:
                parts.append(Part(resource, b"".join(run), len(run)))
                run, size = [], 0
            run.append(span)
            size += len(span)
        if run:
            parts.append(Part(resource, b"".join(run), len(run)))
    return RequestParts(parts, left_out)


def _groups(sent: SentSpans) -> list[tuple[bytes, int]]:
    """The field `resource` of each run of spans, and how many they are."""
    if sent.groups:
        return [(_resource(group.attributes), group.span_count) for group in sent.groups]
    request = SendSpanBatchRequest.FromString(sent.others)
    attributes = request.resource.attributes
    if len(request.producer_id) == 16 and _INSTANCE_ID not in attributes:
        # Another producer number comes with the spans where they go.
        attributes[_INSTANCE_ID].string_value = str(uuid.UUID(bytes=request.producer_id))
    return [(_resource(request.resource.SerializeToString(deterministic=True)), sent.span_count)]


def _resource(message: bytes) -> bytes:
    return delimited(b"\x3a", message) if message else b""


def _spans(raw: bytes) -> Iterator[bytes]:
    """Each span with its tag; other fields are skipped."""
    position = 0
    while position < len(raw):
        start = position
        if raw[position] == _SPAN_TAG:
            size, position = read_varint(raw, position + 1)
            position += size
            yield raw[start:position]
        else:
            position = skip_field(raw, position)


def _randomness(span: bytes) -> int:
    _, start = read_varint(span, 1)
    trace_id = b""
    if span[start : start + 2] == bytes((_TRACE_ID_TAG, _TRACE_ID_BYTES)):
        trace_id = span[start + 2 : start + 2 + _TRACE_ID_BYTES]
    else:
        for tag, value in fields(span[start:]):
            if tag == _TRACE_ID_TAG and isinstance(value, bytes):
                trace_id = value
    return int.from_bytes(trace_id[-_RANDOM_BYTES:], "big")
