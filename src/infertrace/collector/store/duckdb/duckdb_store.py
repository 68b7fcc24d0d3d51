"""Spans in DuckDB: one file with a journal before it, or memory.

With a file, a batch is durable as soon as the journal has it; a thread moves what is there into
the database in large transactions, which cost a fraction of small ones. Until then its rows are
answered from memory: a query takes the entries that its snapshot of the database does not have.
docs/collector.md has the measurements behind this.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import uuid
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from infertrace.collector.background_thread import BackgroundThread
from infertrace.collector.store import ledger
from infertrace.collector.store.columns import COLUMNS
from infertrace.collector.store.duckdb.block_index import BLOCK_ROWS, MAX_BLOCKS, BlockIndex
from infertrace.collector.store.id_filters import add_rows, new_duplicate_filter
from infertrace.collector.store.journaled.journal import Entry, Journal
from infertrace.collector.store.journaled.overlay import (
    matching_rows,
    newest_first,
    trace_order,
)
from infertrace.collector.store.keyed_filter import KeyedText, are_in
from infertrace.collector.store.ledger import Producer
from infertrace.collector.store.metrics import AGGREGATED_COLUMNS, Metric, aggregate_sql
from infertrace.collector.store.private_files import private_files
from infertrace.collector.store.producer_rows import (
    PRODUCER_COLUMNS,
    PRODUCER_NAMES,
    producer_row,
    producer_values,
)
from infertrace.collector.store.retention import KEPT_SHARE, Retention
from infertrace.collector.store.selection import Selection
from infertrace.collector.store.span_rows import SCHEMA
from infertrace.collector.store.store import (
    DEFAULT_QUERY_TIMEOUT_S,
    Batch,
    ModelStatistics,
    QueryTimeoutError,
    SeriesPoint,
    SpanFilter,
    StoreBusyError,
    StoreError,
    distinct_resources,
    exact_spans,
    merged_rows,
)
from infertrace.collector.time_limits import TimeLimits

SCHEMA_VERSION = 3
MEMORY_LIMIT = "2GB"  # DuckDB's default is 80 % of the machine, which the model server needs
CHECKPOINT_THRESHOLD = "256MB"  # of DuckDB's own log; nobody waits for a checkpoint
SEEN_SPANS = 1_000_000  # ids remembered, at least
MAX_KNOWN_RESOURCES = 10_000  # remembered as stored; those of others are looked for
MAX_LISTED_IDS = 1_000  # in a statement; a join of more is slower, and has no limit
LOOK_BACK_NS = 3_600_000_000_000  # by start time, for duplicates of what is older than that
APPLY_INTERVAL_S = 0.5  # how long rows may wait to share a transaction
# A transaction of more rows than a row group (122,880) is written to its place in the file at
# once, compressed, instead of to the log first.
APPLY_ROWS = 200_000
MAX_UNAPPLIED_BYTES = 128 * 1024 * 1024  # of rows in memory that wait for the database
ROOM_TIMEOUT_S = 5.0  # for a batch to wait until there are fewer
RETRY_DELAY_S = 0.5  # after a write that failed
NICER = 5  # the niceness of the thread that nobody waits for, above that of those that answer

_log = logging.getLogger(__name__)

_SQL_TYPES = {
    "uuid": "UUID",
    "span_id": "UBIGINT",
    "text": "VARCHAR",
    "time": "BIGINT",
    "duration": "BIGINT",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "float32": "FLOAT",
    "float64": "DOUBLE",
    "json": "VARCHAR",
}
_NAMES = ", ".join(column.name for column in COLUMNS)
# The number of the last entry of the journal that the tables hold.
_APPLIED = (
    "CREATE TABLE applied (number BIGINT NOT NULL)",
    "INSERT INTO applied (number) VALUES (0)",
)
_RESOURCES = "CREATE TABLE resources (resource_id UUID NOT NULL, attributes VARCHAR NOT NULL)"
_SCHEMA = (
    "CREATE TABLE schema_version (version INTEGER)",
    f"INSERT INTO schema_version (version) VALUES ({SCHEMA_VERSION})",
    *_APPLIED,
    _RESOURCES,
    "CREATE TABLE spans ("
    + ", ".join(
        f"{column.name} {_SQL_TYPES[column.kind]}{' NOT NULL' if column.required else ''}"
        for column in COLUMNS
    )
    + ")",
    """CREATE TABLE producers (
        producer_id BLOB NOT NULL, first_seen BIGINT NOT NULL, last_seen BIGINT NOT NULL,
        service_name VARCHAR NOT NULL, produced UHUGEINT NOT NULL, stored UHUGEINT NOT NULL,
        rejected UHUGEINT NOT NULL, duplicates UHUGEINT NOT NULL, dropped VARCHAR NOT NULL,
        received VARCHAR NOT NULL, finished BOOLEAN NOT NULL)""",
)
_MIGRATIONS = {  # from that version to the next one
    1: _APPLIED,
    2: (
        _RESOURCES,
        "ALTER TABLE spans ADD COLUMN flags BIGINT",
        "ALTER TABLE spans ADD COLUMN producer_id UUID",
        "ALTER TABLE spans ADD COLUMN resource_id UUID",
    ),
}
# A unique index would have to be kept in memory and written with every span. The span id alone
# narrows the scan: 64 bits are compared several times faster than the pair. The batch is copied
# first because DuckDB 1.4 cannot push a filter on a UUID down into Arrow data.
_DUPLICATES = """
    WITH batch AS MATERIALIZED (SELECT trace_id, span_id, position FROM incoming),
    candidates AS MATERIALIZED (
        SELECT trace_id, span_id FROM spans
        WHERE start_time BETWEEN ? AND ? AND span_id IN (SELECT span_id FROM batch))
    SELECT position FROM batch SEMI JOIN candidates USING (trace_id, span_id)
    UNION
    SELECT position FROM (
        SELECT position, min(position) OVER (PARTITION BY trace_id, span_id) AS earliest
        FROM batch)
    WHERE position > earliest"""
_INSERT_PRODUCER = (
    f"INSERT INTO producers ({PRODUCER_NAMES}) VALUES ({', '.join('?' * len(PRODUCER_COLUMNS))})"
)
_INSERT_RESOURCES = """
    INSERT INTO resources (resource_id, attributes) SELECT id, text
    FROM (SELECT unnest(?::UUID[]) AS id, unnest(?::VARCHAR[]) AS text)
    WHERE id NOT IN (SELECT resource_id FROM resources)"""
_MODELS = """
    SELECT model_name, count(*), count(*) FILTER (status = 'ERROR'),
        quantile_cont(duration_nanos, [0.5, 0.95, 0.99]), sum(output_tokens)::BIGINT,
        min(start_time), max(start_time + duration_nanos),
        quantile_cont(time_to_first_token_ms, [0.5, 0.95, 0.99]),
        quantile_cont(queue_wait_time_ms, [0.5, 0.95, 0.99])
    FROM {spans} WHERE {condition}
    GROUP BY model_name ORDER BY count(*) DESC, model_name LIMIT ?"""


_SERIES = """
    SELECT start_time // {step} * {step}, count(*), {value}
    FROM {spans} WHERE {condition}
    GROUP BY 1 ORDER BY 1"""
_QUANTILE = "quantile_cont({column}, {fraction})"


class DuckDBStore:
    """A store in the DuckDB file at `path`, or in memory when that is None."""

    def __init__(self, path: str | None, query_timeout_s: float = DEFAULT_QUERY_TIMEOUT_S) -> None:
        # DuckDB takes the beginning of a relative name for something else where it can: "~", an
        # extension and a colon, ":memory:".
        self._path = None if path is None else str(Path(path).absolute())
        for special in "?\0":  # DuckDB would name its log by what comes before it
            if self._path is not None and special in self._path:
                reason = f"DuckDB takes no path with {special!r}"
                raise StoreError(f"cannot use {self._path!r}: {reason}")
        self._time_limits = TimeLimits(query_timeout_s, QueryTimeoutError)
        self._writer = self._open()
        self._seen = new_duplicate_filter(SEEN_SPANS)
        self._traces = BlockIndex()
        self._producers: dict[bytes, Producer] = {}
        self._resources: set[uuid.UUID] = set()  # that are durable; others may be as well
        self._forgotten_before = 0  # producers last seen before then have no account
        self._number = 0  # of the last entry
        self._journal: Journal | None = None
        self._deleting = threading.Lock()
        # Guards what follows; never held during I/O.
        self._changed = threading.Condition()
        self._unapplied: list[Entry] = []
        self._unapplied_bytes = 0
        self._oldest = 0.0
        self._applied = 0
        self._failure: str | None = None
        self._hurried = False
        self._stopping = False
        try:
            if self._path is not None:
                self._journal = Journal(Path(self._path))
            self._restore()
        except (duckdb.Error, OSError, StoreError) as error:
            self._writer.close()
            raise StoreError(f"cannot use {path}: {error}") from error
        self._applier = BackgroundThread("apply", self._apply_on)
        if self._journal is not None:
            self._applier.start()

    @property
    def _spill_folder(self) -> Path:
        return Path(f"{self._path}.tmp")

    @property
    def threads(self) -> Sequence[BackgroundThread]:
        return self._applier, self._time_limits.thread

    def _open(self) -> duckdb.DuckDBPyConnection:
        config: dict[str, Any] = {
            "memory_limit": MEMORY_LIMIT,
            "checkpoint_threshold": CHECKPOINT_THRESHOLD,
            # Of two cores, one is for the rest; an insert gains nothing by the second.
            "threads": max(1, (os.cpu_count() or 1) - 1),
            # A query is never a way to other files or to the network.
            "enable_external_access": "false",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "python_enable_replacements": "false",
        }
        if self._path is not None:
            # Where DuckDB writes what does not fit into memory, whichever thread asks.
            with suppress(OSError):
                self._spill_folder.mkdir(mode=0o700, exist_ok=True)
        try:
            with private_files():
                connection = duckdb.connect(self._path or ":memory:", config=config)
        except duckdb.Error as error:
            raise StoreError(f"cannot open {self._path}: {error}") from error
        try:
            with private_files():
                _ensure_schema(connection)
        except (duckdb.Error, StoreError) as error:
            connection.close()
            raise StoreError(f"cannot use {self._path}: {error}") from error
        return connection

    def _restore(self) -> None:
        """Take over what the database holds, and move into it what only the journal has."""
        self._number = self._applied = self._read_applied()
        self._producers = {p.producer_id: p for p in self._read_producers()}
        if self._journal is not None:
            self._replay(self._journal)
        with self._cursor() as cursor:
            cursor.execute("SET arrow_lossless_conversion = true")  # ids as bytes, not as text
            recent = f"rowid > (SELECT max(rowid) FROM spans) - {SEEN_SPANS}"
            ids = cursor.sql(f"SELECT trace_id, span_id FROM spans WHERE {recent}")
            for rows in pa.RecordBatchReader.from_stream(ids):
                add_rows(self._seen, rows)
            recent = f"rowid > (SELECT max(rowid) FROM spans) - {MAX_BLOCKS * BLOCK_ROWS}"
            older = cursor.execute(f"SELECT max(start_time) FROM spans WHERE NOT {recent}")
            self._traces.skip(older.fetchall()[0][0])
            times = cursor.sql(f"SELECT trace_id, start_time FROM spans WHERE {recent}")
            for rows in pa.RecordBatchReader.from_stream(times):
                self._traces.add(rows)

    def _replay(self, journal: Journal) -> None:
        entries: list[Entry] = []
        for entry in journal.read():
            self._number = max(self._number, entry.number)
            if entry.number > self._applied:
                entries.append(entry)
            if sum(len(entry.rows) for entry in entries) >= APPLY_ROWS:
                self._apply([self._merged(entries)])
                entries = []
        if entries:
            self._apply([self._merged(entries)])
        self._producers = {p.producer_id: p for p in self._read_producers()}
        journal.clear()

    def _merged(self, entries: Sequence[Entry]) -> Entry:
        """Entries as one, without rows that are stored already.

        None is, unless a write that failed came to its end all the same, and was repeated.
        """
        group = merged_rows([entry.rows for entry in entries])
        known = self._known(group, None, range(len(group))) if len(group) else set()
        accounts = [account for entry in entries for account in entry.accounts]
        resources = {name: text for entry in entries for name, text in entry.resources.items()}
        return Entry(entries[-1].number, _without(group, known), accounts, resources)

    def commit(self, batches: Sequence[Batch]) -> int:
        self._wait_for_room()
        try:
            rows, duplicates = self._new_rows(batches)
        except duckdb.Error as error:
            raise StoreError(str(error)) from error
        changed = self._account(batches, duplicates, self._producers)
        accounts = [
            dict(zip(PRODUCER_COLUMNS, producer_row(producer, producer_id=name.hex()), strict=True))
            for name, producer in changed.items()
        ]
        resources = distinct_resources(batches, self._resources)
        attributes = {key.hex: resource.attributes for key, resource in resources.items()}
        entry = Entry(self._number + 1, rows, accounts, attributes)
        if self._journal is None:
            self._apply_or_reopen([entry])
            self._number = entry.number
        else:
            self._journal.append(entry)
            self._number = entry.number
            with self._changed:
                if not self._unapplied:
                    self._oldest = time.monotonic()
                self._unapplied.append(entry)
                self._unapplied_bytes += entry.byte_count
                applied = self._applied
                self._changed.notify_all()
            self._journal.forget(applied)
        self._producers.update(changed)
        if len(self._resources) + len(resources) > MAX_KNOWN_RESOURCES:
            self._resources.clear()
        self._resources.update(resources)
        self._forget_oldest()
        return sum(duplicates)

    def _wait_for_room(self) -> None:
        self._applier.ensure()
        with self._changed:
            if not self._changed.wait_for(
                lambda: self._unapplied_bytes < MAX_UNAPPLIED_BYTES, ROOM_TIMEOUT_S
            ):
                if self._failure is not None:
                    raise StoreError(f"too much waits for the database: {self._failure}")
                raise StoreBusyError(f"{self._unapplied_bytes} bytes wait for the database")

    def _new_rows(self, batches: Sequence[Batch]) -> tuple[pa.RecordBatch, list[int]]:
        """The rows that are not stored yet, and the number of duplicates in each batch."""
        rows = [batch.rows for batch in batches]
        group = merged_rows(rows)
        seen = bool(add_rows(self._seen, group))
        if seen:
            # The ids that came last include all that wait for the database.
            self._drain()
            known = self._known(group, None, range(len(group)))
        else:
            suspects = [
                position
                for first, batch in _with_firsts(batches, self._suspects(batches))
                for position in range(first, first + len(batch.rows))
            ]
            known = self._known(group, LOOK_BACK_NS, suspects) if suspects else set()
        duplicates = [0] * len(rows)
        if known:
            ends = list(accumulate(len(batch) for batch in rows))
            for position in known:
                duplicates[bisect_right(ends, position)] += 1
        return _without(group, known), duplicates

    def _suspects(self, batches: Sequence[Batch]) -> set[int]:
        """The batches that may repeat older spans: those whose numbers do not prove otherwise."""
        suspects = set()
        earlier: dict[bytes, list[tuple[int, int]]] = {}
        for place, batch in enumerate(batches):
            report = batch.producer
            account = self._producers.get(report.producer_id) if report else None
            if report is None or account is None or not report.first_span_sequence:
                suspects.add(place)
                continue
            first, last = (
                report.first_span_sequence,
                report.first_span_sequence + batch.span_count - 1,
            )
            ranges = earlier.setdefault(report.producer_id, [])
            if account.has_received(first, batch.span_count) or any(
                first <= other_last and other_first <= last for other_first, other_last in ranges
            ):
                suspects.add(place)
            ranges.append((first, last))
        return suspects

    def _known(
        self, group: pa.RecordBatch, look_back: int | None, positions: Iterable[int]
    ) -> set[int]:
        """Those of the positions that repeat a stored span, or an earlier one of them."""
        places = pa.array(positions, type=pa.int64())
        asked = pa.Table.from_batches([group.select(["trace_id", "span_id", "start_time"])])
        asked = asked.take(places).append_column("position", places)
        if look_back is None:
            bounds = [0, 2**63 - 1]
        else:
            found = pc.min_max(asked.column("start_time")).as_py()
            bounds = [found["min"] - look_back, min(found["max"] + look_back, 2**63 - 1)]
        with self._cursor() as cursor:
            cursor.register("incoming", asked)
            return {row[0] for row in cursor.execute(_DUPLICATES, bounds).fetchall()}

    def _apply_on(self, thread: BackgroundThread) -> None:
        """The applying thread."""
        if sys.platform == "linux":  # elsewhere a priority is that of the whole process
            with suppress(OSError):
                niceness = os.getpriority(os.PRIO_PROCESS, os.getpid()) + NICER
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
        try:
            self._apply_while_open(thread)
        except BaseException as error:
            with self._changed:
                self._failure = type(error).__name__
            raise

    def _apply_while_open(self, thread: BackgroundThread) -> None:
        has_failed = thread.state.restarts > 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._unapplied or self._stopping)
                if not self._unapplied:
                    return
                due = self._oldest + APPLY_INTERVAL_S - time.monotonic()
                self._changed.wait_for(self._is_due, max(0.0, due))
                entries, count = [], 0
                for entry in self._unapplied:
                    entries.append(entry)
                    count += len(entry.rows)
                    if count >= APPLY_ROWS:
                        break
            try:
                # What failed last may have been committed all the same.
                self._apply_or_reopen(self._without_applied(entries) if has_failed else entries)
                has_failed = False
            except StoreError as error:
                has_failed = True
                if self._failure is None:
                    _log.error("acknowledged spans wait in the journal: %s", error)
                with self._changed:
                    self._failure = str(error)
                    if self._stopping:
                        return
                time.sleep(RETRY_DELAY_S)
                continue
            with self._changed:
                self._failure = None
                self._applied = entries[-1].number
                del self._unapplied[: len(entries)]
                self._unapplied_bytes -= sum(entry.byte_count for entry in entries)
                self._oldest = time.monotonic()
                if not self._unapplied:
                    self._hurried = False
                self._changed.notify_all()
            thread.does_well()

    def _without_applied(self, entries: Sequence[Entry]) -> list[Entry]:
        self._ensure_open()
        applied = self._read_applied()
        return [entry for entry in entries if entry.number > applied]

    def _is_due(self) -> bool:
        return (
            self._hurried
            or self._stopping
            or sum(len(entry.rows) for entry in self._unapplied) >= APPLY_ROWS
        )

    def _drain(self) -> None:
        """Wait until the database holds everything; raises StoreError after a while."""
        with self._changed:
            self._hurried = bool(self._unapplied)
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: not self._unapplied, ROOM_TIMEOUT_S):
                raise StoreError(self._failure or "the database took too long")

    def _apply_or_reopen(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        self._ensure_open()
        try:
            self._apply(entries)
        except BaseException as error:
            with suppress(duckdb.Error):
                self._writer.rollback()
            if isinstance(error, duckdb.Error):
                raise StoreError(str(error)) from error
            raise

    def _apply(self, entries: Sequence[Entry]) -> None:
        """Move entries into the database, all or none."""
        with private_files():  # of which DuckDB's own log is one
            self._insert(entries)

    def _insert(self, entries: Sequence[Entry]) -> None:
        accounts = {
            account["producer_id"]: account for entry in entries for account in entry.accounts
        }
        resources = {name: text for entry in entries for name, text in entry.resources.items()}
        rows = [entry.rows for entry in entries if len(entry.rows)]
        for added in rows:
            self._traces.add(added)
        self._writer.begin()
        if rows:
            self._writer.register("incoming", pa.Table.from_batches(rows))
            try:
                self._writer.execute(f"INSERT INTO spans BY NAME SELECT {_NAMES} FROM incoming")
            finally:
                self._writer.unregister("incoming")
        if resources:
            self._writer.execute(_INSERT_RESOURCES, [list(resources), list(resources.values())])
        for name, account in accounts.items():
            producer_id = bytes.fromhex(name)
            values = {**account, "producer_id": producer_id}
            self._writer.execute("DELETE FROM producers WHERE producer_id = ?", [producer_id])
            self._writer.execute(_INSERT_PRODUCER, [values[column] for column in PRODUCER_COLUMNS])
        self._writer.execute("DELETE FROM producers WHERE last_seen < ?", [self._forgotten_before])
        self._writer.execute("UPDATE applied SET number = ?", [entries[-1].number])
        self._writer.commit()

    def _account(
        self, batches: Sequence[Batch], duplicates: Sequence[int], known: dict[bytes, Producer]
    ) -> dict[bytes, Producer]:
        now = time.time_ns()
        changed: dict[bytes, Producer] = {}
        for batch, duplicate_count in zip(batches, duplicates, strict=True):
            report = batch.producer
            if report is None:
                continue
            producer_id = report.producer_id
            producer = changed.get(producer_id) or known.get(producer_id)
            changed[producer_id] = (producer or Producer(producer_id, now, now)).after(
                report,
                span_count=batch.span_count,
                rejected_positions=batch.rejected_positions,
                duplicates=duplicate_count,
                now=now,
            )
        return changed

    def _forget_oldest(self) -> None:
        if len(self._producers) <= ledger.MAX_PRODUCERS:
            return
        # A tenth at a time, so that this is not done for every new producer.
        kept = sorted(self._producers.values(), key=lambda p: p.last_seen, reverse=True)
        kept = kept[: ledger.MAX_PRODUCERS - ledger.MAX_PRODUCERS // 10]
        self._producers = {p.producer_id: p for p in kept}
        self._forgotten_before = kept[-1].last_seen

    def _ensure_open(self) -> None:
        # After a write that failed half-way, DuckDB refuses a database until it is opened again.
        try:
            self._writer.execute("SELECT 1")
        except duckdb.Error:
            with suppress(duckdb.Error):
                self._writer.close()
            self._writer = self._open()
            _log.warning("the store was opened again after a write that failed")

    @contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        try:
            with self._writer.cursor() as cursor:
                yield cursor
        except duckdb.Error as error:
            raise StoreError(str(error)) from error

    def spans(self, where: SpanFilter, limit: int) -> list[tuple[Any, ...]]:
        resource_ids = self._matching_resources(where.resource) if where.resource else None
        if resource_ids is not None and not resource_ids:
            return []
        return exact_spans(where, limit, partial(self._spans, resource_ids=resource_ids))

    def _spans(
        self, where: SpanFilter, limit: int, resource_ids: Collection[uuid.UUID] | None
    ) -> list[tuple[Any, ...]]:
        conditions = {
            "model_name = ?": where.model,
            "service_name = ?": where.service,
            "operation_name = ?": where.operation,
            "status = ?": where.status,
            "trace_id = ?": where.trace_id,
            "start_time >= ?": where.since,
            "start_time < ?": where.until,
            "duration_nanos >= ?": where.min_duration,
        }
        asked = {sql: value for sql, value in conditions.items() if value is not None}
        sql = " AND ".join(["TRUE", *asked])
        values: list[Any] = list(asked.values())
        for name, pieces in where.pieces():
            sql += f" AND ({' OR '.join([f'contains({name}, ?)'] * len(pieces))})"
            values += pieces
        if resource_ids is not None:
            if len(resource_ids) <= MAX_LISTED_IDS:
                sql += f" AND resource_id IN ({', '.join('?' * len(resource_ids))})"
                values += resource_ids
            else:
                sql += " AND resource_id IN (SELECT unnest(?::UUID[]))"
                values.append(list(resource_ids))
        if where.after is not None:
            after = where.after
            sql += (
                " AND start_time <= ? AND (start_time < ? OR (trace_id, span_id) < (?, ?::UBIGINT))"
            )
            values += [after.start_time, after.start_time, after.trace_id, after.span_id]
        with self._query() as (cursor, recent):
            if where.trace_id is not None:
                ranges = self._traces.ranges(where.trace_id.bytes) or [(1, 0)]
                sql += " AND start_time BETWEEN ? AND ?"
                values += [ranges[0][0], ranges[-1][1]]
            # First how far back they reach: to find that out with all columns costs more than both.
            starts = cursor.execute(
                f"SELECT start_time FROM spans WHERE {sql} ORDER BY start_time DESC LIMIT ?",
                [*values, limit],
            ).fetchall()
            stored = []
            if starts:
                stored = cursor.execute(
                    f"SELECT {_NAMES} FROM spans WHERE {sql} AND start_time >= ? "
                    "ORDER BY start_time DESC, trace_id DESC, span_id DESC LIMIT ?",
                    [*values, starts[-1][0], limit],
                ).fetchall()
        waiting = matching_rows(recent, where, limit, resource_ids)
        return newest_first(stored, waiting, limit)

    def trace(self, trace_id: uuid.UUID, limit: int) -> list[tuple[Any, ...]]:
        with self._query() as (cursor, recent):
            stored = [
                row
                for first, last in self._traces.ranges(trace_id.bytes)
                for row in cursor.execute(
                    f"SELECT {_NAMES} FROM spans "
                    "WHERE trace_id = ? AND start_time BETWEEN ? AND ? "
                    "ORDER BY start_time, duration_nanos DESC, span_id LIMIT ?",
                    [trace_id, first, last, limit],
                ).fetchall()
            ][:limit]
        return trace_order(stored, matching_rows(recent, SpanFilter(trace_id=trace_id)), limit)

    def models(self, selection: Selection, limit: int) -> list[ModelStatistics]:
        condition, values = selection.condition("?")
        with self._query() as (cursor, recent):
            sql = _MODELS.format(spans=_all_spans(cursor, recent), condition=condition)
            rows = cursor.execute(sql, [*values, limit]).fetchall()
        return [
            ModelStatistics(name, samples, errors, *durations, *others)
            for name, samples, errors, durations, *others in rows
        ]

    def series(self, selection: Selection, metric: Metric, step: int) -> list[SeriesPoint]:
        value = aggregate_sql(metric, step, _QUANTILE)
        condition, values = selection.condition("?")
        with self._query() as (cursor, recent):
            spans = _all_spans(cursor, recent)
            sql = _SERIES.format(step=int(step), value=value, spans=spans, condition=condition)
            rows = cursor.execute(sql, values).fetchall()
        return [SeriesPoint(*row) for row in rows]

    def rows(self, since: int, until: int) -> Iterator[pa.RecordBatch]:
        with self._snapshot() as (cursor, recent):
            cursor.execute("SET arrow_lossless_conversion = true")
            where = f"start_time >= {since:d} AND start_time < {until:d}"
            stored = cursor.sql(f"SELECT {_NAMES} FROM spans WHERE {where}")
            for rows in pa.RecordBatchReader.from_stream(stored):
                yield rows.cast(SCHEMA)
            for rows in recent:
                start = rows.column("start_time")
                inside = pc.and_(pc.greater_equal(start, since), pc.less(start, until))
                if len(rows := rows.filter(inside)):
                    yield rows

    @contextmanager
    def _query(self) -> Iterator[tuple[duckdb.DuckDBPyConnection, list[pa.RecordBatch]]]:
        """A snapshot for as long as a query may take."""
        with (
            self._snapshot() as (cursor, recent),
            self._time_limits.limit(cursor.interrupt),
        ):
            yield cursor, recent

    @contextmanager
    def _snapshot(self) -> Iterator[tuple[duckdb.DuckDBPyConnection, list[pa.RecordBatch]]]:
        """A moment of the database, and the rows that it does not have yet."""
        # First the rows: what is moved into the database meanwhile is then in both, and the
        # number that the snapshot itself holds says which.
        with self._changed:
            unapplied = list(self._unapplied)
        with self._cursor() as cursor:
            if unapplied:
                cursor.begin()
                (applied,) = cursor.execute("SELECT number FROM applied").fetchall()[0]
                unapplied = [entry for entry in unapplied if entry.number > applied]
            yield cursor, [entry.rows for entry in unapplied if len(entry.rows)]

    def _waiting_resources(self) -> dict[uuid.UUID, str]:
        """Those that may not be in the database yet; to be asked before it is."""
        with self._changed:
            waiting = [entry.resources for entry in self._unapplied if entry.resources]
        return {
            uuid.UUID(name): attributes
            for resources in waiting
            for name, attributes in resources.items()
        }

    def _matching_resources(self, conditions: Sequence[KeyedText]) -> list[uuid.UUID]:
        found = self._waiting_resources()
        sql, values = [], []
        for condition in conditions:
            pieces = condition.pieces()
            sql.append(f"({' OR '.join(['contains(attributes, ?)'] * len(pieces))})")
            values += pieces
        with self._query() as (cursor, _):
            rows = cursor.execute(
                f"SELECT resource_id, attributes FROM resources WHERE {' AND '.join(sql)}", values
            ).fetchall()
        found.update(rows)
        return [key for key, attributes in found.items() if are_in(conditions, attributes)]

    def resources(self, ids: Collection[uuid.UUID]) -> dict[uuid.UUID, str]:
        found = self._waiting_resources()
        with self._query() as (cursor, _):
            rows = cursor.execute(
                "SELECT resource_id, attributes FROM resources WHERE resource_id IN "
                "(SELECT unnest(?::UUID[]))",
                [list(ids)],
            ).fetchall()
        found.update(rows)
        return {key: found[key] for key in ids if key in found}

    def producers(self, limit: int) -> list[Producer]:
        known = list(self._producers.values())
        return sorted(known, key=lambda p: (-p.last_seen, p.producer_id))[:limit]

    def _read_producers(self) -> list[Producer]:
        with self._cursor() as cursor:
            rows = cursor.execute(
                f"SELECT {PRODUCER_NAMES} FROM producers "
                "ORDER BY last_seen DESC, producer_id LIMIT ?",
                [ledger.MAX_PRODUCERS],
            ).fetchall()
        return [_producer(row) for row in rows]

    def retain(self, retention: Retention) -> int:
        deleted = 0
        with self._deleting, private_files(), self._cursor() as cursor:
            if retention.max_age is not None:
                deleted += _delete_before(cursor, time.time_ns() - retention.max_age)
            if retention.max_bytes is not None:
                sizes = "SELECT used_blocks * block_size FROM pragma_database_size()"
                used = cursor.execute(sizes).fetchall()[0][0]
                if used > retention.max_bytes:
                    share = 1 - KEPT_SHARE * retention.max_bytes / used
                    bound = cursor.execute(
                        f"SELECT quantile_disc(start_time, {share}) FROM spans"
                    ).fetchall()[0][0]
                    deleted += 0 if bound is None else _delete_before(cursor, bound)
            if deleted:
                # It gives the room back; DuckDB does it later where it cannot be done now.
                with suppress(duckdb.Error):
                    cursor.execute("CHECKPOINT")
        return deleted

    def _read_applied(self) -> int:
        with self._cursor() as cursor:
            return int(cursor.execute("SELECT number FROM applied").fetchall()[0][0])

    def check(self) -> None:
        if self._failure is not None:
            raise StoreError(self._failure)
        self._read_applied()

    def checkpoint(self) -> None:
        self._drain()
        with self._deleting:  # DuckDB makes none beside another transaction that writes
            try:
                with private_files():
                    self._writer.execute("CHECKPOINT")
            except duckdb.Error as error:
                raise StoreError(str(error)) from error

    def close(self) -> None:
        self._time_limits.close()
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._applier.stop()
        if self._journal is not None:
            self._journal.close()
            if not self._unapplied:
                self._journal.clear()
        with private_files():
            self._writer.close()
        if self._path is not None:
            with suppress(OSError):
                self._spill_folder.rmdir()


def _without(rows: pa.RecordBatch, positions: set[int]) -> pa.RecordBatch:
    if not positions:
        return rows
    kept = [position for position in range(len(rows)) if position not in positions]
    return rows.take(pa.array(kept, type=pa.int64()))


def _delete_before(cursor: duckdb.DuckDBPyConnection, start_time: int) -> int:
    deleted = cursor.execute("DELETE FROM spans WHERE start_time < ?", [start_time]).fetchall()
    return int(deleted[0][0])


def _all_spans(cursor: duckdb.DuckDBPyConnection, recent: Sequence[pa.RecordBatch]) -> str:
    """What to select statistics from: the table, with the rows that it does not have yet."""
    if not recent:
        return "spans"
    cursor.register(
        "recent", pa.Table.from_batches([rows.select(AGGREGATED_COLUMNS) for rows in recent])
    )
    names = ", ".join(AGGREGATED_COLUMNS)
    return f"(SELECT {names} FROM spans UNION ALL SELECT {names} FROM recent)"


def _with_firsts(batches: Sequence[Batch], wanted: set[int]) -> Iterator[tuple[int, Batch]]:
    """The wanted batches, and where the rows of each begin among those of all."""
    first = 0
    for place, batch in enumerate(batches):
        if place in wanted:
            yield first, batch
        first += len(batch.rows)


def _ensure_schema(connection: duckdb.DuckDBPyConnection) -> None:
    tables = {row[0] for row in connection.execute("SHOW TABLES").fetchall()}
    if not tables:
        connection.begin()
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.commit()
        return
    if "schema_version" not in tables:
        raise StoreError("it is a DuckDB database, but not a store of infertrace")
    row = connection.execute("SELECT max(version) FROM schema_version").fetchone()
    version = row[0] if row else None
    while version in _MIGRATIONS:
        connection.begin()
        for statement in _MIGRATIONS[version]:
            connection.execute(statement)
        version += 1
        connection.execute("UPDATE schema_version SET version = ?", [version])
        connection.commit()
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"its schema has version {version}, and this infertrace knows version "
            f"{SCHEMA_VERSION}; use the infertrace that wrote it, or a newer one"
        )


def _producer(row: Sequence[Any]) -> Producer:
    return Producer(**producer_values(row))
