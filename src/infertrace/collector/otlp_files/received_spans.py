"""Stored spans that came by OTLP, as OTLP in JSON: as they came in.

Nothing is said twice: fields that were found among the attributes are not written again, since the
attributes are. A model that the collector gave a span is written as an attribute.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any, Final

from infertrace.collector.otlp_files.foreign_span import foreign_span
from infertrace.collector.otlp_files.stored_values import key_values_json, plain
from infertrace.collector.store.resource import DROPPED_COUNT_KEY
from infertrace.collector.store.timestamps import parse_rfc3339
from infertrace.otlp.dialects import find_fields
from infertrace.otlp.json_writer import JsonObject

Row = Mapping[str, Any]
"""A row of a store, by the names of its columns."""

_GIVEN_MODEL: Final = "gen_ai.request.model"
_LANGFUSE_MESSAGE: Final = "langfuse.observation.status_message"
_OPERATION: Final = "gen_ai.operation.name"
_REPLACED_NAME: Final = "infertrace.operation_name"
_COUNTS: Final = {
    "dropped_attributes_count": "droppedAttributesCount",
    "dropped_events_count": "droppedEventsCount",
    "dropped_links_count": "droppedLinksCount",
    "flags": "flags",
}


def resource_spans(rows: Iterable[Row], resource: str | None) -> JsonObject:
    """A ResourceSpans; `resource` is the stored text of its attributes."""
    attributes = plain(json.loads(resource or "{}"))
    dropped = attributes.pop(DROPPED_COUNT_KEY, None)
    made: JsonObject = {"attributes": key_values_json(attributes)}
    if isinstance(dropped, int):
        made["droppedAttributesCount"] = dropped
    scopes = groupby(rows, _scope_key)
    return {
        "resource": made,
        "scopeSpans": [
            {"scope": _scope(*key), "spans": [_span(row) for row in group]} for key, group in scopes
        ],
    }


def _scope_key(row: Row) -> tuple[str | None, str | None, str | None]:
    return row["scope_name"], row["scope_version"], row["scope_attributes"]


def _scope(name: str | None, version: str | None, attributes: str | None) -> JsonObject:
    return _present(
        name=name,
        version=version,
        attributes=attributes and key_values_json(plain(json.loads(attributes))),
    )


def _span(row: Row) -> JsonObject:
    attributes = {key: plain(value) for key, value in json.loads(row["attributes"] or "{}").items()}
    events = json.loads(row["events"] or "[]")
    model = _given_model(row)
    if model is not None:
        attributes[_GIVEN_MODEL] = model
    parent = row["parent_span_id"]
    return _present(
        traceId=row["trace_id"].hex,
        spanId=f"{row['span_id']:016x}",
        traceState=row["trace_state"],
        parentSpanId=parent and f"{parent:016x}",
        name=_name(row, attributes),
        kind=row["kind"],
        startTimeUnixNano=str(row["start_time"]),
        endTimeUnixNano=str(row["start_time"] + row["duration_nanos"]),
        attributes=key_values_json(attributes),
        events=[_event(event) for event in events],
        links=[_link(link) for link in json.loads(row["links"] or "[]")],
        status=_present(message=_status_message(row, attributes), code=row["status_code"]),
        **{name: row[column] for column, name in _COUNTS.items()},
    )


def _name(row: Row, attributes: dict[str, Any]) -> str | None:
    """As OTLP had it, which `infertrace.operation_name` replaced as it came in."""
    operation, model = attributes.get(_OPERATION), row["model_name"]
    if attributes.get(_REPLACED_NAME) and isinstance(operation, str) and model is not None:
        return f"{operation} {model}"
    name: str | None = row["operation_name"]
    return name


def _status_message(row: Row, attributes: dict[str, Any]) -> str | None:
    """As OTLP had it, which left it to Langfuse's attributes where it said no status."""
    message: str | None = row["status_message"]
    is_of_langfuse = row["status"] == "ERROR" and not row["status_code"]
    return None if is_of_langfuse and attributes.get(_LANGFUSE_MESSAGE) == message else message


def _given_model(row: Row) -> str | None:
    """The model of a span whose attributes name none."""
    if row["model_name"] is None:
        return None
    found = find_fields(foreign_span(row.__getitem__))
    return None if "model_name" in found.values else row["model_name"]


def _event(event: Mapping[str, Any]) -> JsonObject:
    time_ns = parse_rfc3339(event["time"])
    return _present(
        timeUnixNano=str(time_ns) if time_ns else None, name=event["name"], **_rest(event)
    )


def _link(link: Mapping[str, Any]) -> JsonObject:
    return _present(
        traceId=link["trace_id"],
        spanId=link["span_id"],
        traceState=link.get("trace_state"),
        flags=link.get("flags"),
        **_rest(link),
    )


def _rest(part: Mapping[str, Any]) -> JsonObject:
    """What an event and a link end with."""
    attributes = {key: plain(value) for key, value in part.get("attributes", {}).items()}
    return {
        "attributes": key_values_json(attributes),
        "droppedAttributesCount": part.get("dropped_attributes_count"),
    }


def _present(**values: Any) -> JsonObject:
    """Without what is absent or has the value that absence means."""
    return {name: value for name, value in values.items() if value}
