"""What a database has to offer so that a `JournaledStore` can stand before it."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import pyarrow as pa

from infertrace.collector.background_thread import BackgroundThread
from infertrace.collector.store.engine_filter import EngineFilter, StepColumn
from infertrace.collector.store.grouping import GroupedQuery
from infertrace.collector.store.journaled.journal import Entry
from infertrace.collector.store.keyed_filter import KeyedText
from infertrace.collector.store.ledger import Producer
from infertrace.collector.store.metrics import Metric
from infertrace.collector.store.selection import Selection
from infertrace.collector.store.span_filter import Row, SpanFilter
from infertrace.collector.store.store import ModelStatistics, Retention, SeriesPoint


class Snapshot(Protocol):
    """Queries of one reader. Where it is pinned, all of them see the same moment.

    `unapplied` are rows that statistics have to include beside those of the database.
    """

    def applied_number(self) -> int:
        """The number of the last journal entry that the snapshot holds."""

    def spans(
        self, where: SpanFilter, limit: int, resource_ids: Collection[uuid.UUID] | None
    ) -> list[Row]:
        """At most `limit` spans, newest first; `resource_ids` are those to choose from.

        Of conditions on keys, a row has to hold one of their pieces.
        """

    def trace(self, trace_id: uuid.UUID, limit: int) -> list[Row]:
        """At most `limit` spans of one trace, in start order."""

    def models(
        self, selection: Selection, limit: int, unapplied: Sequence[pa.RecordBatch]
    ) -> list[ModelStatistics]:
        """Statistics of each model with selected spans, busiest first, at most `limit`."""

    def series(
        self,
        selection: Selection,
        metric: Metric,
        step_ns: int,
        unapplied: Sequence[pa.RecordBatch],
    ) -> list[SeriesPoint]:
        """A metric for each step with selected spans, in order."""

    def engine_rows(
        self,
        where: EngineFilter,
        columns: Sequence[str],
        limit: int,
        is_sample: bool,
        unapplied: Sequence[pa.RecordBatch],
    ) -> list[Row]:
        """These columns of steps or requests, in start order; of a sample, in no order."""

    def step_columns(
        self, where: EngineFilter, length_ns: int, unapplied: Sequence[pa.RecordBatch]
    ) -> list[StepColumn]:
        """The steps summed up in parts of the time, each so long."""

    def grouped(
        self,
        query: GroupedQuery,
        resource_ids: Collection[uuid.UUID] | None,
        unapplied: Sequence[pa.RecordBatch],
    ) -> list[list[tuple[Any, ...]]]:
        """The groups of each list of keys: the keys, the count, the aggregates."""

    def foreign_tokens(
        self,
        where: SpanFilter,
        resource_ids: Collection[uuid.UUID] | None,
        unapplied: Sequence[pa.RecordBatch],
    ) -> dict[str, int]:
        """The output tokens of spans that came as OTLP, each call once, by the model."""

    def ranked(
        self,
        where: SpanFilter,
        measure: str,
        limit: int,
        resource_ids: Collection[uuid.UUID] | None,
        unapplied: Sequence[pa.RecordBatch],
    ) -> list[Row]:
        """At most `limit` spans with the largest values of a measure; those without it last."""

    def rows(self, since_ns: int, until_ns: int) -> Iterator[pa.RecordBatch]:
        """The spans that start in a time, in batches with the columns of `COLUMNS`."""

    def sql(self, query: str, limit: int) -> pa.Table:
        """The first `limit` rows of one SELECT, which can only read; raises SqlError."""

    def resources(self, ids: Collection[uuid.UUID]) -> Mapping[uuid.UUID, str]:
        """The attributes of these resources, each as the text of a JSON object."""

    def resources_with(self, conditions: Sequence[KeyedText]) -> Mapping[uuid.UUID, str]:
        """The resources whose attributes hold a piece of each condition."""


class SpanDatabase(Protocol):
    """A database of spans, accounts and resources that journal entries are applied to.

    Only the thread that applies calls `apply` and `recover`, and nobody calls `apply` during
    `checkpoint`; the other methods may be called by any thread. All raise StoreError.
    """

    @property
    def threads(self) -> Sequence[BackgroundThread]:
        """The database's own threads."""

    def apply(self, entries: Sequence[Entry], forget_before_ns: int) -> None:
        """Write entries, and the number of the last one, in one transaction: all or none.

        The accounts of producers last seen before `forget_before_ns`, nanoseconds since 1970, are
        deleted.
        """

    def recover(self) -> int:
        """After a write that failed: the number of the last entry that the database holds.

        It may have committed what it failed to confirm.
        """

    def applied_number(self) -> int:
        """The number of the last entry that the database holds."""

    def repeated(self, ids: pa.Table, first_start_ns: int, last_start_ns: int) -> set[int]:
        """The positions of ids that are stored, or that come earlier among the given ones.

        `ids` has the columns `trace_id`, `span_id` and `position`. Stored spans count that start
        from `first_start_ns` to `last_start_ns`, both included, nanoseconds since 1970.
        """

    def newest_ids(self, count: int) -> Iterator[pa.RecordBatch]:
        """`trace_id`, `span_id`, `start_time` of the last `count` spans that were written."""

    def latest_start_before_newest(self, count: int) -> int:
        """The latest start of the spans before those, nanoseconds since 1970; 0: there is none."""

    def producers(self, limit: int) -> list[Producer]:
        """The stored accounts, the last seen first, at most `limit`."""

    def snapshot(
        self, *, is_pinned: bool, is_timed: bool = True
    ) -> AbstractContextManager[Snapshot]:
        """Queries for the duration of a `with` block.

        Where it is timed, the database interrupts it after the query timeout, which raises
        QueryTimeoutError.
        """

    def retain(self, retention: Retention) -> tuple[int, int]:
        """Delete the oldest spans beyond an age or a size.

        Returns how many, and before which time they started, nanoseconds since 1970; 0: none did.
        """

    def checkpoint(self) -> None:
        """Fold the database's own write-ahead log into it."""

    def close(self) -> None:
        """Release the database."""
