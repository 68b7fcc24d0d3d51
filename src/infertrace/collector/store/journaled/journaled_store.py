"""A store that makes a batch durable in a journal, and moves it into a database behind that.

A batch is durable as soon as the journal has it. `Applier` moves it into the database later; until
then its rows are answered from memory (`overlay.py`): a query takes the entries that its snapshot
of the database does not hold. docs/collector.md has the measurements behind this.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from infertrace.collector.background_thread import BackgroundThread
from infertrace.collector.store import duplicates, ledger
from infertrace.collector.store.accounts import RecentAccounts, updated_accounts
from infertrace.collector.store.arrivals import Arrivals, arrival
from infertrace.collector.store.duplicates import look_back, may_repeat, positions_by_batch
from infertrace.collector.store.engine_filter import EngineFilter, StepColumn
from infertrace.collector.store.grouping import GroupedQuery, TimeKey
from infertrace.collector.store.id_filters import add_rows, id_pairs, new_duplicate_filter
from infertrace.collector.store.journaled import applier
from infertrace.collector.store.journaled.applier import Applier
from infertrace.collector.store.journaled.journal import Entry, Journal
from infertrace.collector.store.journaled.overlay import (
    matching_rows,
    newest_first,
    started_between,
    trace_order,
)
from infertrace.collector.store.journaled.span_database import Snapshot, SpanDatabase
from infertrace.collector.store.keyed_filter import KeyedText, are_in
from infertrace.collector.store.ledger import Producer
from infertrace.collector.store.metrics import Metric
from infertrace.collector.store.model_sums import ModelSums
from infertrace.collector.store.producer_rows import PRODUCER_COLUMNS, producer_row
from infertrace.collector.store.resource import KnownResources
from infertrace.collector.store.rollup import Rollup
from infertrace.collector.store.selection import Selection
from infertrace.collector.store.span_filter import Row, SpanFilter, filtered_spans
from infertrace.collector.store.span_rows import merged_rows, without
from infertrace.collector.store.store import (
    Arrival,
    Batch,
    ModelStatistics,
    Retention,
    SeriesPoint,
    StoreError,
)
from infertrace.collector.store.timestamps import MAX_UNIX_NANOS
from infertrace.collector.store.value_counts import ValueCounts

# Batches that each have this many rows are not merged: the copy would cost more than it saves.
SEPARATE_ROWS = 2_048


class JournaledStore:
    """A store on `database`. Without a journal, a batch goes straight into the database.

    The store closes both; where its constructor raises (StoreError, OSError), the caller does.
    """

    def __init__(self, database: SpanDatabase, journal: Journal | None) -> None:
        self._database = database
        self._journal = journal
        self._seen = new_duplicate_filter(duplicates.REMEMBERED_SPANS)
        self._accounts = RecentAccounts()
        self._resources = KnownResources()
        self._arrivals = Arrivals()
        applied = database.applied_number()
        self._number = applied  # of the last entry
        if journal is not None:
            self._replay(journal, applied)
        self._accounts.replace(database.producers(ledger.MAX_PRODUCERS))
        self._seen.forget(database.latest_start_before_newest(duplicates.REMEMBERED_SPANS))
        for rows in database.newest_ids(duplicates.REMEMBERED_SPANS):
            add_rows(self._seen, rows)
        self._applier = Applier(database, self._accounts, self._number)
        self._rollup = Rollup(self.grouped)
        if journal is not None:
            self._applier.thread.start()
        self._rollup.start()

    @property
    def threads(self) -> Sequence[BackgroundThread]:
        return self._applier.thread, self._rollup.thread, *self._database.threads

    def _replay(self, journal: Journal, applied: int) -> None:
        """Move into the database what only the journal has."""
        entries: list[Entry] = []
        for entry in journal.read():
            self._number = max(self._number, entry.number)
            if entry.number > applied:
                entries.append(entry)
            if sum(entry.row_count for entry in entries) >= applier.APPLY_ROWS:
                self._apply(self._merged(entries))
                entries = []
        if entries:
            self._apply(self._merged(entries))
        journal.clear()

    def _merged(self, entries: Sequence[Entry]) -> Entry:
        """Entries as one, without rows that are stored already.

        Normally none is; a write that reported failure may have succeeded and been retried.
        """
        group = merged_rows([rows for entry in entries for rows in entry.batches])
        known: set[int] = set()
        if len(group):
            known = self._repeated(group, range(len(group)), (0, MAX_UNIX_NANOS))
        accounts = [account for entry in entries for account in entry.accounts]
        resources = {name: text for entry in entries for name, text in entry.resources.items()}
        return Entry(entries[-1].number, [without(group, known)], accounts, resources)

    def _apply(self, entry: Entry) -> None:
        self._database.apply([entry], self._accounts.forgotten_before_ns)

    def commit(self, batches: Sequence[Batch]) -> int:
        self._applier.wait_for_room()
        kept, repeated = self._new_rows(batches)
        changed = updated_accounts(batches, repeated, self._accounts.by_id)
        accounts = [
            dict(zip(PRODUCER_COLUMNS, producer_row(producer, producer_id=name.hex()), strict=True))
            for name, producer in changed.items()
        ]
        resources = self._resources.missing(each for batch in batches for each in batch.resources)
        attributes = {key.hex: resource.attributes for key, resource in resources.items()}
        entry = Entry(self._number + 1, kept, accounts, attributes)
        try:
            self._make_durable(entry)
        finally:  # what reports failure may have succeeded
            self._rollup.touch(kept)
        self._accounts.update(changed)
        self._resources.add(resources)
        self._arrivals.add(kept)
        return sum(map(len, repeated))

    def _make_durable(self, entry: Entry) -> None:
        if self._journal is None:
            self._apply(entry)
            self._number = entry.number
        else:
            self._journal.append(entry)
            self._number = entry.number
            self._journal.truncate_through(self._applier.add(entry))

    def _new_rows(
        self, batches: Sequence[Batch]
    ) -> tuple[Sequence[pa.RecordBatch], list[list[int]]]:
        """The rows that are not stored yet, and where each batch has others."""
        rows = [batch.rows for batch in batches]
        kept = rows if min(map(len, rows)) >= SEPARATE_ROWS else [merged_rows(rows)]
        seen = self._seen_before(kept)
        old = self._old(batches, rows)
        known: set[int] = set()
        if seen or old:
            group = merged_rows(kept)
            if seen:
                known = self._stored(group, seen)
            if old:
                known |= self._repeated(group, old)
            kept = [without(group, known)]
        return kept, positions_by_batch(rows, known)

    def _seen_before(self, batches: Sequence[pa.RecordBatch]) -> list[int]:
        """Where rows lie, among all of these, that may be stored; remembers all of them."""
        seen: list[int] = []
        first = 0
        for rows in batches:
            seen += [first + place for place in add_rows(self._seen, rows)]
            first += len(rows)
        return seen

    def _old(self, batches: Sequence[Batch], rows: Sequence[pa.RecordBatch]) -> list[int]:
        """Where rows lie, among all, that nothing proves new, and that may be forgotten."""
        if not self._seen.forgotten_until_ns:
            return []
        suspects = may_repeat(batches, self._accounts.by_id)
        starts = pa.concat_arrays([each.column("start_time") for each in rows])
        is_old = pc.less_equal(starts, self._seen.forgotten_until_ns)
        old = set(pc.indices_nonzero(is_old).to_pylist())
        return [place for place in _positions(rows, suspects) if place in old] if old else []

    def _stored(self, group: pa.RecordBatch, seen: Sequence[int]) -> set[int]:
        """Those of the rows that are stored, or come earlier among them; `seen` may be."""
        ids = group.select(["trace_id", "span_id", "start_time"]).take(pa.array(seen, pa.int64()))
        # The rows that wait come first: those that are applied in between are then in both.
        waiting = self._waiting(ids)
        known = {place for place, pair in zip(seen, id_pairs(ids), strict=True) if pair in waiting}
        # A span that is sent again starts when it started, so this finds nearly all.
        bounds = pc.min_max(ids.column("start_time")).as_py()
        known |= self._repeated(group, range(len(group)), (bounds["min"], bounds["max"]))
        if left := [place for place in seen if place not in known]:
            known |= self._repeated(group, left, (0, MAX_UNIX_NANOS))
        return known

    def _waiting(self, ids: pa.RecordBatch) -> set[tuple[bytes, int]]:
        """The ids of the rows with one of these span ids that the database may not have yet."""
        found: set[tuple[bytes, int]] = set()
        for rows in _rows_of(self._applier.unapplied()):
            alike = pc.is_in(rows.column("span_id"), ids.column("span_id"))
            if alike.true_count:
                found.update(id_pairs(rows.select(["trace_id", "span_id"]).filter(alike)))
        return found

    def _repeated(
        self,
        group: pa.RecordBatch,
        positions: Iterable[int],
        start_bounds_ns: tuple[int, int] | None = None,
    ) -> set[int]:
        """Those of the positions that repeat a stored span, or an earlier one of them.

        Without bounds, stored spans count that start within `LOOK_BACK_NS` of the given ones.
        """
        indices = pa.array(positions, type=pa.int64())
        ids = pa.Table.from_batches([group.select(["trace_id", "span_id", "start_time"])])
        ids = ids.take(indices).append_column("position", indices)
        first_ns, last_ns = start_bounds_ns or look_back(ids.column("start_time"))
        return self._database.repeated(ids, first_ns, last_ns)

    def spans(self, where: SpanFilter, limit: int) -> list[Row]:
        return filtered_spans(where, limit, self._spans, self._matching_resources)

    def _spans(
        self, where: SpanFilter, limit: int, resource_ids: Collection[uuid.UUID] | None
    ) -> list[Row]:
        with self._query() as (snapshot, unapplied):
            stored = snapshot.spans(where, limit, resource_ids)
        waiting = matching_rows(unapplied, where, limit, resource_ids)
        return newest_first(stored, waiting, limit)

    def trace(self, trace_id: uuid.UUID, limit: int) -> list[Row]:
        with self._query() as (snapshot, unapplied):
            stored = snapshot.trace(trace_id, limit)
        return trace_order(stored, matching_rows(unapplied, SpanFilter(trace_id=trace_id)), limit)

    def models(self, selection: Selection, limit: int) -> list[ModelStatistics]:
        with self._query() as (snapshot, unapplied):
            return snapshot.models(selection, limit, unapplied)

    def series(self, selection: Selection, metric: Metric, step_ns: int) -> list[SeriesPoint]:
        with self._query() as (snapshot, unapplied):
            return snapshot.series(selection, metric, step_ns, unapplied)

    def engine_rows(
        self, where: EngineFilter, columns: Sequence[str], limit: int, *, is_sample: bool = False
    ) -> list[Row]:
        with self._query() as (snapshot, unapplied):
            return snapshot.engine_rows(where, columns, limit, is_sample, unapplied)

    def step_columns(self, where: EngineFilter, length_ns: int) -> list[StepColumn]:
        with self._query() as (snapshot, unapplied):
            return snapshot.step_columns(where, length_ns, unapplied)

    def grouped(self, query: GroupedQuery) -> list[list[tuple[Any, ...]]]:
        resource_ids = self._chosen_resources(query.where)
        with self._query() as (snapshot, unapplied):
            return snapshot.grouped(query, resource_ids, unapplied)

    def model_sums(self, where: SpanFilter, parts: TimeKey) -> Mapping[str, ModelSums]:
        return self._rollup.sums(where, parts)

    def value_counts(self, where: SpanFilter) -> tuple[tuple[int, int], ValueCounts] | None:
        return self._rollup.value_counts(where)

    def foreign_tokens(self, where: SpanFilter) -> dict[str, int]:
        resource_ids = self._chosen_resources(where)
        with self._query() as (snapshot, unapplied):
            return snapshot.foreign_tokens(where, resource_ids, unapplied)

    def ranked(self, where: SpanFilter, measure: str, limit: int) -> list[Row]:
        resource_ids = self._chosen_resources(where)
        with self._query() as (snapshot, unapplied):
            return snapshot.ranked(where, measure, limit, resource_ids, unapplied)

    def listen(self, listener: Callable[[Sequence[pa.RecordBatch]], None]) -> None:
        self._arrivals.listen(listener)

    def sql(self, query: str, limit: int) -> pa.Table:
        with self._database.snapshot(is_pinned=False) as snapshot:
            return snapshot.sql(query, limit)

    def arrived(self, after: int | None, where: SpanFilter, limit: int) -> Arrival:
        return arrival(self._arrivals.after(after), where, limit, self._chosen_resources(where))

    def rows(self, since_ns: int, until_ns: int) -> Iterator[pa.RecordBatch]:
        with self._query(is_timed=False) as (snapshot, unapplied):
            yield from snapshot.rows(since_ns, until_ns)
            for rows in unapplied:
                if len(inside := started_between(rows, since_ns, until_ns)):
                    yield inside

    @contextmanager
    def _query(self, *, is_timed: bool = True) -> Iterator[tuple[Snapshot, list[pa.RecordBatch]]]:
        """A snapshot of the database, and the rows that it does not hold yet."""
        # The rows come first: an entry that is applied in between is then in both, and the number
        # that the snapshot itself holds says so.
        unapplied = self._applier.unapplied()
        with self._database.snapshot(is_pinned=bool(unapplied), is_timed=is_timed) as snapshot:
            if unapplied:
                applied = snapshot.applied_number()
                unapplied = [entry for entry in unapplied if entry.number > applied]
            yield snapshot, _rows_of(unapplied)

    def _unapplied_resources(self) -> dict[uuid.UUID, str]:
        """Those that may not be in the database yet; to be read before it is."""
        return {
            uuid.UUID(name): attributes
            for entry in self._applier.unapplied()
            for name, attributes in entry.resources.items()
        }

    def _chosen_resources(self, where: SpanFilter) -> list[uuid.UUID] | None:
        return self._matching_resources(where.resource) if where.resource else None

    def _matching_resources(self, conditions: Sequence[KeyedText]) -> list[uuid.UUID]:
        found = self._unapplied_resources()
        with self._database.snapshot(is_pinned=False) as snapshot:
            found.update(snapshot.resources_with(conditions))
        return [key for key, attributes in found.items() if are_in(conditions, attributes)]

    def resources(self, ids: Collection[uuid.UUID]) -> dict[uuid.UUID, str]:
        found = self._unapplied_resources()
        with self._database.snapshot(is_pinned=False) as snapshot:
            found.update(snapshot.resources(ids))
        return {key: found[key] for key in ids if key in found}

    def producers(self, limit: int) -> list[Producer]:
        return self._accounts.newest(limit)

    def retain(self, retention: Retention) -> int:
        deleted, kept_from_ns = 0, MAX_UNIX_NANOS
        try:
            deleted, kept_from_ns = self._database.retain(retention)
        finally:  # what reports failure may have succeeded
            if kept_from_ns:
                self._rollup.forget_before(kept_from_ns)
        return deleted

    def check(self) -> None:
        if self._applier.failure is not None:
            raise StoreError(self._applier.failure)
        self._database.applied_number()

    def checkpoint(self) -> None:
        self._applier.drain()
        with self._rollup.pause():
            self._database.checkpoint()

    def close(self) -> None:
        self._rollup.stop()
        is_applied = self._applier.stop()
        if self._journal is not None:
            self._journal.close()
            if is_applied:
                self._journal.clear()
        self._database.close()


def _rows_of(entries: Iterable[Entry]) -> list[pa.RecordBatch]:
    return [rows for entry in entries for rows in entry.batches if len(rows)]


def _positions(batches: Sequence[pa.RecordBatch], wanted: set[int]) -> Iterator[int]:
    """Where the rows of the wanted batches lie among those of all."""
    first = 0
    for index, rows in enumerate(batches):
        if index in wanted:
            yield from range(first, first + len(rows))
        first += len(rows)
