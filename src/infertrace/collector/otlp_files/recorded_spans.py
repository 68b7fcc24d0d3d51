"""Stored spans that came by our own protocol, as messages of ours again."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from infertrace.collector.otlp_files.stored_values import attribute_value, plain
from infertrace.collector.store.span_rows import DECODED_COLUMNS
from infertrace.collector.store.timestamps import parse_rfc3339
from infertrace.generated.span_pb2 import SendSpanBatchRequest, Span


def span_message(row: Mapping[str, Any]) -> Span:
    """A row of a store, by the names of its columns, as the span that it came from."""
    span = Span()
    for column in DECODED_COLUMNS:
        value = row[column.name]
        if value is None:
            continue
        part, _, field = column.wire.rpartition(".")
        message: Any = getattr(span, part) if part else span
        if column.kind == "json":
            _set_json(message, field, json.loads(value))
        elif column.kind == "uuid":
            setattr(message, field, value.bytes)
        elif column.kind == "span_id":
            setattr(message, field, value.to_bytes(8, "big"))
        elif column.kind == "intervals":
            getattr(message, field).ParseFromString(value)
        else:
            setattr(message, field, value)
    return span


def envelope(spans: list[Span], producer: uuid.UUID | None, resource: str | None) -> bytes:
    """Spans of one producer and one resource, whose attributes are a stored text."""
    request = SendSpanBatchRequest(spans=spans, producer_id=producer.bytes if producer else b"")
    if resource is not None:
        _set_attributes(request.resource, json.loads(resource))
    return request.SerializeToString()


def _set_attributes(message: Any, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        message.attributes[key].CopyFrom(attribute_value(plain(value)))


def _set_json(message: Any, field: str, value: Any) -> None:
    if field == "tags":
        message.tags.update(value)
    elif field == "events":
        for event in value:
            _set_rest(
                message.events.add(name=event["name"], time_unix_nano=parse_rfc3339(event["time"])),
                event,
            )
    elif field == "links":
        for link in value:
            added = message.links.add(
                trace_id=bytes.fromhex(link["trace_id"]),
                span_id=bytes.fromhex(link["span_id"]),
                trace_state=link.get("trace_state", ""),
                flags=link.get("flags", 0),
            )
            _set_rest(added, link)
    else:
        for key, member in value.items():
            getattr(message, field)[key].CopyFrom(attribute_value(plain(member)))


def _set_rest(part: Any, stored: Mapping[str, Any]) -> None:
    _set_attributes(part, stored.get("attributes", {}))
    part.dropped_attributes_count = stored.get("dropped_attributes_count", 0)
