"""What comparisons count of spans: each value of each text, each bucket of each measure.

All of it can be added up again, so counts of short times make those of long ones (`rollup.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infertrace.collector.store.grouping import (
    ERRORS,
    Aggregate,
    BucketKey,
    ColumnKey,
    GroupedQuery,
    Key,
    TimeKey,
)
from infertrace.collector.store.measures import DIMENSIONS, MEASURES
from infertrace.collector.store.model_sums import Grouped, bucket_counts, histogram
from infertrace.collector.store.span_filter import SpanFilter

COMPARED_COLUMNS = (*DIMENSIONS, "producer_id", "resource_id")
COMPARED_KEYS: tuple[ColumnKey | BucketKey, ...] = (
    *map(ColumnKey, COMPARED_COLUMNS),
    *map(BucketKey, MEASURES),
)
KEYED_COLUMNS = ("tags", "attributes")
"""JSON objects, of which each span may have another: their values are not counted here."""
MAX_VALUES = 200  # of one column, in the counts of one model
MAX_GROUPS = 20_000  # of one column, in one query

_MODEL = ColumnKey("model_name")
_READ_COLUMNS = sorted({name for key in COMPARED_KEYS for name in key.columns} | set(KEYED_COLUMNS))
PRESENT = tuple(Aggregate("present", name) for name in _READ_COLUMNS)
"""How many spans have a value of each column that a comparison reads."""


def present_columns(counts: Sequence[int]) -> set[str]:
    """The columns that have a value, by a row of `PRESENT`."""
    return {name for name, count in zip(_READ_COLUMNS, counts, strict=True) if count}


@dataclass(slots=True)
class ValueCounts:
    """The spans of one model, or of several.

    `present` are the columns of which a span has a value. `values` are spans by the value of each
    of `COMPARED_COLUMNS`, None where there are too many values to keep; `histograms` are messages
    that `bucket_counts` adds up. Of what no span says, there is nothing.
    """

    count: int = 0
    error_count: int = 0
    present: set[str] = field(default_factory=set)
    values: dict[str, dict[Any, int] | None] = field(default_factory=dict)
    histograms: dict[str, list[bytes]] = field(default_factory=dict)

    def add(self, other: ValueCounts) -> None:
        """Add the counts of other spans."""
        self.count += other.count
        self.error_count += other.error_count
        self.present |= other.present
        for name, counts in other.values.items():
            kept = self.values.setdefault(name, {})
            if kept is None or counts is None:
                self.values[name] = None
                continue
            for value, count in counts.items():
                kept[value] = kept.get(value, 0) + count
        for name, messages in other.histograms.items():
            self.histograms.setdefault(name, []).extend(messages)

    def compact(self) -> None:
        """Have one message for each histogram in place of many, and no more values than allowed."""
        for messages in self.histograms.values():
            if len(messages) > 1:
                messages[:] = histogram(bucket_counts(messages))
        for name, counts in self.values.items():
            if counts is not None and len(counts) > MAX_VALUES:
                self.values[name] = None

    def of(self, key: Key) -> dict[Any, int] | None:
        """Spans by the value of one of `COMPARED_KEYS`; None where that is not known."""
        if isinstance(key, ColumnKey):
            return self.values.get(key.name, {}) if key.name in COMPARED_COLUMNS else None
        if isinstance(key, BucketKey):
            return bucket_counts(self.histograms.get(key.measure, []))
        return None


Counts = Mapping[str, ValueCounts]
"""By the name of the model."""


def value_counts(
    grouped: Grouped, where: SpanFilter, slots: TimeKey | None = None
) -> dict[int, dict[str, ValueCounts]]:
    """The counts of each model by slot of the time, from the spans themselves.

    Without `slots` there is one slot, 0.
    """
    ahead: list[Key] = [_MODEL] if slots is None else [slots, _MODEL]
    found: dict[int, dict[str, ValueCounts]] = {}

    def place(row: Sequence[Any]) -> ValueCounts | None:
        """Where a row belongs; None for those of spans that came since the first question."""
        slot, model = (0, row[0]) if slots is None else row[:2]
        return found.get(slot, {}).get(model)

    (rows,) = grouped(GroupedQuery(where, [ahead], [ERRORS, *PRESENT]))
    for row in rows:
        slot, model = (0, row[0]) if slots is None else row[:2]
        if model is None:
            continue
        count, errors, *present = row[len(ahead) :]
        told = ValueCounts(count, errors, present_columns(present))
        told.values[_MODEL.name] = {model: count}
        found.setdefault(slot, {})[model] = told
    columns = {name for models in found.values() for it in models.values() for name in it.present}
    measures = [name for name, measure in MEASURES.items() if columns & set(measure.columns)]
    texts = [name for name in COMPARED_COLUMNS if name in columns and name != _MODEL.name]
    for name, groups in _asked(grouped, where, ahead, texts, ColumnKey, MAX_GROUPS):
        is_cut = len(groups) >= MAX_GROUPS
        for *key, value, count in groups:
            if (sums := place(key)) is not None and value is not None:
                sums.values.setdefault(name, {})[value] = count  # type: ignore[index]
        if is_cut:
            for models in found.values():
                for each in models.values():
                    each.values[name] = None
    for name, groups in _asked(grouped, where, ahead, measures, BucketKey, None):
        buckets: dict[int, tuple[ValueCounts, dict[int, int]]] = {}
        for *key, bucket, count in groups:
            if (sums := place(key)) is not None and bucket is not None:
                buckets.setdefault(id(sums), (sums, {}))[1][bucket] = count
        for sums, counts in buckets.values():
            sums.histograms[name] = histogram(counts)
    for models in found.values():
        for each in models.values():
            each.compact()
    return found


def _asked(
    grouped: Grouped,
    where: SpanFilter,
    ahead: Sequence[Key],
    names: Sequence[str],
    key: Callable[[str], Key],
    limit: int | None,
) -> Iterable[tuple[str, list[tuple[Any, ...]]]]:
    """The groups by each of these keys."""
    groupings = [[*ahead, key(name)] for name in names]
    query = GroupedQuery(where, groupings, limit=limit)
    return zip(names, grouped(query) if names else [], strict=True)
