"""The decoder in Python, on the protobuf runtime: the reference of the compiled one."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import DecodeError

from infertrace.collector.ingest.decoded_spans import DecodedSpans
from infertrace.collector.ingest.span_validity import leave_out_bad_intervals, rejections
from infertrace.collector.ingest.wire_fields import RequestFields, request_fields
from infertrace.collector.store.span_rows import span_rows
from infertrace.generated.span_pb2 import SendSpanBatchRequest, Span

NAME = "pure"


def decode(raw: bytes, max_spans: int | None = None, max_nested: int | None = None) -> DecodedSpans:
    """Decode the spans of a request; raises RequestError."""
    fields = request_fields(raw, max_spans, max_nested)
    spans = _spans(raw, fields)
    rejected = rejections(spans)
    valid = [
        span for position, span in enumerate(spans) if span is not None and position not in rejected
    ]
    for span in valid:
        leave_out_bad_intervals(span)
    return DecodedSpans(span_rows(valid), len(spans), rejected, fields.others)


def _spans(raw: bytes, fields: RequestFields) -> Sequence[Span | None]:
    try:
        spans = SendSpanBatchRequest.FromString(raw).spans
        # `request_fields` does not count a span whose tag is encoded in more bytes than needed.
        if len(spans) == len(fields.spans):
            return list(spans)
    except DecodeError:
        pass  # one bad byte in one span, such as text that is not UTF-8, fails the whole message
    return [_span(raw[place]) for place in fields.spans]


def _span(raw: bytes) -> Span | None:
    try:
        return Span.FromString(raw)
    except DecodeError:
        return None
