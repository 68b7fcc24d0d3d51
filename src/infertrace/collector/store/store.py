"""What every store does, and what it takes and gives."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from infertrace.collector.background_thread import BackgroundThread
from infertrace.collector.store.columns import COLUMNS
from infertrace.collector.store.keyed_filter import KeyedText, are_in
from infertrace.collector.store.ledger import Producer, ProducerReport
from infertrace.collector.store.metrics import Metric
from infertrace.collector.store.resource import Resource
from infertrace.collector.store.selection import Selection

if TYPE_CHECKING:
    from infertrace.collector.store.retention import Retention


DEFAULT_QUERY_TIMEOUT_S = 30.0

_PLACES = {column.name: place for place, column in enumerate(COLUMNS)}


class StoreError(Exception):
    """The store could not do what was asked; the text says why."""


class StoreBusyError(StoreError):
    """More waits than the store can hold; it works, and a later time may do."""


class QueryTimeoutError(StoreError):
    """A query took longer than a query may, and was interrupted."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(f"took longer than {timeout_s:g} s")


@dataclass(frozen=True)
class Batch:
    """The valid spans of one request, what it says of their origin, and what was left out.

    `rejected_positions` are the places, from 0, that rejected spans had among the
    `span_count` spans of the request.
    """

    rows: pa.RecordBatch
    span_count: int
    rejected_positions: Sequence[int] = ()
    producer: ProducerReport | None = None
    resource: Resource | None = None


def distinct_resources(
    batches: Sequence[Batch], known: Collection[uuid.UUID]
) -> dict[uuid.UUID, Resource]:
    """The resources of these batches, by their ids, without those that are known."""
    resources = [batch.resource for batch in batches if batch.resource is not None]
    return {resource.id: resource for resource in resources if resource.id not in known}


def merged_rows(rows: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Batches as one; there is at least one of them."""
    table = pa.Table.from_batches(rows).combine_chunks()
    return table.to_batches()[0] if len(table) else rows[0]


@dataclass(frozen=True)
class SpanKey:
    """Where a span stands in the order of answers, which is by these fields, greatest first."""

    start_time: int
    trace_id: uuid.UUID
    span_id: int


@dataclass(frozen=True)
class SpanFilter:
    """Which spans to answer with; None asks for no condition.

    Times are nanoseconds since 1970, durations nanoseconds. `since` is included, `until` not.
    `after` is the last span of the page before. Of `tags`, `attributes` and `resource`, the
    attributes of what recorded the span, each has to hold.
    """

    model: str | None = None
    service: str | None = None
    operation: str | None = None
    status: str | None = None
    trace_id: uuid.UUID | None = None
    since: int | None = None
    until: int | None = None
    min_duration: int | None = None
    after: SpanKey | None = None
    tags: Sequence[KeyedText] = ()
    attributes: Sequence[KeyedText] = ()
    resource: Sequence[KeyedText] = ()

    def pieces(self) -> list[tuple[str, list[str]]]:
        """For each condition on a JSON column, its name and texts of which the column has one."""
        columns = (("tags", self.tags), ("attributes", self.attributes))
        return [(name, condition.pieces()) for name, given in columns for condition in given]


def exact_spans(
    where: SpanFilter, limit: int, ask: Callable[[SpanFilter, int], list[tuple[Any, ...]]]
) -> list[tuple[Any, ...]]:
    """What `ask` finds, without the rows of which the pieces hold, and not the conditions."""
    if not where.tags and not where.attributes:
        return ask(where, limit)
    found: list[tuple[Any, ...]] = []
    while True:
        wanted = limit - len(found)
        rows = ask(where, wanted)
        found += [
            row
            for row in rows
            if are_in(where.tags, row[_PLACES["tags"]])
            and are_in(where.attributes, row[_PLACES["attributes"]])
        ]
        if len(rows) < wanted or len(found) == limit:
            return found
        where = replace(where, after=span_key(rows[-1]))


def span_key(row: Sequence[Any]) -> SpanKey:
    """Where a row stands in the order of answers."""
    return SpanKey(*(row[_PLACES[name]] for name in ("start_time", "trace_id", "span_id")))


@dataclass(frozen=True)
class ModelStatistics:
    """What the selected spans of one model say.

    Percentiles are interpolated: those of the duration in nanoseconds, those of the time to first
    token and of the wait in the queue in milliseconds, 50th, 95th and 99th, of the spans that say
    it; None where none does. `first_start` and `last_end` are nanoseconds
    since 1970; these four are None when there is no sample. `output_tokens` is None when no span
    says how many it made.
    """

    model_name: str
    sample_count: int
    error_count: int
    p50: float | None
    p95: float | None
    p99: float | None
    output_tokens: int | None
    first_start: int | None
    last_end: int | None
    time_to_first_token_ms: Sequence[float] | None = None
    queue_wait_time_ms: Sequence[float] | None = None


@dataclass(frozen=True)
class SeriesPoint:
    """One step: when it began, in nanoseconds since 1970, its samples, and the value, if any."""

    start: int
    sample_count: int
    value: float | None


class Store(Protocol):
    """Keeps one row for each (trace id, span id), the first that came, and one for each producer.

    `commit`, `checkpoint` and `close` are called by one thread at a time; the other methods by any
    number of threads meanwhile. All raise `StoreError`. Rows are tuples in the order of `COLUMNS`.
    """

    @property
    def threads(self) -> Sequence[BackgroundThread]:
        """The threads that work behind the answers."""

    def commit(self, batches: Sequence[Batch]) -> int:
        """Make the batches durable, all or none; returns how many spans were duplicates.

        Raises StoreBusyError when too much waits already.
        """

    def spans(self, where: SpanFilter, limit: int) -> list[tuple[Any, ...]]:
        """At most `limit` spans, newest first."""

    def trace(self, trace_id: uuid.UUID, limit: int) -> list[tuple[Any, ...]]:
        """At most `limit` spans of one trace, in start order."""

    def models(self, selection: Selection, limit: int) -> list[ModelStatistics]:
        """The models, or the one, with selected spans, busiest first."""

    def series(self, selection: Selection, metric: Metric, step: int) -> list[SeriesPoint]:
        """A metric for each step with selected spans, in order.

        Steps of so many nanoseconds begin at multiples of `step`.
        """

    def rows(self, since: int, until: int) -> Iterator[pa.RecordBatch]:
        """All spans of a time, in no order, in batches with the columns of `COLUMNS`."""

    def resources(self, ids: Collection[uuid.UUID]) -> Mapping[uuid.UUID, str]:
        """The attributes of these resources, each as the text of a JSON object."""

    def producers(self, limit: int) -> list[Producer]:
        """The accounts of the producers, the last seen first."""

    def retain(self, retention: Retention) -> int:
        """Delete the oldest spans beyond an age or a size; returns how many."""

    def check(self) -> None:
        """Raise StoreError when the store could not keep what it takes, or cannot be asked."""

    def checkpoint(self) -> None:
        """Fold the write-ahead log into the database."""

    def close(self) -> None:
        """Let go of the database; nothing can be asked of the store afterwards."""
