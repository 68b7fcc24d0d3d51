"""Requests of OTLP as the batches that a store takes."""

from __future__ import annotations

import uuid
from bisect import bisect_right
from collections import Counter
from functools import lru_cache
from itertools import accumulate

from infertrace.collector.ingest import decoder_choice
from infertrace.collector.ingest.decoded_spans import DecodedSpans
from infertrace.collector.ingest.otlp.default_models import DefaultModels
from infertrace.collector.ingest.otlp.export_request import (
    MAX_EVENTS_AND_LINKS,
    MAX_SPANS,
    ResourceGroup,
    decode_export_request,
    read_export_request,
)
from infertrace.collector.ingest.otlp_senders import Sender, sender_of
from infertrace.collector.ingest.request_batches import DecodedRequest
from infertrace.collector.ingest.sent_spans import SentSpans
from infertrace.collector.ingest.span_validity import REASONS
from infertrace.collector.store.ledger import SenderReport
from infertrace.collector.store.resource import MAX_KNOWN_RESOURCES, Resource, stored_resource
from infertrace.collector.store.span_rows import with_origins
from infertrace.collector.store.store import Batch
from infertrace.generated.span_pb2 import Resource as ResourceMessage


def decode_export(
    raw: bytes, models: DefaultModels | None = None, *, is_passed_on: bool = False
) -> DecodedRequest:
    """Decode an ExportTraceServiceRequest; raises RequestError.

    A span that is malformed or invalid is rejected by itself, not with its neighbours. `models`
    gives spans a model that do not say theirs. The result has `sent` only where the spans are
    passed on: to have them encoded as ours takes another step.
    """
    spans, groups, sent = _encoded_and_decoded(raw) if is_passed_on else _decoded(raw)
    origins = [_origin(group.attributes) for group in groups]
    rejected = _rejected_by_group(spans, groups)
    rows = with_origins(
        spans.rows,
        [
            (
                uuid.UUID(bytes=sender.id),
                None if resource is None else resource.id,
                group.span_count - lost.total(),
            )
            for (resource, sender), group, lost in zip(origins, groups, rejected, strict=True)
        ],
    )
    if models is not None:
        rows = models.fill(rows)
    batch = Batch(
        rows,
        spans.span_count,
        tuple(spans.rejections),
        senders=_reports([sender for _, sender in origins], groups, rejected),
        resources=tuple({resource.id: resource for resource, _ in origins if resource}.values()),
    )
    first = next(iter(spans.rejections.items()), None)
    return DecodedRequest(
        batch,
        f"span {first[0]}: {REASONS[first[1]]}" if first else "",
        sent,
    )


_Decoded = tuple[DecodedSpans, tuple[ResourceGroup, ...], "SentSpans | None"]


def _decoded(raw: bytes) -> _Decoded:
    return *decode_export_request(raw), None


def _encoded_and_decoded(raw: bytes) -> _Decoded:
    exported = read_export_request(raw)
    spans = decoder_choice.selected.decode(exported.spans, MAX_SPANS, MAX_EVENTS_AND_LINKS)
    rejected = tuple(spans.rejections)
    sent = SentSpans(exported.spans, spans.span_count, rejected, exported.groups)
    return spans, exported.groups, sent


@lru_cache(maxsize=MAX_KNOWN_RESOURCES)
def _origin(attributes: bytes) -> tuple[Resource | None, Sender]:
    message = ResourceMessage.FromString(attributes)
    resource = stored_resource(message.attributes)
    return resource, sender_of(resource)


def _rejected_by_group(
    spans: DecodedSpans, groups: tuple[ResourceGroup, ...]
) -> list[Counter[str]]:
    """How many spans of each group are rejected, by reason."""
    rejected: list[Counter[str]] = [Counter() for _ in groups]
    ends = list(accumulate(group.span_count for group in groups))
    for position, reason in spans.rejections.items():
        rejected[bisect_right(ends, position)][REASONS[reason]] += 1
    return rejected


def _reports(
    senders: list[Sender], groups: tuple[ResourceGroup, ...], rejected: list[Counter[str]]
) -> tuple[SenderReport, ...]:
    """One report for each sender of spans."""
    counts: Counter[Sender] = Counter()
    reasons: dict[Sender, Counter[str]] = {}
    for sender, group, lost in zip(senders, groups, rejected, strict=True):
        counts[sender] += group.span_count
        reasons.setdefault(sender, Counter()).update(lost)
    return tuple(
        SenderReport(sender.id, sender.service_name, count, reasons[sender])
        for sender, count in counts.items()
        if count
    )
