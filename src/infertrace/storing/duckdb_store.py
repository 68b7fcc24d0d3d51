"""Spans in DuckDB: one file, or memory."""

from __future__ import annotations

import json
import logging
import time
import uuid
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import accumulate
from typing import Any

import duckdb
import pyarrow as pa

from infertrace.storing.columns import COLUMNS
from infertrace.storing.ledger import Producer
from infertrace.storing.store import Batch, ModelStatistics, SpanFilter, StoreError

SCHEMA_VERSION = 1
MAX_PRODUCERS = 10_000  # accounts kept; those seen last stay
MEMORY_LIMIT = "2GB"  # DuckDB's default is 80 % of the machine, which the model server needs
CHECKPOINT_THRESHOLD = "64MB"  # of write-ahead log

_log = logging.getLogger(__name__)

_SQL_TYPES = {
    "trace_id": "UUID",
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
_SCHEMA = (
    "CREATE TABLE schema_version (version INTEGER)",
    f"INSERT INTO schema_version VALUES ({SCHEMA_VERSION})",
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
# A unique index would have to be kept in memory and written with every span. The span id alone
# narrows the scan: 64 bits are compared several times faster than the pair. The batch is copied
# first because DuckDB 1.4 cannot push a filter on a UUID down into Arrow data.
_DUPLICATES = """
    WITH batch AS MATERIALIZED (SELECT trace_id, span_id, position FROM incoming),
    candidates AS MATERIALIZED (
        SELECT trace_id, span_id FROM spans WHERE span_id IN (SELECT span_id FROM batch))
    SELECT position FROM batch SEMI JOIN candidates USING (trace_id, span_id)
    UNION
    SELECT position FROM (
        SELECT position, min(position) OVER (PARTITION BY trace_id, span_id) AS earliest
        FROM batch)
    WHERE position > earliest"""
_PRODUCER_COLUMNS = (
    "producer_id",
    "first_seen",
    "last_seen",
    "service_name",
    "produced",
    "stored",
    "rejected",
    "duplicates",
    "dropped",
    "received",
    "finished",
)
_PRODUCER_NAMES = ", ".join(_PRODUCER_COLUMNS)
_INSERT_PRODUCER = (
    f"INSERT INTO producers ({_PRODUCER_NAMES}) VALUES ({', '.join('?' * len(_PRODUCER_COLUMNS))})"
)
_UPDATE_PRODUCER = (
    f"UPDATE producers SET {', '.join(f'{name} = ?' for name in _PRODUCER_COLUMNS[1:])} "
    "WHERE producer_id = ?"
)
_MODELS = """
    SELECT model_name, count(*), count(*) FILTER (status = 'ERROR'),
        quantile_cont(duration_nanos, [0.5, 0.95, 0.99]), sum(output_tokens)::BIGINT,
        min(start_time), max(start_time + duration_nanos)
    FROM spans WHERE start_time >= ? AND {model}
    GROUP BY model_name ORDER BY count(*) DESC, model_name LIMIT ?"""


class DuckDBStore:
    """A store in the DuckDB file at `path`, or in memory when that is None."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._writer = self._open()
        self._producers: dict[bytes, Producer] | None = None

    def _open(self) -> duckdb.DuckDBPyConnection:
        try:
            connection = duckdb.connect(
                self._path or ":memory:",
                config={
                    "memory_limit": MEMORY_LIMIT,
                    "checkpoint_threshold": CHECKPOINT_THRESHOLD,
                    # A query is never a way to other files or to the network.
                    "enable_external_access": "false",
                    "autoinstall_known_extensions": "false",
                    "autoload_known_extensions": "false",
                    "python_enable_replacements": "false",
                },
            )
        except duckdb.Error as error:
            raise StoreError(f"cannot open {self._path}: {error}") from error
        try:
            _ensure_schema(connection)
        except (duckdb.Error, StoreError) as error:
            connection.close()
            raise StoreError(f"cannot use {self._path}: {error}") from error
        return connection

    def commit(self, batches: Sequence[Batch]) -> int:
        self._ensure_open()
        try:
            if self._producers is None:
                self._producers = {p.producer_id: p for p in self._read_producers(MAX_PRODUCERS)}
            self._writer.begin()
            duplicates = self._insert([batch.rows for batch in batches])
            changed = self._account(batches, duplicates, self._producers)
            self._writer.commit()
        except duckdb.Error as error:
            self._producers = None
            with suppress(duckdb.Error):
                self._writer.rollback()
            raise StoreError(str(error)) from error
        self._producers.update(changed)
        self._forget_oldest()
        return sum(duplicates)

    def _insert(self, rows: Sequence[pa.RecordBatch]) -> list[int]:
        """Insert what is not stored yet; returns the number of duplicates for each batch."""
        table = pa.Table.from_batches(rows)
        if not len(table):
            return [0] * len(rows)
        positions = pa.array(range(len(table)), type=pa.int64())
        self._writer.register("incoming", table.append_column("position", positions))
        try:
            known = {row[0] for row in self._writer.execute(_DUPLICATES).fetchall()}
            condition = "position NOT IN (SELECT unnest(?))" if known else "TRUE"
            self._writer.execute(
                f"INSERT INTO spans SELECT {_NAMES} FROM incoming WHERE {condition}",
                [list(known)] if known else [],
            )
        finally:
            self._writer.unregister("incoming")
        ends = list(accumulate(len(batch) for batch in rows))
        duplicates = [0] * len(rows)
        for position in known:
            duplicates[bisect_right(ends, position)] += 1
        return duplicates

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
        for producer in changed.values():
            values = _producer_row(producer)
            if producer.producer_id in known:
                self._writer.execute(_UPDATE_PRODUCER, [*values[1:], values[0]])
            else:
                self._writer.execute(_INSERT_PRODUCER, values)
        return changed

    def _forget_oldest(self) -> None:
        if self._producers is None or len(self._producers) <= MAX_PRODUCERS:
            return
        # A tenth at a time, so that this is not done for every new producer.
        kept = sorted(self._producers.values(), key=lambda p: p.last_seen, reverse=True)
        kept = kept[: MAX_PRODUCERS - MAX_PRODUCERS // 10]
        with suppress(duckdb.Error):  # the next commit tries again
            self._writer.execute("DELETE FROM producers WHERE last_seen < ?", [kept[-1].last_seen])
        self._producers = None

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
        values = list(asked.values())
        if where.after is not None:
            after = where.after
            sql += (
                " AND start_time <= ? AND (start_time < ? OR (trace_id, span_id) < (?, ?::UBIGINT))"
            )
            values += [after.start_time, after.start_time, after.trace_id, after.span_id]
        with self._cursor() as cursor:
            return cursor.execute(
                f"SELECT {_NAMES} FROM spans WHERE {sql} "
                "ORDER BY start_time DESC, trace_id DESC, span_id DESC LIMIT ?",
                [*values, limit],
            ).fetchall()

    def trace(self, trace_id: uuid.UUID, limit: int) -> list[tuple[Any, ...]]:
        with self._cursor() as cursor:
            return cursor.execute(
                f"SELECT {_NAMES} FROM spans WHERE trace_id = ? "
                "ORDER BY start_time, duration_nanos DESC, span_id LIMIT ?",
                [trace_id, limit],
            ).fetchall()

    def models(self, since: int, limit: int, model: str | None = None) -> list[ModelStatistics]:
        condition = "model_name IS NOT NULL" if model is None else "model_name = ?"
        values = [since, limit] if model is None else [since, model, limit]
        with self._cursor() as cursor:
            rows = cursor.execute(_MODELS.format(model=condition), values).fetchall()
        return [
            ModelStatistics(name, samples, errors, p50, p95, p99, tokens, first, last)
            for name, samples, errors, (p50, p95, p99), tokens, first, last in rows
        ]

    def producers(self, limit: int) -> list[Producer]:
        return self._read_producers(limit)

    def _read_producers(self, limit: int) -> list[Producer]:
        with self._cursor() as cursor:
            rows = cursor.execute(
                f"SELECT {_PRODUCER_NAMES} FROM producers "
                "ORDER BY last_seen DESC, producer_id LIMIT ?",
                [limit],
            ).fetchall()
        return [_producer(row) for row in rows]

    def checkpoint(self) -> None:
        try:
            self._writer.execute("CHECKPOINT")
        except duckdb.Error as error:
            raise StoreError(str(error)) from error

    def close(self) -> None:
        self._writer.close()


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
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"its schema has version {version}, and this infertrace knows version "
            f"{SCHEMA_VERSION}; use the infertrace that wrote it, or a newer one"
        )


def _producer_row(producer: Producer) -> list[Any]:
    texts = {"dropped": json.dumps(producer.dropped), "received": json.dumps(producer.received)}
    return [texts.get(name, getattr(producer, name)) for name in _PRODUCER_COLUMNS]


def _producer(row: Sequence[Any]) -> Producer:
    values = dict(zip(_PRODUCER_COLUMNS, row, strict=True))
    values["dropped"] = json.loads(values["dropped"])
    values["received"] = tuple((first, last) for first, last in json.loads(values["received"]))
    return Producer(**values)
