"""Rows of a store as the flat JSON objects of an answer."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from typing import Any

from infertrace.collector.store.columns import COLUMNS, Kind
from infertrace.collector.store.store import Store
from infertrace.collector.store.timestamps import format_rfc3339

NANOS_PER_MS = 1_000_000

_FLOAT32 = struct.Struct("f")
_POSITION = {column.name: position for position, column in enumerate(COLUMNS)}


def flat_span(row: Sequence[Any]) -> dict[str, Any]:
    """A row in the order of COLUMNS, as JSON types; what is absent is left out."""
    return {
        key: value if present is None else present(value)
        for (key, present), value in zip(_PRESENTATION, row, strict=True)
        if value is not None
    }


def flat_spans_with_resources(store: Store, rows: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
    """Rows as `flat_span` has them, and in `resource` the attributes of the resource of each."""
    ids = {row[_POSITION["resource_id"]] for row in rows} - {None}
    found = store.resources(ids) if ids else {}
    resources = {key: json.loads(attributes) for key, attributes in found.items()}
    spans = []
    for row in rows:
        span = flat_span(row)
        if (resource := resources.get(row[_POSITION["resource_id"]])) is not None:
            span["resource"] = resource
        spans.append(span)
    return spans


def shortest_float32(value: float) -> float:
    """The number with the fewest digits that is the same 32-bit float: 0.1, not 0.100000001."""
    packed = _FLOAT32.pack(value)
    for digits in range(6, 9):
        shorter = float(f"{value:.{digits}g}")
        try:
            if _FLOAT32.pack(shorter) == packed:
                return shorter
        except OverflowError:  # rounded up beyond the largest one
            continue
    return float(f"{value:.9g}")


def span_schema() -> dict[str, Any]:
    """How OpenAPI describes a flat span."""
    return {
        "type": "object",
        "required": [column.key for column in COLUMNS if column.required],
        "properties": {
            column.key: {
                **_SCHEMAS[column.kind],
                **({"description": column.description} if column.description else {}),
                **({"type": "array"} if column.name in ("events", "links") else {}),
            }
            for column in COLUMNS
        }
        | {"resource": {**_SCHEMAS["json"], "description": "attributes; with `include=resource`"}},
    }


_PRESENT: dict[Kind, Callable[[Any], Any]] = {
    "uuid": lambda value: value.hex,
    "span_id": lambda span_id: f"{span_id:016x}",
    "time": format_rfc3339,
    "duration": lambda nanos: nanos / NANOS_PER_MS,
    "float32": shortest_float32,
    "json": json.loads,
}
_PRESENTATION = [(column.key, _PRESENT.get(column.kind)) for column in COLUMNS]
_SCHEMAS: dict[Kind, dict[str, Any]] = {
    "uuid": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    "span_id": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
    "text": {"type": "string"},
    "time": {"type": "string", "format": "date-time"},
    "duration": {"type": "number"},
    "int32": {"type": "integer", "format": "int32"},
    "int64": {"type": "integer", "format": "int64"},
    "float32": {"type": "number", "format": "float"},
    "float64": {"type": "number", "format": "double"},
    "json": {"type": "object"},
}
