"""The DuckDB database behind a journal, or in memory without one."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from infertrace.collector.background_thread import BackgroundThread
from infertrace.collector.store.duckdb.block_index import BLOCK_ROWS, MAX_BLOCKS, BlockIndex
from infertrace.collector.store.duckdb.queries import DuckDBSnapshot
from infertrace.collector.store.duckdb.schema import ensure_schema
from infertrace.collector.store.duckdb.span_table import (
    add_columns,
    column_names,
    insert,
    names_with_values,
)
from infertrace.collector.store.journaled.journal import Entry
from infertrace.collector.store.ledger import Producer
from infertrace.collector.store.private_files import private_files
from infertrace.collector.store.producer_rows import (
    LATER_PRODUCER_COLUMNS,
    PRODUCER_COLUMNS,
    PRODUCER_NAMES,
    producer_values,
)
from infertrace.collector.store.store import QueryTimeoutError, Retention, StoreError
from infertrace.collector.time_limits import TimeLimits

MEMORY_LIMIT = "2GB"  # DuckDB's default is 80 % of the machine, which the model server needs
CHECKPOINT_THRESHOLD = "256MB"  # of DuckDB's own log; nobody waits for a checkpoint
KEPT_SHARE = 0.9  # of the largest size, so that not every look at the size has to delete

_log = logging.getLogger(__name__)

# A unique index would have to be kept in memory and written with every span. The span id alone
# narrows the scan: 64 bits are compared several times faster than the pair. The batch is copied
# first because DuckDB 1.4 cannot push a filter on a UUID down into Arrow data.
_REPEATED = """
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
_NEWEST = "rowid > (SELECT max(rowid) FROM spans) - {count}"


