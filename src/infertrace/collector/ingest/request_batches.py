"""Requests as the batches that a store takes."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from infertrace.collector.ingest import decoder_choice
from infertrace.collector.ingest.decoded_spans import DecodedSpans
from infertrace.collector.ingest.sent_spans import SentSpans
from infertrace.collector.ingest.span_validity import REASONS
from infertrace.collector.ingest.wire_fields import RequestError, last_span
from infertrace.collector.store.ledger import ProducerReport
from infertrace.collector.store.resource import Resource, stored_resource
from infertrace.collector.store.span_rows import with_origin
from infertrace.collector.store.store import Batch
from infertrace.generated.span_pb2 import SendSpanBatchRequest

PRODUCER_ID_BYTES = 16
MAX_SPAN_SEQUENCE = 2**63 - 1  # no producer counts further


@dataclass(frozen=True)
class DecodedRequest:
    """A batch for the store, and why the first of its rejected spans was rejected.

    `sent` has its spans encoded as ours, until they are passed on, or None where nobody asks.
    """

    batch: Batch
    rejection_reason: str
    sent: SentSpans | None = None


def decode_span(raw: bytes) -> DecodedRequest:
    """Decode a SendSpanRequest; raises RequestError."""
    # In protobuf, the last occurrence of a field that is not repeated wins.
    alone = last_span(raw)
    return _decoded(alone, decoder_choice.selected.decode(alone), None, None)


def decode_batch(raw: bytes) -> DecodedRequest:
    """Decode a SendSpanBatchRequest; raises RequestError.

    A span that is malformed or invalid is rejected by itself, not with its neighbours.
    """
    spans = decoder_choice.selected.decode(raw)
    try:
        envelope = SendSpanBatchRequest.FromString(spans.others)
    except DecodeError as error:
        raise RequestError(f"not a SendSpanBatchRequest, by protobuf: {error}") from error
    resource = stored_resource(envelope.resource.attributes)
    return _decoded(raw, spans, _producer_report(envelope, spans), resource)


def _decoded(
    raw: bytes, spans: DecodedSpans, producer: ProducerReport | None, resource: Resource | None
) -> DecodedRequest:
    rows = with_origin(
        spans.rows,
        None if producer is None else uuid.UUID(bytes=producer.producer_id),
        None if resource is None else resource.id,
    )
    batch = Batch(
        rows,
        spans.span_count,
        tuple(spans.rejections),
        producer,
        resources=() if resource is None else (resource,),
    )
    first = next(iter(spans.rejections.items()), None)
    return DecodedRequest(
        batch,
        f"span {first[0]}: {REASONS[first[1]]}" if first else "",
        SentSpans(raw, spans.span_count, tuple(spans.rejections), others=spans.others),
    )


def _producer_report(request: SendSpanBatchRequest, spans: DecodedSpans) -> ProducerReport | None:
    if not request.producer_id:
        return None
    if len(request.producer_id) != PRODUCER_ID_BYTES:
        raise RequestError(
            f"producer_id: expected {PRODUCER_ID_BYTES} bytes, got {len(request.producer_id)}"
        )
    if request.first_span_sequence > MAX_SPAN_SEQUENCE:
        raise RequestError("first_span_sequence: expected at most 2**63 - 1")
    named = request.resource.attributes.get("service.name")
    service_name = "" if named is None else named.string_value
    if not service_name and len(spans.rows):
        service_name = spans.rows.column("service_name")[0].as_py() or ""
    return ProducerReport(
        producer_id=request.producer_id,
        service_name=service_name,
        first_span_sequence=request.first_span_sequence,
        produced=request.produced_count,
        dropped=dict(request.dropped_counts),
        final=request.final,
    )
