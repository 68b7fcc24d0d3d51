"""Spans in a hypertable of TimescaleDB: a chunk for each day, compressed when it is over.

https://github.com/timescale/timescaledb, 2.11 or newer; compression and policies are part of its
community edition, and without them the hypertable is one all the same.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import psycopg
import pyarrow as pa
from psycopg import sql

from infertrace.collector.store.columns import COLUMNS, Column
from infertrace.collector.store.postgres.span_table import (
    COLUMNS_SQL,
    FUTURE_DAYS,
    NANOS_PER_DAY,
    PAST_DAYS,
    Connection,
    Target,
    column_sql,
    days_of,
    present_columns,
)
from infertrace.collector.store.store import Retention

COMPRESS_AFTER_DAYS = 1  # after a chunk's end; rows that arrive later can still be inserted
_RETAIN_LOCK = 0x696E6667  # collectors delete one after another; the number is arbitrary

_log = logging.getLogger(__name__)


def _view(columns: Sequence[str]) -> str:
    names = ", ".join(f'"{column}"' for column in columns)
    return (
        f"CREATE OR REPLACE VIEW all_spans AS "
        f"SELECT {names} FROM spans UNION ALL SELECT {names} FROM spans_other"
    )


_CREATE = (
    f"CREATE TABLE spans ({COLUMNS_SQL})",
    "CREATE UNIQUE INDEX spans_ids ON spans (trace_id, span_id, start_time)",
    "CREATE INDEX spans_time ON spans USING brin (start_time) WITH (pages_per_range = 16)",
    "SELECT create_hypertable('spans', 'start_time', "
    f"chunk_time_interval => {NANOS_PER_DAY}, create_default_indexes => false)",
    # A wrong clock reports days centuries away, for each of which a hypertable would make a chunk.
    "CREATE TABLE spans_other (LIKE spans INCLUDING ALL)",
    _view([column.name for column in COLUMNS]),
    "CREATE FUNCTION infertrace_now() RETURNS bigint LANGUAGE sql STABLE AS "
    "$$ SELECT (extract(epoch FROM now()) * 1000000000)::bigint $$",
    "SELECT set_integer_now_func('spans', 'infertrace_now')",
)
_COMPRESS = (
    "ALTER TABLE spans SET (timescaledb.compress, "
    "timescaledb.compress_segmentby = 'model_name', "
    "timescaledb.compress_orderby = 'start_time DESC')",
    "SELECT add_compression_policy('spans', "
    f"compress_after => {COMPRESS_AFTER_DAYS * NANOS_PER_DAY}::bigint)",
)
_RETENTION_POLICY = """
    SELECT (config ->> 'drop_after')::bigint FROM timescaledb_information.jobs
    WHERE hypertable_name = 'spans' AND proc_name = 'policy_retention'"""
_CHUNKS = """
    SELECT format('%I.%I', chunk_schema, chunk_name), range_start_integer, range_end_integer,
        is_compressed, total_bytes
    FROM timescaledb_information.chunks JOIN chunks_detailed_size('spans')
        USING (chunk_schema, chunk_name)
    WHERE hypertable_name = 'spans' ORDER BY range_start_integer"""


class Hypertable:
    """The hypertable, and a plain table for the days too far away."""

    source = "all_spans"

    def __init__(self, version: str) -> None:
        self._version = version

    def describe(self) -> str:
        return f"TimescaleDB {self._version}"

    def create(self, connection: Connection) -> None:
        for statement in _CREATE:
            connection.execute(statement)
        try:
            with connection.transaction():
                # Silences a harmless warning, that the ids do not order the compressed rows.
                connection.execute("SET LOCAL client_min_messages = error")
                for statement in _COMPRESS:
                    connection.execute(statement)
        except psycopg.errors.FeatureNotSupported as error:
            _log.warning("spans are not compressed: %s", str(error).partition("\n")[0])

    def add_columns(self, connection: Connection, columns: Sequence[Column]) -> None:
        for table in ("spans", "spans_other"):
            for column in columns:
                connection.execute(f"ALTER TABLE {table} ADD COLUMN {column_sql(column)}")
        # Replacing a view, PostgreSQL accepts new columns at its end only.
        present = present_columns(connection, self.source)
        connection.execute(_view([*present, *(column.name for column in columns)]))

    def targets(self, connection: Connection, rows: pa.RecordBatch) -> Sequence[Target]:
        today = time.time_ns() // NANOS_PER_DAY
        first, last = today - PAST_DAYS, today + FUTURE_DAYS
        inside = f"start_time BETWEEN {first * NANOS_PER_DAY} AND {(last + 1) * NANOS_PER_DAY - 1}"
        near = [first <= day <= last for day in days_of(rows)]
        found = [("spans", inside)] if any(near) else []
        return found if all(near) else [*found, ("spans_other", f"NOT ({inside})")]

    def invalidate(self) -> None:
        """Nothing is cached: a hypertable makes its chunks itself."""

    def retain(self, connection: Connection, retention: Retention) -> int:
        """Drop whole days; delete single rows of a day only until it is compressed.

        The age also becomes a policy of the hypertable, which holds while no collector runs.
        """
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [_RETAIN_LOCK])
        _set_policy(connection, retention.max_age_ns)
        deleted = 0
        if retention.max_age_ns is not None:
            bound_ns = time.time_ns() - retention.max_age_ns
            for name, first, end, is_compressed, _ in connection.execute(_CHUNKS).fetchall():
                if end <= bound_ns:
                    deleted += _drop(connection, name, first, end)
                elif first < bound_ns and not is_compressed:
                    deleted += connection.execute(
                        "DELETE FROM spans WHERE start_time >= %s AND start_time < %s",
                        [first, bound_ns],
                    ).rowcount
            deleted += connection.execute(
                "DELETE FROM spans_other WHERE start_time < %s", [bound_ns]
            ).rowcount
        if retention.max_bytes is not None:
            today = time.time_ns() // NANOS_PER_DAY * NANOS_PER_DAY
            chunks = connection.execute(_CHUNKS).fetchall()
            total = sum(chunk[-1] for chunk in chunks)
            for name, first, end, _, size in chunks:
                if first >= today or total <= retention.max_bytes:
                    break
                deleted += _drop(connection, name, first, end)
                total -= size
        return deleted


def _set_policy(connection: Connection, max_age_ns: int | None) -> None:
    found = connection.execute(_RETENTION_POLICY).fetchall()
    if found == ([] if max_age_ns is None else [(max_age_ns,)]):
        return
    try:
        with connection.transaction():
            connection.execute("SELECT remove_retention_policy('spans', if_exists => true)")
            if max_age_ns is not None:
                connection.execute(
                    "SELECT add_retention_policy('spans', drop_after => %s::bigint)", [max_age_ns]
                )
    except psycopg.errors.FeatureNotSupported:
        return  # this edition has no policies; the collector deletes


def _drop(connection: Connection, chunk: str, first_ns: int, end_ns: int) -> int:
    name = sql.SQL(chunk)  # quoted by the server
    count = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(name)).fetchall()[0][0]
    connection.execute(
        "SELECT drop_chunks('spans', older_than => %s::bigint, newer_than => %s::bigint)",
        [end_ns, first_ns],
    )
    return int(count)
