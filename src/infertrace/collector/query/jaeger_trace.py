"""Spans as Jaeger's JSON.

Source: Jaeger, internal/uimodel/model.go.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from infertrace.collector.query.flat_span import flat_span
from infertrace.collector.store.kinds import SPAN_KINDS
from infertrace.collector.store.span_filter import COLUMN_INDEX, Row
from infertrace.collector.store.timestamps import parse_rfc3339

_NANOS_PER_MICRO = 1_000
# What Jaeger has its own place for, or what has parts.
_NOT_TAGS = frozenset(
    {
        "trace_id", "span_id", "parent_span_id", "service_name", "operation_name", "start_time",
        "duration_ms", "status", "kind", "tags", "attributes", "events", "links", "token_intervals",
        "resource_id", "flags", "scope_attributes",
    }
)  # fmt: skip


def jaeger_trace(rows: Sequence[Row], resources: Mapping[Any, str]) -> dict[str, Any]:
    """One trace; `resources` are the attributes of resources as texts of JSON objects, by id."""
    processes: dict[tuple[str, Any], str] = {}
    spans = []
    for row in rows:
        values = dict(zip(COLUMN_INDEX, row, strict=True))
        process = values["service_name"] or "no name", values["resource_id"]
        name = processes.setdefault(process, f"p{len(processes) + 1}")
        spans.append(_span(row, values, name))
    return {
        "traceID": spans[0]["traceID"],
        "spans": spans,
        "processes": {
            name: {"serviceName": service, "tags": _tags(json.loads(resources.get(key, "{}")))}
            for (service, key), name in processes.items()
        },
        "warnings": None,
    }


def _span(row: Row, values: Mapping[str, Any], process: str) -> dict[str, Any]:
    shown = flat_span(row)
    kind = values["kind"]
    tags = {
        **{key: value for key, value in shown.items() if key not in _NOT_TAGS},
        **shown.get("attributes", {}),
        **shown.get("tags", {}),
        **({} if kind is None else {"span.kind": SPAN_KINDS.get(kind, str(kind)).lower()}),
        **({"error": True} if values["status"] == "ERROR" else {}),
        "otel.status_code": values["status"],
    }
    parent = values["parent_span_id"]
    references = (
        [] if parent is None else [_reference("CHILD_OF", shown["trace_id"], f"{parent:016x}")]
    )
    references += [
        _reference("FOLLOWS_FROM", link["trace_id"], link["span_id"])
        for link in shown.get("links", [])
        if "trace_id" in link and "span_id" in link
    ]
    return {
        "traceID": shown["trace_id"],
        "spanID": shown["span_id"],
        "operationName": values["operation_name"] or "span",
        "references": references,
        "startTime": values["start_time"] // _NANOS_PER_MICRO,
        "duration": values["duration_nanos"] // _NANOS_PER_MICRO,
        "tags": _tags(tags),
        "logs": [_log(event) for event in shown.get("events", [])],
        "processID": process,
        "warnings": None,
    }


def _reference(kind: str, trace_id: str, span_id: str) -> dict[str, str]:
    return {"refType": kind, "traceID": trace_id, "spanID": span_id}


def _log(event: Mapping[str, Any]) -> dict[str, Any]:
    fields = {"event": event.get("name", ""), **event.get("attributes", {})}
    moment = parse_rfc3339(event["time"]) if "time" in event else 0
    return {"timestamp": moment // _NANOS_PER_MICRO, "fields": _tags(fields)}


def _tags(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [_tag(key, value) for key, value in values.items()]


def _tag(key: str, value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"key": key, "type": "bool", "value": value}
    if isinstance(value, int):
        return {"key": key, "type": "int64", "value": value}
    if isinstance(value, float):
        return {"key": key, "type": "float64", "value": value}
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return {"key": key, "type": "string", "value": text}


def dependencies(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """How often a span of one service was below one of another, as far as both are among these."""
    trace, span, parent, service = (
        COLUMN_INDEX[name] for name in ("trace_id", "span_id", "parent_span_id", "service_name")
    )
    rows = list(rows)
    services = {(row[trace], row[span]): row[service] or "no name" for row in rows}
    calls: dict[tuple[str, str], int] = {}
    for row in rows:
        above = services.get((row[trace], row[parent]))
        below = row[service] or "no name"
        if above is not None and above != below:
            calls[above, below] = calls.get((above, below), 0) + 1
    return [
        {"parent": above, "child": below, "callCount": count}
        for (above, below), count in sorted(calls.items())
    ]
