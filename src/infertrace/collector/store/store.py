"""What every store does, by the roles in which it is used, and what it takes and returns."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import pyarrow as pa

from infertrace.collector.background_thread import BackgroundThread
from infertrace.collector.store.engine_filter import EngineFilter, StepColumn
from infertrace.collector.store.grouping import GroupedQuery, TimeKey
from infertrace.collector.store.ledger import Producer, ProducerReport, SenderReport
from infertrace.collector.store.metrics import Metric
from infertrace.collector.store.model_sums import ModelSums
from infertrace.collector.store.resource import Resource
from infertrace.collector.store.selection import Selection
from infertrace.collector.store.span_filter import Row, SpanFilter
from infertrace.collector.store.value_counts import ValueCounts

DEFAULT_QUERY_TIMEOUT_S = 30.0


class StoreError(Exception):
    """The store could not do what was asked; the text says why."""


class StoreBusyError(StoreError):
    """The store works, but too much waits to be written; a retry may succeed."""


class SqlError(ValueError):
    """A statement that somebody asked cannot be answered; the text says why."""


class QueryTimeoutError(StoreError):
    """The store interrupted a query that took longer than a query may."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(f"took longer than {timeout_s:g} s")


@dataclass(frozen=True)
class Batch:
    """The valid spans of one request, what it says of their origin, and what was left out.

    `rejected_positions` are the indices, from 0, that rejected spans had among the
    `span_count` spans of the request. A request of our own has one producer, or none; one of OTLP
    has a sender for each process that recorded its spans, whose id the rows hold as `producer_id`.
    """

    rows: pa.RecordBatch
    span_count: int
    rejected_positions: Sequence[int] = ()
    producer: ProducerReport | None = None
    senders: Sequence[SenderReport] = ()
    resources: Sequence[Resource] = ()


@dataclass(frozen=True)
class Retention:
    """How long a store keeps spans after their start, and in how many bytes; None is no limit."""

    max_age_ns: int | None = None
    max_bytes: int | None = None


@dataclass(frozen=True)
class ModelStatistics:
    """Statistics of the selected spans of one model.

    Percentiles are interpolated. The three of time to first token, of the wait in the queue and of
    the time between tokens are the 50th, 95th and 99th, of the spans that have a value; None where
    none has.
    `first_start_ns` and `last_end_ns` are since 1970; they and the percentiles of the duration are
    None when there is no sample. `output_tokens` is None when no span has a value.
    """

    model_name: str
    sample_count: int
    error_count: int
    p50_ns: float | None
    p95_ns: float | None
    p99_ns: float | None
    output_tokens: int | None
    first_start_ns: int | None
    last_end_ns: int | None
    time_to_first_token_ms: Sequence[float] | None = None
    queue_wait_time_ms: Sequence[float] | None = None
    inter_token_latency_ms: Sequence[float] | None = None


def with_foreign_tokens(
    models: Sequence[ModelStatistics], tokens: Mapping[str, int]
) -> list[ModelStatistics]:
    """The statistics with these tokens added, by the name of the model."""
    return [
        replace(model, output_tokens=(model.output_tokens or 0) + tokens[model.model_name])
        if model.model_name in tokens
        else model
        for model in models
    ]


@dataclass(frozen=True)
class SeriesPoint:
    """One step: when it began, in nanoseconds since 1970, its samples, and the value, if any."""

    start_ns: int
    sample_count: int
    value: float | None


@dataclass(frozen=True)
class Arrival:
    """The last spans that came after a place, in the order in which they were stored.

    `matching_count` says how many came that the filter lets pass, `forgotten_count` how many came
    that are not remembered, whatever they are. `next_place` is where the next ones will be.
    """

    rows: Sequence[Row]
    matching_count: int
    forgotten_count: int
    next_place: int


class SpanWriter(Protocol):
    """Keeps the first span of each (trace id, span id), and an account of each producer."""

    def commit(self, batches: Sequence[Batch]) -> int:
        """Make the batches durable, all or none; returns how many spans were duplicates.

        One thread at a time may call it. Raises StoreBusyError when too much waits to be written,
        StoreError for any other failure.
        """


