"""Counts of spans by keys: the query behind overview, heatmap, comparison, facets, targets."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from infertrace.collector.store.exponential_buckets import bucket_sql
from infertrace.collector.store.filter_sql import (
    Condition,
    Dialect,
    filter_condition,
    filtered_columns,
)
from infertrace.collector.store.measures import MEASURES
from infertrace.collector.store.span_filter import SpanFilter

SAMPLE_PARTS = 65_536


@dataclass(frozen=True)
class ColumnKey:
    """The value of a column."""

    name: str

    @property
    def columns(self) -> set[str]:
        return {self.name}

    def sql(self, dialect: Dialect) -> Condition:
        return f'"{self.name}"', []


@dataclass(frozen=True)
class TimeKey:
    """The part of the time, 0 and up, in which a span started, or ended.

    With a grain, a span counts where its grain ends, so that a whole grain is in one part: all
    multiples of `grain_ns` are since 1970.
    """

    since_ns: int
    length_ns: int
    of: Literal["start", "end"] = "start"
    grain_ns: int = 1

    @property
    def columns(self) -> set[str]:
        return {"start_time", "duration_nanos"}

    def sql(self, dialect: Dialect) -> Condition:
        moment = "start_time" if self.of == "start" else "start_time + duration_nanos"
        if self.grain_ns > 1:
            moment = f"(({moment}) {dialect.quotient} {self.grain_ns:d}) * {self.grain_ns:d}"
        since_ns = self.since_ns - (self.grain_ns - 1)
        return f"({moment} - {since_ns:d}) {dialect.quotient} {self.length_ns:d}", []

    def part(self, moment_ns: int) -> int:
        """The part of one moment."""
        end_ns = moment_ns // self.grain_ns * self.grain_ns + self.grain_ns - 1
        return (end_ns - self.since_ns) // self.length_ns


@dataclass(frozen=True)
class BucketKey:
    """The bucket of a measure; NULL where the span does not say it."""

    measure: str

    @property
    def columns(self) -> set[str]:
        return set(MEASURES[self.measure].columns)

    def sql(self, dialect: Dialect) -> Condition:
        return bucket_sql(MEASURES[self.measure].bucketed_sql, dialect.log2), []


@dataclass(frozen=True)
class MatchKey:
    """Whether a span also meets another filter; false where it lacks what that asks for."""

    where: SpanFilter

    @property
    def columns(self) -> set[str]:
        return filtered_columns(self.where)

    def sql(self, dialect: Dialect) -> Condition:
        condition, values = filter_condition(dialect, self.where, None, is_exact=True)
        return f"coalesce({condition}, FALSE)", values


Key = ColumnKey | TimeKey | BucketKey | MatchKey


@dataclass(frozen=True)
class Aggregate:
    """What is told of a group beside its count.

    `own_tokens` are those of spans that came over our own wire, `foreign_tokens` those that others
    say, of which several may tell of one call; NULL where none does. `intervals` are all
    histograms of its spans. `mean`, `longest` and `present` are of a column: its mean, maximum,
    count of values.
    """

    function: Literal[
        "errors", "own_tokens", "foreign_tokens", "first_start", "last_end", "intervals",
        "mean", "longest", "present",
    ]  # fmt: skip
    of: str = ""

    @property
    def columns(self) -> set[str]:
        return {self.of} if self.of else set(_AGGREGATED[self.function][1])

    def sql(self) -> str:
        return _AGGREGATED[self.function][0].format(column=self.of)


_AGGREGATED: dict[str, tuple[str, tuple[str, ...]]] = {
    "errors": ("count(*) FILTER (WHERE status = 'ERROR')", ("status",)),
    "own_tokens": (
        "CAST(sum(output_tokens) FILTER (WHERE kind IS NULL) AS bigint)",
        ("output_tokens", "kind"),
    ),
    "foreign_tokens": (
        "CAST(sum(output_tokens) FILTER (WHERE kind IS NOT NULL) AS bigint)",
        ("output_tokens", "kind"),
    ),
    "first_start": ("min(start_time)", ("start_time",)),
    "last_end": ("max(start_time + duration_nanos)", ("start_time", "duration_nanos")),
    "intervals": (
        "array_agg(token_intervals) FILTER (WHERE token_intervals IS NOT NULL)",
        ("token_intervals",),
    ),
    "mean": ("CAST(avg({column}) AS double precision)", ()),
    "longest": ("CAST(max({column}) AS double precision)", ()),
    "present": ("count({column})", ()),
}
ERRORS = Aggregate("errors")


class TooManyGroupsError(Exception):
    """What was asked for has more groups than can be told; the text says of what, and how many."""


class Cursor(Protocol):
    """A statement that was executed, by the interface that Python's databases share (PEP 249)."""

    def fetchall(self) -> Sequence[Sequence[Any]]: ...

    def fetchmany(self, size: int, /) -> Sequence[Sequence[Any]]: ...


