"""Requests of OTLP as the batches that a store takes."""

from __future__ import annotations

import uuid
from bisect import bisect_right
from collections import Counter
from functools import lru_cache
from itertools import accumulate
from typing import Final

from infertrace.collector.ingest import decoder_choice
from infertrace.collector.ingest.decoded_spans import DecodedSpans
from infertrace.collector.ingest.otlp.default_models import DefaultModels
from infertrace.collector.ingest.otlp.export_request import (
    MAX_SPANS,
    ResourceGroup,
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

MAX_EVENTS_AND_LINKS: Final = 1_048_576  # in all spans of one request


def decode_export(raw: bytes, models: DefaultModels | None = None) -> DecodedRequest:
    """Decode an ExportTraceServiceRequest; raises RequestError.

    A span that is malformed or invalid is rejected by itself, not with its neighbours. `models`
    gives spans a model that do not say theirs.
    """
    exported = read_export_request(raw)
    spans = decoder_choice.selected.decode(exported.spans, MAX_SPANS, MAX_EVENTS_AND_LINKS)
    origins = [_origin(group.attributes) for group in exported.groups]
    rejected = _rejected_by_group(spans, exported.groups)
    rows = with_origins(
        spans.rows,
        [
            (
                uuid.UUID(bytes=sender.id),
                None if resource is None else resource.id,
                group.span_count - lost.total(),
            )
            for (resource, sender), group, lost in zip(
                origins, exported.groups, rejected, strict=True
            )
        ],
    )
    if models is not None:
        rows = models.fill(rows)
    batch = Batch(
        rows,
        spans.span_count,
        tuple(spans.rejections),
        senders=_reports([sender for _, sender in origins], exported.groups, rejected),
        resources=tuple({resource.id: resource for resource, _ in origins if resource}.values()),
    )
    first = next(iter(spans.rejections.items()), None)
    return DecodedRequest(
        batch,
        f"span {first[0]}: {REASONS[first[1]]}" if first else "",
        SentSpans(exported.spans, spans.span_count, tuple(spans.rejections), exported.groups),
    )


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
