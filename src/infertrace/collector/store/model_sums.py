"""What the spans of each model add up to: counts, tokens, distributions, counts over time.

All of it can be added up again, so sums of short times make those of long ones (`rollup.py`).
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infertrace.collector.store.exponential_buckets import ZERO_BUCKET
from infertrace.collector.store.grouping import (
    ERRORS,
    Aggregate,
    BucketKey,
    ColumnKey,
    GroupedQuery,
    Key,
    TimeKey,
    TooManyGroupsError,
)
from infertrace.collector.store.interval_sums import selected
from infertrace.collector.store.measures import MEASURES
from infertrace.collector.store.span_filter import SpanFilter
from infertrace.wire.token_intervals import LOWEST_BUCKET, MAX_BUCKETS, MAX_COUNT, encode

DISTRIBUTED = ("duration_ms", "time_to_first_token_ms", "queue_wait_time_ms")
"""The measures whose distributions are kept."""
INTERVALS = "token_intervals"
"""The times between tokens, which spans say as histograms."""
DISTRIBUTIONS = (*DISTRIBUTED, INTERVALS)

MAX_MODELS = 20_000  # of all slots together
MAX_GROUPS = 250_000  # models by the parts of the time that have spans

_MODEL = ColumnKey("model_name")
_TOLD = (
    ERRORS,
    Aggregate("own_tokens"),
    Aggregate("foreign_tokens"),
    Aggregate("first_start"),
    Aggregate("last_end"),
)
_COLUMNS = {**{name: MEASURES[name].columns for name in DISTRIBUTED}, INTERVALS: (INTERVALS,)}
_PRESENT = {name: Aggregate("present", name) for columns in _COLUMNS.values() for name in columns}

Grouped = Callable[[GroupedQuery], list[list[tuple[Any, ...]]]]
"""Asks a store for groups."""


@dataclass(slots=True)
class ModelSums:
    """The sums of the spans of one model.

    `first_start_ns` and `last_end_ns` are since 1970. `own_tokens` are output tokens of spans that
    came over our own wire, None where none says them; `foreign_tokens` those that other spans say,
    by service, where several may tell of one call. `histograms` are, for each of `DISTRIBUTIONS`,
    messages that `bucket_counts` adds up. `parts` are three numbers for each part of the time that
    has spans: which it is, spans, errors.
    """

    count: int = 0
    error_count: int = 0
    own_tokens: int | None = None
    foreign_tokens: dict[str, int] = field(default_factory=dict)
    first_start_ns: int = 2**63 - 1
    last_end_ns: int = 0
    histograms: tuple[list[bytes], ...] = field(default_factory=lambda: ([], [], [], []))
    parts: array[int] = field(default_factory=lambda: array("q"))

    def add(self, other: ModelSums) -> None:
        """Add what other spans add up to, but for their parts."""
        self.count += other.count
        self.error_count += other.error_count
        if other.own_tokens is not None:
            self.own_tokens = (self.own_tokens or 0) + other.own_tokens
        for service, tokens in other.foreign_tokens.items():
            self.foreign_tokens[service] = self.foreign_tokens.get(service, 0) + tokens
        self.first_start_ns = min(self.first_start_ns, other.first_start_ns)
        self.last_end_ns = max(self.last_end_ns, other.last_end_ns)
        for messages, more in zip(self.histograms, other.histograms, strict=True):
            messages += more

    def add_part(self, part: int, count: int, error_count: int) -> None:
        """Add spans to a part; those of one part come together."""
        if self.parts and self.parts[-3] == part:
            self.parts[-2] += count
            self.parts[-1] += error_count
        else:
            self.parts.extend((part, count, error_count))

    def told_parts(self) -> Iterator[tuple[int, int, int]]:
        """Each part, its spans and its errors; a part may be told more than once."""
        return zip(self.parts[::3], self.parts[1::3], self.parts[2::3], strict=True)

    def compact(self) -> None:
        """Have one message for each distribution in place of many."""
        for messages in self.histograms:
            if len(messages) > 1:
                messages[:] = histogram(bucket_counts(messages))


def histogram(counts: Mapping[int, int]) -> list[bytes]:
    """Counts by bucket, as few messages.

    A message of token intervals has no bucket for zero, so each bucket has the place of the next
    one; only values of more than 500 years share the last.
    """
    places = [0] * MAX_BUCKETS
    for bucket, count in counts.items():
        places[min(bucket - ZERO_BUCKET, MAX_BUCKETS - 1)] += count
    messages = []
    while any(places):
        first = next(place for place, count in enumerate(places) if count)
        last = max(place for place, count in enumerate(places) if count)
        told = [min(count, MAX_COUNT) for count in places[first : last + 1]]
        messages.append(encode(first + LOWEST_BUCKET, told))
        for place, count in enumerate(told, first):
            places[place] -= count
    return messages


def bucket_counts(messages: list[bytes]) -> dict[int, int]:
    """The counts by bucket that these messages of `histogram` add up to."""
    sums = selected.interval_sums(messages)
    return {bucket: count for bucket, count in enumerate(sums, ZERO_BUCKET) if count}


def model_sums(
    grouped: Grouped, where: SpanFilter, parts: TimeKey, slots: TimeKey | None = None
) -> dict[int, dict[str, ModelSums]]:
    """The sums of each model by slot of the time, from the spans themselves.

    Without `slots` there is one slot, 0. A part lies in one slot; the filter has to have a time.
    Raises TooManyGroupsError where MAX_MODELS or MAX_GROUPS do not do.
    """
    assert where.since_ns is not None
    assert where.until_ns is not None
    slots = slots or TimeKey(where.since_ns, max(1, where.until_ns - where.since_ns))
    found: dict[int, dict[str, ModelSums]] = {}

    def ask(keys: Sequence[Key], aggregates: Sequence[Aggregate]) -> Iterable[Any]:
        query = GroupedQuery(where, [[slots, _MODEL, *keys]], aggregates, max_groups=MAX_GROUPS)
        (rows,) = grouped(query)
        return (row for row in rows if row[1] is not None)

    present: Counter[str] = Counter()
    has_foreign = False
    for row in sorted(ask([parts], [*_TOLD, *_PRESENT.values()]), key=lambda row: row[:3]):
        slot, model, part, count, errors, tokens, foreign, first_ns, last_ns, *counts = row
        has_foreign = has_foreign or foreign is not None
        present.update(dict(zip(_PRESENT, counts, strict=True)))
        told = found.setdefault(slot, {}).setdefault(model, ModelSums())
        told.add(ModelSums(count, errors, tokens, {}, first_ns, last_ns))
        told.add_part(part, count, errors)
    if sum(map(len, found.values())) > MAX_MODELS:
        raise TooManyGroupsError(f"more than {MAX_MODELS:,} models")
    # Each distribution is one more pass over the spans.
    said = [name for name, columns in _COLUMNS.items() if any(present[it] for it in columns)]
    measured = [name for name in DISTRIBUTED if name in said]
    groupings: list[list[Key]] = [[slots, _MODEL, BucketKey(name)] for name in measured]
    told_lists = grouped(GroupedQuery(where, groupings)) if measured else []
    for name, rows in zip(measured, told_lists, strict=True):
        buckets: dict[tuple[int, str], dict[int, int]] = {}
        for slot, model, bucket, count in rows:
            if model is not None and bucket is not None:
                buckets.setdefault((slot, model), {})[bucket] = count
        for (slot, model), bucket_sizes in buckets.items():
            kept = _of(found, slot, model).histograms[DISTRIBUTIONS.index(name)]
            kept[:] = histogram(bucket_sizes)
    if INTERVALS in said:
        for slot, model, _, messages in ask([], [Aggregate("intervals")]):
            if messages:
                sums = dict(enumerate(selected.interval_sums(messages), LOWEST_BUCKET))
                _of(found, slot, model).histograms[-1][:] = histogram(sums)
    if has_foreign:
        service = ColumnKey("service_name")
        for slot, model, name, _, foreign in ask([service], [Aggregate("foreign_tokens")]):
            if foreign is not None:
                _of(found, slot, model).foreign_tokens[name] = foreign
    return found


def _of(found: Mapping[int, dict[str, ModelSums]], slot: int, model: str) -> ModelSums:
    """The sums to add to; those of spans that came since the first question are left out."""
    return found.get(slot, {}).get(model) or ModelSums()
