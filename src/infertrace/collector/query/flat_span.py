"""Rows of a store as the flat JSON objects of an answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from infertrace.collector.store.columns import COLUMNS
from infertrace.collector.store.kinds import KINDS
from infertrace.collector.store.span_filter import COLUMN_INDEX, Row
from infertrace.collector.store.store import SpanReader

_RESOURCE_ID = COLUMN_INDEX["resource_id"]


def flat_span(row: Row) -> dict[str, Any]:
    """A row as JSON types; what is absent is left out."""
    return {
        key: value if present is None else present(value)
        for (key, present), value in zip(_PRESENTATION, row, strict=True)
        if value is not None
    }


def flat_values(names: tuple[str, ...], row: Row) -> dict[str, Any]:
    """The values of some columns as JSON types, by the keys of an answer; absent ones left out."""
    return {
        key: value if present is None else present(value)
        for (key, present), value in zip(_presentation(names), row, strict=True)
        if value is not None
    }


@lru_cache
def _presentation(names: tuple[str, ...]) -> list[_Presented]:
    return [_PRESENTATION[COLUMN_INDEX[name]] for name in names]


def flat_spans_with_resources(store: SpanReader, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows as JSON types, each with the attributes of its resource under `resource`."""
    ids = {row[_RESOURCE_ID] for row in rows} - {None}
    found = store.resources(ids) if ids else {}
    resources = {key: json.loads(attributes) for key, attributes in found.items()}
    spans = []
    for row in rows:
        span = flat_span(row)
        if (resource := resources.get(row[_RESOURCE_ID])) is not None:
            span["resource"] = resource
        spans.append(span)
    return spans


def span_schema() -> dict[str, Any]:
    """How OpenAPI describes a flat span; with `fields`, an answer has only those keys."""
    resource = {**KINDS["json"].openapi, "description": "attributes; with `include=resource`"}
    return {
        "type": "object",
        "properties": {
            column.key: {
                **KINDS[column.kind].openapi,
                **({"description": column.description} if column.description else {}),
                **({"type": "array"} if column.name in ("events", "links") else {}),
            }
            for column in COLUMNS
        }
        | {"resource": resource},
    }


_Presented = tuple[str, Callable[[Any], Any] | None]
_PRESENTATION: list[_Presented] = [(column.key, KINDS[column.kind].to_json) for column in COLUMNS]
