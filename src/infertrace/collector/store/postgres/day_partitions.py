"""Spans in native partitions, one for each day, for a PostgreSQL without TimescaleDB."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timezone

import psycopg
import pyarrow as pa
from psycopg import sql

from infertrace.collector.store.columns import Column
from infertrace.collector.store.postgres.span_table import (
    COLUMNS_SQL,
    FUTURE_DAYS,
    NANOS_PER_DAY,
    PAST_DAYS,
    Connection,
    Target,
    column_sql,
    days_of,
)
from infertrace.collector.store.store import Retention

# Collectors make partitions one after another; the number is arbitrary.
_PARTITIONS_LOCK = 0x696E6666
_CREATE = (
    f"CREATE TABLE spans ({COLUMNS_SQL}) PARTITION BY RANGE (start_time)",
    "CREATE UNIQUE INDEX spans_ids ON spans (trace_id, span_id, start_time)",
    "CREATE INDEX spans_time ON spans USING brin (start_time) WITH (pages_per_range = 16)",
    "CREATE TABLE spans_other PARTITION OF spans DEFAULT",
)


class DayPartitions:
    """A partition for each day near today, and one for all others."""

    source = "spans"

    def __init__(self) -> None:
        self._days: set[int] = set()

    def describe(self) -> str:
        return "native partitions"

    def create(self, connection: Connection) -> None:
        for statement in _CREATE:
            connection.execute(statement)

    def add_columns(self, connection: Connection, columns: Sequence[Column]) -> None:
        for column in columns:
            connection.execute(f"ALTER TABLE spans ADD COLUMN {column_sql(column)}")

    def targets(self, connection: Connection, rows: pa.RecordBatch) -> Sequence[Target]:
        today = time.time_ns() // NANOS_PER_DAY
        for day in days_of(rows):
            if day in self._days:
                continue
            if today - PAST_DAYS <= day <= today + FUTURE_DAYS:
                _create_day(connection, day)
            self._days.add(day)
        return [("spans", "TRUE")]

    def invalidate(self) -> None:
        self._days = set()

    def retain(self, connection: Connection, retention: Retention) -> int:
        """Drop whole days, which costs nothing; today's oldest spans stay, whatever the size."""
        deleted = 0
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [_PARTITIONS_LOCK])
        if retention.max_age_ns is not None:
            bound_ns = time.time_ns() - retention.max_age_ns
            for name in _partitions(connection):
                if (_day(name) + 1) * NANOS_PER_DAY <= bound_ns:
                    deleted += _drop(connection, name)
            deleted += connection.execute(
                "DELETE FROM spans WHERE start_time < %s", [bound_ns]
            ).rowcount
        if retention.max_bytes is not None:
            today = f"spans_{time.strftime('%Y%m%d', time.gmtime())}"
            sizes = _partitions(connection)
            for name in sorted(sizes):
                if name >= today or sum(sizes.values()) <= retention.max_bytes:
                    break
                deleted += _drop(connection, name)
                del sizes[name]
        return deleted


def _create_day(connection: Connection, day: int) -> None:
    first = day * NANOS_PER_DAY
    name = time.strftime("spans_%Y%m%d", time.gmtime(day * 86_400))
    # PostgreSQL makes no partition for rows that the default partition holds already. Where the
    # first rows of a day came when it was too far away, the whole day stays in there.
    with suppress(psycopg.errors.CheckViolation), connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [_PARTITIONS_LOCK])
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {name} PARTITION OF spans "
            f"FOR VALUES FROM ({first}) TO ({first + NANOS_PER_DAY})"
        )


def _partitions(connection: Connection) -> dict[str, int]:
    """The partitions of one day, and their bytes."""
    return dict(
        connection.execute(
            "SELECT relname, pg_total_relation_size(oid) FROM pg_class WHERE oid IN "
            "(SELECT inhrelid FROM pg_inherits WHERE inhparent = 'spans'::regclass) "
            "AND relname <> 'spans_other'"
        ).fetchall()
    )


def _day(partition: str) -> int:
    date = datetime.strptime(partition, "spans_%Y%m%d").replace(tzinfo=timezone.utc)
    return int(date.timestamp()) // 86_400


def _drop(connection: Connection, partition: str) -> int:
    name = sql.Identifier(partition)
    count = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(name)).fetchall()[0][0]
    connection.execute(sql.SQL("DROP TABLE {}").format(name))
    return int(count)
