"""Requests of OTLP as the batches that a store takes."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable

from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as OtlpResource
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from infertrace.collector.ingest.otlp_senders import sender_of
from infertrace.collector.ingest.request_batches import DecodedRequest
from infertrace.collector.ingest.span_validity import REASONS, rejections
from infertrace.collector.ingest.wire_fields import MAX_SPANS, RequestError
from infertrace.collector.store.ledger import SenderReport
from infertrace.collector.store.resource import Resource, stored_resource
from infertrace.collector.store.span_rows import merged_rows, span_rows, with_origin
from infertrace.collector.store.store import Batch
from infertrace.generated.span_pb2 import AttributeValue, Span
from infertrace.wire.protobuf import WireError, delimited_fields


def decode_export(raw: bytes) -> DecodedRequest:
    """Decode an ExportTraceServiceRequest; raises RequestError.

    A span that is malformed or invalid is rejected by itself, not with its neighbours.
    """
    rows, resources, rejected_positions, reason = [], [], [], ""
    senders: dict[bytes, list[object]] = {}
    count = 0
    try:
        for group in delimited_fields(raw, 1):
            resource = _resource(group)
            sender = sender_of(resource)
            spans = [
                _span(span, sender.service_name)
                for scope in delimited_fields(group, 2)
                for span in delimited_fields(scope, 2)
            ]
            rejected = rejections(spans)
            valid = [s for n, s in enumerate(spans) if s is not None and n not in rejected]
            for position, why in rejected.items():
                reason = reason or f"span {count + position}: {REASONS[why]}"
                rejected_positions.append(count + position)
            count += len(spans)
            if count > MAX_SPANS:
                raise RequestError(f"more than {MAX_SPANS} spans in one request")
            resources += [resource] if resource else []
            rows.append(
                with_origin(
                    span_rows(valid), uuid.UUID(bytes=sender.id), resource.id if resource else None
                )
            )
            known = senders.setdefault(sender.id, [sender.service_name, 0, Counter()])
            known[1] += len(spans)  # type: ignore[operator]
            known[2].update(REASONS[why] for why in rejected.values())  # type: ignore[attr-defined]
    except (WireError, DecodeError):
        raise RequestError("the request is not protobuf") from None
    if not rows:
        rows.append(with_origin(span_rows([]), None, None))
    reports = [SenderReport(key, *values) for key, values in senders.items() if values[1]]  # type: ignore[arg-type]
    batch = Batch(
        merged_rows(rows), count, rejected_positions, senders=reports, resources=resources
    )
    return DecodedRequest(batch, reason)


def _resource(group: bytes) -> Resource | None:
    attributes: dict[str, AttributeValue] = {}
    for raw in delimited_fields(group, 1):
        attributes.update(_attributes(OtlpResource.FromString(raw).attributes))
    return stored_resource(attributes)


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, AttributeValue]:
    found = {}
    for pair in pairs:
        kind = pair.value.WhichOneof("value")
        if kind in ("string_value", "bool_value", "int_value", "double_value"):
            found[pair.key] = AttributeValue(**{kind: getattr(pair.value, kind)})
        elif kind:
            found[pair.key] = AttributeValue(string_value=str(getattr(pair.value, kind)))
    return found


def _span(raw: bytes, service_name: str) -> Span | None:
    try:
        given = OtlpSpan.FromString(raw)
    except DecodeError:
        return None
    start_ns = given.start_time_unix_nano
    if start_ns >= 2**63 or given.end_time_unix_nano >= 2**63:
        return Span()
    return Span(
        trace_id=given.trace_id,
        span_id=given.span_id,
        parent_span_id=given.parent_span_id,
        service_name=service_name,
        operation_name=given.name,
        start_time_unix_nano=start_ns,
        duration_nanos=max(0, given.end_time_unix_nano - start_ns),
        status="ERROR" if given.status.code == Status.STATUS_CODE_ERROR else "OK",
        status_message=given.status.message,
        attributes=_attributes(given.attributes),
    )