@dataclass(frozen=True)
class GroupedQuery:
    """Spans counted by each of several lists of keys, at once.

    With a `limit`, the groups with most spans of each list. More than `max_groups` groups, of all
    lists together, raise TooManyGroupsError. With `sample_parts` fewer than
    SAMPLE_PARTS, that share of the spans, chosen evenly by their ids. `others` let pass further
    spans, each of which one filter lets pass; they choose the same resources.
    """

    where: SpanFilter
    groupings: Sequence[Sequence[Key]]
    aggregates: Sequence[Aggregate] = ()
    limit: int | None = None
    sample_parts: int = SAMPLE_PARTS
    others: Sequence[SpanFilter] = ()
    max_groups: int | None = None

    @property
    def keys(self) -> list[Key]:
        """All keys, each once."""
        return list(dict.fromkeys(key for keys in self.groupings for key in keys))

    def columns(self) -> list[str]:
        """All columns that the query reads."""
        found = set[str]()
        for where in (self.where, *self.others):
            found |= filtered_columns(where)
        for part in (*self.keys, *self.aggregates):
            found |= part.columns
        return sorted(found)

    def sql(
        self, dialect: Dialect, source: str, resource_ids: Collection[uuid.UUID] | None
    ) -> Condition:
        """The query on a table; which list of keys a row is of comes first in it."""
        parts, values = [], list[Any]()
        for where in (self.where, *self.others):
            sql, given = self._chosen_sql(where, dialect, source, resource_ids)
            parts.append(sql)
            values += given
        rows = f"({' UNION ALL '.join(parts)}) AS chosen"
        told = ", ".join(["count(*) AS group_size", *(each.sql() for each in self.aggregates)])
        columns = [f"key_{place}" for place in range(len(self.keys))]
        lists = [
            ", ".join(f"key_{self.keys.index(key)}" for key in keys) for keys in self.groupings
        ]
        if not columns:
            return f"SELECT 0, {told} FROM {rows}", values
        which = f"grouping({', '.join(columns)})" if len(lists) > 1 else "0"
        groups = (
            f"GROUPING SETS ({', '.join(f'({each})' for each in lists)})"
            if len(lists) > 1
            else lists[0]
        )
        sql = f"SELECT {which} AS list, {', '.join(columns)}, {told} FROM {rows} GROUP BY {groups}"
        if self.limit is not None:
            ranked = (
                "SELECT *, row_number() OVER (PARTITION BY list ORDER BY group_size DESC, "
                f"{', '.join(columns)}) AS place FROM ({sql}) AS groups"
            )
            return f"SELECT * FROM ({ranked}) AS ranked WHERE place <= {self.limit:d}", values
        return sql, values

    def _chosen_sql(
        self,
        where: SpanFilter,
        dialect: Dialect,
        source: str,
        resource_ids: Collection[uuid.UUID] | None,
    ) -> Condition:
        """The keys of the spans that a filter lets pass, and what is aggregated."""
        values: list[Any] = []
        shown = []
        for place, key in enumerate(self.keys):
            sql, given = key.sql(dialect)
            shown.append(f"{sql} AS key_{place}")
            values += given
        condition, given = filter_condition(dialect, where, resource_ids, is_exact=True)
        values += given
        if self.sample_parts < SAMPLE_PARTS:
            condition += f" AND (((span_id & 65535) * 40503) & 65535) < {self.sample_parts:d}"
        inner = sorted({name for each in self.aggregates for name in each.columns})
        chosen = ", ".join([*shown, *(f'"{name}"' for name in inner)]) or "1"
        return f"SELECT {chosen} FROM {source} WHERE {condition}", values

    def fetched(self, cursor: Cursor) -> list[list[tuple[Any, ...]]]:
        """The answer of the query: of each list of keys, the keys, the count, the rest."""
        if self.max_groups is None:
            return self._sorted_out(cursor.fetchall())
        rows = cursor.fetchmany(self.max_groups + 1)
        if len(rows) > self.max_groups:
            raise TooManyGroupsError(f"more than {self.max_groups:,} groups")
        return self._sorted_out(rows)

    def _sorted_out(self, rows: Sequence[Sequence[Any]]) -> list[list[tuple[Any, ...]]]:
        """The rows of the query by the lists of keys: the keys of a list, the count, the rest."""
        keys = self.keys
        count = len(keys)
        told_end = 1 + count + 1 + len(self.aggregates)
        if [list(wanted) for wanted in self.groupings] == [keys]:
            return [[tuple(row[1:told_end]) for row in rows]]
        lists = {}
        for number, wanted in enumerate(self.groupings):
            mask = sum(
                1 << count - 1 - place for place, key in enumerate(keys) if key not in wanted
            )
            places = [1 + keys.index(key) for key in wanted]
            lists[mask if len(self.groupings) > 1 else 0] = number, places
        found: list[list[tuple[Any, ...]]] = [[] for _ in self.groupings]
        for row in rows:
            number, places = lists[row[0]]
            group = [row[place] for place in places]
            found[number].append((*group, *row[1 + count : told_end]))
        return found
