"""Which spans an answer holds: the filter, its order and its paging."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from infertrace.collector.store.columns import COLUMNS
from infertrace.collector.store.keyed_filter import KeyedText, are_in
from infertrace.collector.store.measures import MeasureRange

Row = tuple[Any, ...]
"""A stored span: its values in the order of `COLUMNS`."""

COLUMN_INDEX = {column.name: index for index, column in enumerate(COLUMNS)}


@dataclass(frozen=True)
class SpanKey:
    """A span's place in the order of answers, which is by these fields, greatest first."""

    start_time_ns: int
    trace_id: uuid.UUID
    span_id: int


@dataclass(frozen=True)
class SpanFilter:
    """The conditions that a span has to meet; None asks for no condition.

    Times are nanoseconds since 1970. `since_ns` is included, `until_ns` is not. `after` is the
    last span of the page before. All of `tags`, `attributes` and `resource` have to hold;
    `resource` is about the attributes of the process that recorded the span. `texts` are names of
    columns among `DIMENSIONS` and what they equal. Each of `anywhere` has to hold of tags or of
    attributes. `is_request` asks for what `Selection` calls a
    request.
    """

    model: str | None = None
    service: str | None = None
    operation: str | None = None
    status: str | None = None
    trace_id: uuid.UUID | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    min_duration_ns: int | None = None
    after: SpanKey | None = None
    tags: Sequence[KeyedText] = ()
    attributes: Sequence[KeyedText] = ()
    resource: Sequence[KeyedText] = ()
    texts: Sequence[tuple[str, str]] = ()
    producer_id: uuid.UUID | None = None
    ranges: Sequence[MeasureRange] = ()
    is_request: bool = False
    anywhere: Sequence[KeyedText] = ()

    @property
    def equal_texts(self) -> dict[str, str]:
        """The texts that columns have to equal."""
        named = {
            "model_name": self.model,
            "service_name": self.service,
            "operation_name": self.operation,
            "status": self.status,
        }
        return {
            **{name: text for name, text in named.items() if text is not None},
            **dict(self.texts),
        }

    def pieces(self) -> list[tuple[str, list[str]]]:
        """For each condition on a JSON column, its name and texts of which the column has one."""
        columns = (("tags", self.tags), ("attributes", self.attributes))
        return [(name, condition.pieces()) for name, given in columns for condition in given]


def holds_keyed(where: SpanFilter, tags: str | None, attributes: str | None) -> bool:
    """Whether the conditions on keys hold of these texts of JSON objects."""
    return (
        are_in(where.tags, tags)
        and are_in(where.attributes, attributes)
        and all(are_in([each], tags) or are_in([each], attributes) for each in where.anywhere)
    )


def span_key(row: Row) -> SpanKey:
    """The place of a row in the order of answers."""
    return SpanKey(*(row[COLUMN_INDEX[name]] for name in ("start_time", "trace_id", "span_id")))


def filtered_spans(
    where: SpanFilter,
    limit: int,
    query: Callable[[SpanFilter, int, Collection[uuid.UUID] | None], list[Row]],
    matching_resources: Callable[[Sequence[KeyedText]], Collection[uuid.UUID]],
) -> list[Row]:
    """At most `limit` spans, newest first, by the two queries of a store.

    `query` may return rows that hold the pieces of a condition and not what it asks for; these
    are left out here. Its third argument are the ids of the resources to choose from, which
    `matching_resources` finds, or None for all.
    """
    resource_ids = matching_resources(where.resource) if where.resource else None
    if resource_ids is not None and not resource_ids:
        return []
    if not where.tags and not where.attributes and not where.anywhere:
        return query(where, limit, resource_ids)
    found: list[Row] = []
    while True:
        missing = limit - len(found)
        rows = query(where, missing, resource_ids)
        found += [
            row
            for row in rows
            if holds_keyed(where, row[COLUMN_INDEX["tags"]], row[COLUMN_INDEX["attributes"]])
        ]
        if len(rows) < missing or len(found) == limit:
            return found
        where = replace(where, after=span_key(rows[-1]))
