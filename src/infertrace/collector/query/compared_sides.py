"""The spans of both sides of a comparison, counted by keys.

Where the counts of all spans are in memory, only the selection is read, and the rest is what is
left of all. Otherwise both sides are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

from infertrace.collector.query.chosen_spans import bounds
from infertrace.collector.store.grouping import (
    ERRORS,
    SAMPLE_PARTS,
    BucketKey,
    ColumnKey,
    GroupedQuery,
    MatchKey,
)
from infertrace.collector.store.span_filter import SpanFilter
from infertrace.collector.store.store import SpanReader
from infertrace.collector.store.value_counts import PRESENT, ValueCounts, present_columns

MAX_COMPARED = 500_000  # spans that are read; of more, an even sample

ComparedKey = ColumnKey | BucketKey
Sided = list[tuple[Any, bool, int]]
"""Values, whether they are selected, and counts; None is no value."""
_Groups = list[tuple[bool, bool, Any, int]]
"""Whether spans meet two filters, their value, their count."""


@dataclass
class Totals:
    """How many spans are on each side; `present` are the columns of which any has a value."""

    selected: int = 0
    baseline: int = 0
    selected_errors: int = 0
    baseline_errors: int = 0
    present: set[str] = field(default_factory=set)

    def __add__(self, other: Totals) -> Totals:
        return Totals(
            self.selected + other.selected,
            self.baseline + other.baseline,
            self.selected_errors + other.selected_errors,
            self.baseline_errors + other.baseline_errors,
            self.present | other.present,
        )

    def as_selected(self) -> Totals:
        """The same spans on the other side."""
        return Totals(
            self.baseline, self.selected, self.baseline_errors, self.selected_errors, self.present
        )

    def sample_parts(self, wanted: int) -> int:
        """How many of SAMPLE_PARTS to read, so that they hold about `wanted` spans."""
        total = self.selected + self.baseline
        return SAMPLE_PARTS if total <= wanted else max(1, SAMPLE_PARTS * wanted // total)


class Sides(Protocol):
    """Both sides, to be counted by keys."""

    @property
    def totals(self) -> Totals: ...

    def by(
        self, keys: Sequence[ComparedKey], wanted: int, limit: int
    ) -> tuple[dict[ComparedKey, Sided], int]:
        """What the spans say of each key, and the SAMPLE_PARTS from which any of it is told.

        Of spans that have to be read, that is a sample of about `wanted`, with at most `limit`
        values of a key.
        """


def sides_of(
    store: SpanReader, where: SpanFilter, selected: SpanFilter, baseline: SpanFilter
) -> Sides:
    """What `selected` lets pass of the spans of `where`, and the rest of those in `baseline`."""
    both = _ReadSides(store, where, selected, baseline)
    known = store.value_counts(where) if baseline == SpanFilter() else None
    if known is not None:
        summed = _SummedSides(store, known, selected, both)
        if summed.read_count <= MAX_COMPARED:
            return summed
    return both


class _Spans:
    """Spans of a store by two filters that each of them meets or not."""

    def __init__(
        self, store: SpanReader, wheres: Sequence[SpanFilter], one: SpanFilter, other: SpanFilter
    ) -> None:
        self._store = store
        self._wheres = wheres
        self._keys = MatchKey(one), MatchKey(other)

    @cached_property
    def totals(self) -> dict[tuple[bool, bool], Totals]:
        """Those that meet both filters, one, none, as spans of the baseline."""
        first, *others = self._wheres
        query = GroupedQuery(first, [self._keys], (ERRORS, *PRESENT), others=others)
        (rows,) = self._store.grouped(query)
        return {
            (bool(one), bool(other)): Totals(0, count, 0, errors, present_columns(present))
            for one, other, count, errors, *present in rows
        }

    def by(
        self, keys: Sequence[ComparedKey], limit: int | None = None, parts: int = SAMPLE_PARTS
    ) -> dict[ComparedKey, _Groups]:
        """What these spans, or a sample of so large a part, say of each key."""
        nothing = [(*met, None, told.baseline) for met, told in self.totals.items()]
        found: dict[ComparedKey, _Groups] = {key: list(nothing) for key in keys}
        present = {name for told in self.totals.values() for name in told.present}
        asked = [key for key in keys if key.columns & present]
        if asked:
            first, *others = self._wheres
            groupings = [(*self._keys, key) for key in asked]
            query = GroupedQuery(first, groupings, (), limit, parts, others)
            for key, rows in zip(asked, self._store.grouped(query), strict=True):
                found[key] = [
                    (bool(one), bool(other), value, count) for one, other, value, count in rows
                ]
        return found


class _ReadSides:
    """Both sides, read."""

    def __init__(
        self, store: SpanReader, where: SpanFilter, selected: SpanFilter, baseline: SpanFilter
    ) -> None:
        self.store, self.where = store, where
        self._spans = _Spans(store, [where], selected, baseline)

    @cached_property
    def totals(self) -> Totals:
        total = Totals()
        for (is_selected, is_base), told in self._spans.totals.items():
            if is_selected:
                total += told.as_selected()
            elif is_base:
                total += told
        return total

    def by(
        self, keys: Sequence[ComparedKey], wanted: int, limit: int
    ) -> tuple[dict[ComparedKey, Sided], int]:
        parts = self.totals.sample_parts(wanted)
        found = self._spans.by(keys, limit, parts)
        return {
            key: [
                (value, is_selected, count)
                for is_selected, is_base, value, count in groups
                if is_selected or is_base
            ]
            for key, groups in found.items()
        }, parts


class _SummedSides:
    """Both sides, from the counts of all spans of a time, the selection in it, and its edges.

    What counts do not tell is read of `both`.
    """

    def __init__(
        self,
        store: SpanReader,
        known: tuple[tuple[int, int], ValueCounts],
        selected: SpanFilter,
        both: _ReadSides,
    ) -> None:
        (first_ns, end_ns), self._whole = known
        self._both = both
        where = both.where
        since_ns, until_ns = bounds(where)
        inside = SpanFilter(since_ns=first_ns, until_ns=end_ns)
        edges = [
            replace(where, since_ns=begin, until_ns=end)
            for begin, end in ((since_ns, first_ns), (end_ns, until_ns))
            if begin < end
        ]
        chosen = _intersection(replace(where, since_ns=first_ns, until_ns=end_ns), selected)
        self._spans = _Spans(store, [chosen, *edges], selected, inside)
        told = self._spans.totals
        selected_inside = told.get((True, True), Totals())
        # A span may have come between the counts and the selection.
        self._rest = max(0, self._whole.count - selected_inside.baseline)
        rest_errors = max(0, self._whole.error_count - selected_inside.baseline_errors)
        self.totals = (
            Totals(0, self._rest, 0, rest_errors, self._whole.present)
            + selected_inside.as_selected()
            + told.get((True, False), Totals()).as_selected()
            + told.get((False, False), Totals())
        )

    @property
    def read_count(self) -> int:
        """The spans that are read."""
        return sum(told.baseline for told in self._spans.totals.values())

    def by(
        self, keys: Sequence[ComparedKey], wanted: int, limit: int
    ) -> tuple[dict[ComparedKey, Sided], int]:
        whole = {key: counts for key in keys if (counts := self._whole.of(key)) is not None}
        found: dict[ComparedKey, Sided] = {key: [] for key in keys}
        for key, groups in self._spans.by(list(whole)).items():
            found[key] = [(value, is_selected, count) for is_selected, _, value, count in groups]
            found[key] += self._left(whole[key], groups)
        others = [key for key in keys if key not in whole and key.columns & self.totals.present]
        if not others:
            return found, SAMPLE_PARTS
        read, parts = self._both.by(others, wanted, limit)
        return {**found, **read}, parts

    def _left(self, whole: Mapping[Any, int], groups: _Groups) -> Sided:
        """The values of the spans of the time that are not selected."""
        left = dict(whole)
        for _, is_inside, value, count in groups:
            if is_inside and value is not None:
                left[value] = left.get(value, 0) - count
        rows: Sided = [(value, False, count) for value, count in left.items() if count > 0]
        without_value = self._rest - sum(count for _, _, count in rows)
        return [*rows, (None, False, without_value)] if without_value > 0 else rows


def _intersection(where: SpanFilter, selected: SpanFilter) -> SpanFilter:
    """What both let pass; `selected` has a time, a status and ranges at most."""
    (since_ns, until_ns), status = bounds(where), selected.status or where.status
    if where.status not in (None, status):
        until_ns = since_ns
    return replace(
        where,
        since_ns=max(since_ns, selected.since_ns or 0),
        until_ns=until_ns if selected.until_ns is None else min(until_ns, selected.until_ns),
        status=status,
        ranges=(*where.ranges, *selected.ranges),
    )
