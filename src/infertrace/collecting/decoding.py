"""Requests as the batches that a store takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from infertrace.collecting.span_validity import rejection_reasons
from infertrace.collecting.wire_fields import RequestError, RequestFields, request_fields
from infertrace.generated.span_pb2 import SendSpanBatchRequest, Span
from infertrace.storing.ledger import ProducerReport
from infertrace.storing.span_rows import span_rows
from infertrace.storing.store import Batch

PRODUCER_ID_BYTES = 16
MAX_SPAN_SEQUENCE = 2**63 - 1  # beyond it a number is not one that was counted up to


@dataclass(frozen=True)
class DecodedRequest:
    """A batch for the store, and why the first of its rejected spans was rejected."""

    batch: Batch
    rejection_reason: str


def decode_span(raw: bytes) -> DecodedRequest:
    """Decode a SendSpanRequest; raises RequestError."""
    spans, _ = _spans(raw, request_fields(raw))
    return _decoded(spans[-1:] or [None], None)


def decode_batch(raw: bytes) -> DecodedRequest:
    """Decode a SendSpanBatchRequest; raises RequestError.

    A span that is malformed or invalid is rejected by itself, not with its neighbours.
    """
    spans, envelope = _spans(raw, request_fields(raw))
    return _decoded(spans, _producer_report(envelope, spans))


def _spans(raw: bytes, fields: RequestFields) -> tuple[Sequence[Span | None], SendSpanBatchRequest]:
    try:
        request = SendSpanBatchRequest.FromString(raw)
        return list(request.spans), request
    except DecodeError:
        pass
    # One bad byte in one span, such as text that is not UTF-8, fails the whole message.
    try:
        envelope = SendSpanBatchRequest.FromString(fields.others)
    except DecodeError as error:
        raise RequestError(f"not a SendSpanBatchRequest: {error}") from error
    return [_span(raw[place]) for place in fields.spans], envelope


def _span(raw: bytes) -> Span | None:
    try:
        return Span.FromString(raw)
    except DecodeError:
        return None


def _decoded(spans: Sequence[Span | None], producer: ProducerReport | None) -> DecodedRequest:
    reasons = rejection_reasons(spans)
    valid = [
        span for position, span in enumerate(spans) if span is not None and position not in reasons
    ]
    batch = Batch(span_rows(valid), len(spans), tuple(reasons), producer)
    return DecodedRequest(batch, next(iter(reasons.values()), ""))


def _producer_report(
    request: SendSpanBatchRequest, spans: Sequence[Span | None]
) -> ProducerReport | None:
    if not request.producer_id:
        return None
    if len(request.producer_id) != PRODUCER_ID_BYTES:
        raise RequestError(
            f"producer_id: expected {PRODUCER_ID_BYTES} bytes, got {len(request.producer_id)}"
        )
    if request.first_span_sequence > MAX_SPAN_SEQUENCE:
        raise RequestError("first_span_sequence: expected at most 2**63 - 1")
    service_name = request.resource.attributes["service.name"].string_value
    if not service_name:
        service_name = next((span.service_name for span in spans if span is not None), "")
    return ProducerReport(
        producer_id=request.producer_id,
        service_name=service_name,
        first_span_sequence=request.first_span_sequence,
        produced=request.produced_count,
        dropped=dict(request.dropped_counts),
        final=request.final,
    )