class DuckDBDatabase:
    """The database in the file at the absolute `path`, or in memory when that is None.

    Raises StoreError where it cannot be opened.
    """

    def __init__(self, path: str | None, query_timeout_s: float) -> None:
        self._path = path
        self._time_limits = TimeLimits(query_timeout_s, QueryTimeoutError)
        self._deleting = threading.Lock()
        self._writer = self._open()
        self._blocks = BlockIndex()
        try:
            self._index_newest()
        except StoreError:
            self.close()
            raise

    @property
    def threads(self) -> Sequence[BackgroundThread]:
        return (self._time_limits.thread,)

    @property
    def _spill_folder(self) -> Path:
        return Path(f"{self._path}.tmp")

    def _open(self) -> duckdb.DuckDBPyConnection:
        config: dict[str, Any] = {
            "memory_limit": MEMORY_LIMIT,
            "checkpoint_threshold": CHECKPOINT_THRESHOLD,
            # Of two cores, one is for the rest; an insert gains nothing by the second.
            "threads": max(1, (os.cpu_count() or 1) - 1),
            # A query must not read other files or reach the network.
            "enable_external_access": "false",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "python_enable_replacements": "false",
        }
        if self._path is not None:
            # DuckDB writes here what does not fit into memory, on whichever thread that happens:
            # it has to be private beforehand.
            with suppress(OSError):
                self._spill_folder.mkdir(mode=0o700, exist_ok=True)
        try:
            with private_files():
                connection = duckdb.connect(self._path or ":memory:", config=config)
        except duckdb.Error as error:
            raise StoreError(f"cannot open {self._path}: {error}") from error
        try:
            with private_files():
                ensure_schema(connection)
                self._columns = column_names(connection, "spans")
        except (duckdb.Error, StoreError) as error:
            connection.close()
            raise StoreError(f"cannot use {self._path}: {error}") from error
        return connection

    def _index_newest(self) -> None:
        newest = _NEWEST.format(count=MAX_BLOCKS * BLOCK_ROWS)
        with self._cursor() as cursor:
            older = cursor.execute(f"SELECT max(start_time) FROM spans WHERE NOT {newest}")
            self._blocks.skip(older.fetchall()[0][0])
            for rows in _batches(cursor, f"SELECT trace_id, start_time FROM spans WHERE {newest}"):
                self._blocks.add(rows)

    @contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        try:
            with self._writer.cursor() as cursor:
                yield cursor
        except duckdb.Error as error:
            raise StoreError(str(error)) from error

    def apply(self, entries: Sequence[Entry], forget_before_ns: int) -> None:
        self._ensure_open()
        try:
            with private_files():  # DuckDB's own log is one
                self._insert(entries, forget_before_ns)
        except BaseException as error:
            with suppress(duckdb.Error):
                self._writer.rollback()
            if isinstance(error, duckdb.Error):
                raise StoreError(str(error)) from error
            raise

    def _ensure_open(self) -> None:
        # After a write that failed half-way, DuckDB refuses a database until it is opened again.
        try:
            self._writer.execute("SELECT 1")
        except duckdb.Error:
            with suppress(duckdb.Error):
                self._writer.close()
            self._writer = self._open()
            _log.warning("the store was opened again after a write that failed")

    def _insert(self, entries: Sequence[Entry], forget_before_ns: int) -> None:
        accounts = {
            account["producer_id"]: account for entry in entries for account in entry.accounts
        }
        resources = {name: text for entry in entries for name, text in entry.resources.items()}
        rows = [rows for entry in entries for rows in entry.batches if len(rows)]
        for added in rows:
            self._blocks.add(added)
        names = names_with_values(rows)
        self._ensure_columns(names)
        self._writer.begin()
        if rows:
            insert(self._writer, rows, names)
        if resources:
            self._writer.execute(_INSERT_RESOURCES, [list(resources), list(resources.values())])
        for name, account in accounts.items():
            producer_id = bytes.fromhex(name)
            values = {**LATER_PRODUCER_COLUMNS, **account, "producer_id": producer_id}
            self._writer.execute("DELETE FROM producers WHERE producer_id = ?", [producer_id])
            self._writer.execute(_INSERT_PRODUCER, [values[column] for column in PRODUCER_COLUMNS])
        self._writer.execute("DELETE FROM producers WHERE last_seen < ?", [forget_before_ns])
        self._writer.execute("UPDATE applied SET number = ?", [entries[-1].number])
        self._writer.commit()

    def _ensure_columns(self, names: Sequence[str]) -> None:
        if self._columns.issuperset(names):
            return
        with self._deleting:  # DuckDB alters no table beside another transaction that writes to it
            self._writer.begin()
            add_columns(self._writer, names)
            self._writer.commit()
        self._columns.update(names)

    def recover(self) -> int:
        self._ensure_open()
        return self.applied_number()

    def applied_number(self) -> int:
        with self._cursor() as cursor:
            return DuckDBSnapshot(cursor, self._blocks).applied_number()

    def repeated(self, ids: pa.Table, first_start_ns: int, last_start_ns: int) -> set[int]:
        with self._cursor() as cursor:
            cursor.register("incoming", ids)
            found = cursor.execute(_REPEATED, [first_start_ns, last_start_ns]).fetchall()
        return {position for (position,) in found}

    def newest_ids(self, count: int) -> Iterator[pa.RecordBatch]:
        newest = _NEWEST.format(count=count)
        with self._cursor() as cursor:
            yield from _batches(
                cursor, f"SELECT trace_id, span_id, start_time FROM spans WHERE {newest}"
            )

    def latest_start_before_newest(self, count: int) -> int:
        with self._cursor() as cursor:
            newest = _NEWEST.format(count=count)
            older = cursor.execute(f"SELECT max(start_time) FROM spans WHERE NOT {newest}")
            return int(older.fetchall()[0][0] or 0)

    def producers(self, limit: int) -> list[Producer]:
        with self._cursor() as cursor:
            rows = cursor.execute(
                f"SELECT {PRODUCER_NAMES} FROM producers "
                "ORDER BY last_seen DESC, producer_id LIMIT ?",
                [limit],
            ).fetchall()
        return [Producer(**producer_values(row)) for row in rows]

    @contextmanager
    def snapshot(self, *, is_pinned: bool, is_timed: bool = True) -> Iterator[DuckDBSnapshot]:
        with self._cursor() as cursor:
            if is_pinned:
                cursor.begin()
            limit = self._time_limits.limit(cursor.interrupt) if is_timed else nullcontext()
            with limit:
                yield DuckDBSnapshot(cursor, self._blocks)

    def retain(self, retention: Retention) -> tuple[int, int]:
        deleted, before_ns = 0, 0

        def delete(bound_ns: int) -> None:
            nonlocal deleted, before_ns
            if count := _delete_before(cursor, bound_ns):
                deleted, before_ns = deleted + count, max(before_ns, bound_ns)

        with self._deleting, private_files(), self._cursor() as cursor:
            if retention.max_age_ns is not None:
                delete(time.time_ns() - retention.max_age_ns)
            if retention.max_bytes is not None:
                sizes = "SELECT used_blocks * block_size FROM pragma_database_size()"
                used = cursor.execute(sizes).fetchall()[0][0]
                if used > retention.max_bytes:
                    share = 1 - KEPT_SHARE * retention.max_bytes / used
                    bound_ns = cursor.execute(
                        f"SELECT quantile_disc(start_time, {share}) FROM spans"
                    ).fetchall()[0][0]
                    if bound_ns is not None:
                        delete(bound_ns)
            if deleted:
                # A checkpoint gives the room back; where it cannot be made now, DuckDB makes one
                # later.
                with suppress(duckdb.Error):
                    cursor.execute("CHECKPOINT")
        return deleted, before_ns

    def checkpoint(self) -> None:
        with self._deleting:  # DuckDB makes none beside another transaction that writes
            try:
                with private_files():
                    self._writer.execute("CHECKPOINT")
            except duckdb.Error as error:
                raise StoreError(str(error)) from error

    def close(self) -> None:
        self._time_limits.close()
        with private_files():
            self._writer.close()
        if self._path is not None:
            with suppress(OSError):
                self._spill_folder.rmdir()


def _batches(cursor: duckdb.DuckDBPyConnection, sql: str) -> Iterator[pa.RecordBatch]:
    cursor.execute("SET arrow_lossless_conversion = true")  # ids as bytes, not as text
    yield from pa.RecordBatchReader.from_stream(cursor.sql(sql))


def _delete_before(cursor: duckdb.DuckDBPyConnection, start_time_ns: int) -> int:
    deleted = cursor.execute("DELETE FROM spans WHERE start_time < ?", [start_time_ns]).fetchall()
    return int(deleted[0][0])