class SpanReader(Protocol):
    """Answers queries, from any number of threads. All methods raise StoreError."""

    def spans(self, where: SpanFilter, limit: int) -> list[Row]:
        """At most `limit` spans, newest first."""

    def trace(self, trace_id: uuid.UUID, limit: int) -> list[Row]:
        """At most `limit` spans of one trace, in start order."""

    def models(self, selection: Selection, limit: int) -> list[ModelStatistics]:
        """Statistics of each model with selected spans, busiest first, at most `limit`."""

    def series(self, selection: Selection, metric: Metric, step_ns: int) -> list[SeriesPoint]:
        """A metric for each step with selected spans, in order.

        Steps are `step_ns` nanoseconds long and begin at multiples of that.
        """

    def engine_rows(
        self, where: EngineFilter, columns: Sequence[str], limit: int, *, is_sample: bool = False
    ) -> list[Row]:
        """These columns of at most `limit` steps or requests, in start order.

        Where it is a sample, they are chosen evenly of all, and are in no order.
        """

    def step_columns(self, where: EngineFilter, length_ns: int) -> list[StepColumn]:
        """The steps summed up in parts of the time, each so long; those without steps left out."""

    def grouped(self, query: GroupedQuery) -> list[list[tuple[Any, ...]]]:
        """The groups of each list of keys, in no order: the keys, the count, the aggregates."""

    def model_sums(self, where: SpanFilter, parts: TimeKey) -> Mapping[str, ModelSums]:
        """The sums of the spans of each model, with counts by these parts of the filter's time."""

    def value_counts(self, where: SpanFilter) -> tuple[tuple[int, int], ValueCounts] | None:
        """A time, nearly that of the filter, and what its spans say, where both are in memory."""

    def foreign_tokens(self, where: SpanFilter) -> Mapping[str, int]:
        """The output tokens of spans that came as OTLP, each call once, by the model."""

    def ranked(self, where: SpanFilter, measure: str, limit: int) -> list[Row]:
        """At most `limit` spans with the largest values of a measure, a name of `MEASURES`.

        Those without a value come last; of equal ones, the newest first.
        """

    def listen(self, listener: Callable[[Sequence[pa.RecordBatch]], None]) -> None:
        """Have it called with the rows that this process stores from now on, once they are."""

    def arrived(self, after: int | None, where: SpanFilter, limit: int) -> Arrival:
        """What this process stored after a place, in the order in which it did."""

    def sql(self, query: str, limit: int) -> pa.Table:
        """The first `limit` rows of one SELECT, which can only read; raises SqlError too."""

    def resources(self, ids: Collection[uuid.UUID]) -> Mapping[uuid.UUID, str]:
        """The attributes of these resources, each as the text of a JSON object."""

    def producers(self, limit: int) -> list[Producer]:
        """The accounts of the producers, the last seen first, at most `limit`."""

    def check(self) -> None:
        """Raise StoreError when the store cannot keep what it takes, or cannot answer."""


class SpanSource(Protocol):
    """Hands out all spans, for an export."""

    def rows(self, since_ns: int, until_ns: int) -> Iterator[pa.RecordBatch]:
        """The spans that start in a time, in no order, in batches with the columns of `COLUMNS`.

        `since_ns` is included, `until_ns` is not. Raises StoreError.
        """

    def resources(self, ids: Collection[uuid.UUID]) -> Mapping[uuid.UUID, str]:
        """The attributes of these resources, each as the text of a JSON object."""


class Maintenance(Protocol):
    """Keeps a store in bounds and in order. All methods raise StoreError."""

    @property
    def threads(self) -> Sequence[BackgroundThread]:
        """The store's own threads."""

    def retain(self, retention: Retention) -> int:
        """Delete the oldest spans beyond an age or a size; returns how many. For any thread."""

    def checkpoint(self) -> None:
        """Fold the write-ahead log into the database. Not while another thread commits."""

    def close(self) -> None:
        """Release the database; the store answers nothing afterwards."""


class Store(SpanWriter, SpanReader, SpanSource, Maintenance, Protocol):
    """A store in all its roles, as `registry.open_store` opens it."""
