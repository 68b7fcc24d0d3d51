"""Spans in PostgreSQL 14 or newer, which any number of collectors may share.

The table of spans is a hypertable of TimescaleDB, or partitioned by day (`schema.py` chooses). It
has a BRIN index on the start time and one unique B-tree on (trace id, span id, start time), which
finds traces and keeps duplicates out, whichever collector they reach. A span with the same ids and
another start time is found among the rows of the hour before and after.
"""

from __future__ import annotations

import logging
import math
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg_pool import ConnectionPool, PoolTimeout

from infertrace.collector.background_thread import BackgroundThread
from infertrace.collector.store import duplicates, ledger
from infertrace.collector.store.accounts import updated_accounts
from infertrace.collector.store.arrivals import Arrivals, arrival
from infertrace.collector.store.columns import COLUMNS
from infertrace.collector.store.duplicates import look_back, may_repeat, positions_by_batch
from infertrace.collector.store.engine_filter import (
    EVENLY,
    EngineFilter,
    StepColumn,
    step_column,
    step_columns_sql,
)
from infertrace.collector.store.filter_sql import filter_condition
from infertrace.collector.store.grouping import ColumnKey, GroupedQuery, TimeKey
from infertrace.collector.store.id_filters import add_rows, new_duplicate_filter
from infertrace.collector.store.interval_quantiles import (
    intervals_sql,
    with_interval_quantiles,
    with_interval_values,
)
from infertrace.collector.store.keyed_filter import KeyedText, are_in
from infertrace.collector.store.kinds import KINDS, ColumnKind, exact_float32
from infertrace.collector.store.ledger import Producer
from infertrace.collector.store.measures import MEASURES
from infertrace.collector.store.metrics import (
    EXPRESSIONS,
    FOREIGN_TOKENS,
    Metric,
    aggregate_sql,
    series_source,
)
from infertrace.collector.store.model_sums import ModelSums, model_sums
from infertrace.collector.store.postgres.copy_rows import copy_rows, escape, unescape
from infertrace.collector.store.postgres.dialect import DIALECT
from infertrace.collector.store.postgres.schema import ensure_schema
from infertrace.collector.store.postgres.span_table import (
    COLUMNS_SQL,
    NAMES,
    NANOS_PER_DAY,
    PAST_DAYS,
)
from infertrace.collector.store.postgres.time_slices import slices_sql
from infertrace.collector.store.producer_rows import (
    PRODUCER_COLUMNS,
    PRODUCER_NAMES,
    producer_row,
    producer_values,
)
from infertrace.collector.store.resource import KnownResources
from infertrace.collector.store.selection import Selection
from infertrace.collector.store.span_filter import COLUMN_INDEX, Row, SpanFilter, filtered_spans
from infertrace.collector.store.span_rows import SCHEMA, merged_rows, without
from infertrace.collector.store.store import (
    DEFAULT_QUERY_TIMEOUT_S,
    Arrival,
    Batch,
    ModelStatistics,
    QueryTimeoutError,
    Retention,
    SeriesPoint,
    SqlError,
    StoreError,
    with_foreign_tokens,
)
from infertrace.collector.store.timestamps import MAX_UNIX_NANOS
from infertrace.collector.store.value_counts import ValueCounts

NANOS_PER_MINUTE = 60_000_000_000
MAX_READERS = 8  # connections
CONNECT_TIMEOUT_S = 5
EXPORT_ROWS = 20_000  # at a time

_ID_OFFSET = 1 << 63  # bigint is signed: span ids are shifted, which keeps their order
_INCOMING = (
    f"CREATE TEMPORARY TABLE IF NOT EXISTS incoming ({COLUMNS_SQL}, position integer NOT NULL) "
    "ON COMMIT DELETE ROWS"
)
_INSERT_NEW = """
    INSERT INTO {table} ({names}) SELECT {names} FROM (
        SELECT DISTINCT ON (trace_id, span_id) * FROM incoming
        ORDER BY trace_id, span_id, position) AS firsts
    WHERE {condition} AND NOT EXISTS (
        SELECT FROM {source} AS known WHERE known.trace_id = firsts.trace_id
        AND known.span_id = firsts.span_id AND known.start_time BETWEEN %s AND %s)
    ON CONFLICT DO NOTHING RETURNING trace_id, span_id"""
_SAVE_PRODUCER = (
    f"INSERT INTO producers ({PRODUCER_NAMES}) "
    f"VALUES ({', '.join(['%s'] * len(PRODUCER_COLUMNS))}) ON CONFLICT (producer_id) DO UPDATE "
    f"SET {', '.join(f'{name} = excluded.{name}' for name in PRODUCER_COLUMNS[1:])}"
)
_SAVE_RESOURCE = (
    "INSERT INTO resources (resource_id, attributes) VALUES (%s, %s) ON CONFLICT DO NOTHING"
)
_FORGET_PRODUCERS = """
    DELETE FROM producers WHERE last_seen < (
        SELECT last_seen FROM producers ORDER BY last_seen DESC OFFSET %s LIMIT 1)"""
_MODELS = """
    SELECT model_name, count(*), count(*) FILTER (WHERE status = 'ERROR'),
        percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY duration_nanos),
        sum(output_tokens) FILTER (WHERE kind IS NULL)::bigint,
        min(start_time), max(start_time + duration_nanos),
        percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY time_to_first_token_ms),
        percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY {queue_wait_time_ms}),
        count(token_intervals), count(output_tokens) FILTER (WHERE kind IS NOT NULL)
    FROM {spans} WHERE {condition}
    GROUP BY model_name ORDER BY count(*) DESC, model_name LIMIT %s"""
_SERIES = """
    SELECT start_time / {step} * {step} AS step, count(*), {value}
    FROM {spans} WHERE {condition}
    GROUP BY 1 ORDER BY 1"""
_QUANTILE = "percentile_cont({fraction}) WITHIN GROUP (ORDER BY {column})"


class PostgresStore:
    """A store in the database at a `postgresql://` URL."""

    def __init__(self, url: str, query_timeout_s: float = DEFAULT_QUERY_TIMEOUT_S) -> None:
        self._url = url
        self._query_timeout_s = query_timeout_s
        self._writer: psycopg.Connection[Any] | None = None
        self._writing = threading.Lock()
        self._seen = new_duplicate_filter(duplicates.REMEMBERED_SPANS)
        self._seen.forget(time.time_ns())  # what is stored already is not remembered
        self._resources = KnownResources()
        self._arrivals = Arrivals()
        try:
            self._connected()
        except psycopg.Error as error:
            raise StoreError(f"cannot open the PostgreSQL database: {_reason(error)}") from error
        options = psycopg.conninfo.conninfo_to_dict(url).get("options") or ""
        self._readers = ConnectionPool(
            url,
            min_size=1,
            max_size=MAX_READERS,
            timeout=CONNECT_TIMEOUT_S,
            # With a longer one, pauses between attempts would exceed the time that a reader waits.
            reconnect_timeout=CONNECT_TIMEOUT_S,
            kwargs={
                "autocommit": True,
                "connect_timeout": CONNECT_TIMEOUT_S,
                # A prepared plan is for any time, so it would look at all days.
                "prepare_threshold": None,
                "options": f"{options} -c statement_timeout={math.ceil(query_timeout_s * 1000)}",
            },
            check=ConnectionPool.check_connection,
            name="infertrace",
            open=True,
        )
        # The pool would log a line for each attempt to reconnect.
        logging.getLogger("psycopg.pool").setLevel(logging.ERROR)

    @property
    def threads(self) -> Sequence[BackgroundThread]:
        return ()

    def describe(self) -> str:
        """The form of the table of spans, in a few words."""
        return self._table.describe()

    def _connected(self) -> psycopg.Connection[Any]:
        if self._writer is None or self._writer.closed or self._writer.broken:
            connection = psycopg.connect(self._url, connect_timeout=CONNECT_TIMEOUT_S)
            try:
                self._table = ensure_schema(connection)
                connection.execute(_INCOMING)
                connection.commit()
            except BaseException:
                connection.close()
                raise
            self._writer = connection
        return self._writer

    def commit(self, batches: Sequence[Batch]) -> int:
        with self._writing:
            is_old = self._writer is not None
            try:
                return self._commit(batches)
            except psycopg.Error as error:
                # After a restart of the server the old connection is gone: try once more. Spans
                # that the lost attempt did commit are recognised as duplicates.
                if not is_old or self._writer is not None:
                    raise StoreError(_reason(error)) from error
            try:
                return self._commit(batches)
            except psycopg.Error as error:
                raise StoreError(_reason(error)) from error

    def _commit(self, batches: Sequence[Batch]) -> int:
        try:
            connection = self._connected()
            with connection.transaction():
                accounts = self._lock_accounts(connection, batches)
                resources = self._resources.missing(
                    each for batch in batches for each in batch.resources
                )
                # In the same order in every collector, so that two cannot deadlock.
                for key in sorted(resources):
                    connection.execute(_SAVE_RESOURCE, [key, resources[key].attributes])
                repeated = self._insert(connection, batches, accounts)
                changed = updated_accounts(batches, repeated, accounts)
                _save_accounts(connection, changed, has_new=bool(changed.keys() - accounts.keys()))
        except BaseException:
            self._table.invalidate()
            if self._writer is not None and (self._writer.closed or self._writer.broken):
                with suppress(psycopg.Error):
                    self._writer.close()
                self._writer = None
            raise
        self._resources.add(resources)
        self._arrivals.add(
            [
                without(batch.rows, set(places))
                for batch, places in zip(batches, repeated, strict=True)
            ]
        )
        return sum(map(len, repeated))

    def _lock_accounts(
        self, connection: psycopg.Connection[Any], batches: Sequence[Batch]
    ) -> dict[bytes, Producer]:
        """The accounts of these producers; no other collector changes them until the commit.

        The server has room for some thousand locks, and one request may hold as many senders: those
        whose ids begin with the same byte share one.
        """
        numbered = {batch.producer.producer_id for batch in batches if batch.producer}
        others = {sender.sender_id for batch in batches for sender in batch.senders}
        if not numbered and not others:
            return {}
        keys = {int.from_bytes(producer_id[:8], "big", signed=True) for producer_id in numbered}
        keys |= {sender_id[0] for sender_id in others}
        # In the same order in every collector, so that two cannot deadlock.
        for key in sorted(keys):
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [key])
        ids = sorted(numbered | others)
        rows = connection.execute(
            f"SELECT {PRODUCER_NAMES} FROM producers WHERE producer_id = ANY(%s)", [ids]
        ).fetchall()
        return {row[0]: _producer(row) for row in rows}

    def _insert(
        self,
        connection: psycopg.Connection[Any],
        batches: Sequence[Batch],
        accounts: dict[bytes, Producer],
    ) -> list[list[int]]:
        """Insert what is not stored yet; returns the positions of the duplicates in each batch."""
        rows = [batch.rows for batch in batches]
        group = merged_rows(rows)
        if not len(group):
            return [[] for _ in rows]
        targets = self._table.targets(connection, group)
        seen = bool(add_rows(self._seen, group))
        first_start_ns = pc.min(group.column("start_time")).as_py()
        is_old = first_start_ns <= self._seen.forgotten_until_ns
        is_new = not seen and not (is_old and may_repeat(batches, accounts))
        if is_new and len(targets) == 1:
            # Another collector may have stored them nevertheless; the index tells.
            with suppress(psycopg.errors.UniqueViolation), connection.transaction():
                _copy(connection, f"{targets[0][0]} ({NAMES})", copy_rows(group))
                return [[] for _ in rows]
        _copy(connection, f"incoming ({NAMES}, position)", copy_rows(group, positions=True))
        bounds_ns = (0, MAX_UNIX_NANOS) if seen else look_back(group.column("start_time"))
        inserted = {
            (trace_id, span_id + _ID_OFFSET)
            for table, condition in targets
            for trace_id, span_id in connection.execute(
                _INSERT_NEW.format(
                    table=table, names=NAMES, condition=condition, source=self._table.source
                ),
                bounds_ns,
            ).fetchall()
        }
        if len(inserted) == len(group):
            return [[] for _ in rows]
        repeated = []
        ids = zip(
            group.column("trace_id").to_pylist(), group.column("span_id").to_pylist(), strict=True
        )
        for position, pair in enumerate(ids):
            if pair in inserted:
                inserted.remove(pair)  # a further span with the same ids is its duplicate
            else:
                repeated.append(position)
        return positions_by_batch(rows, repeated)

    @contextmanager
    def _reader(self) -> Iterator[psycopg.Connection[Any]]:
        try:
            with self._readers.connection() as connection:
                yield connection
        except psycopg.errors.QueryCanceled as error:
            raise QueryTimeoutError(self._query_timeout_s) from error
        except (psycopg.Error, PoolTimeout) as error:
            raise StoreError(_reason(error)) from error

    def spans(self, where: SpanFilter, limit: int) -> list[Row]:
        return filtered_spans(where, limit, self._spans, self._matching_resources)

    def _spans(
        self, where: SpanFilter, limit: int, resource_ids: Collection[uuid.UUID] | None
    ) -> list[Row]:
        # The times are those of each window.
        timeless = replace(where, since_ns=None, until_ns=None)
        condition, values = filter_condition(DIALECT, timeless, resource_ids)
        condition = f"start_time >= %s AND start_time < %s AND {condition}"
        until_ns = MAX_UNIX_NANOS if where.until_ns is None else where.until_ns
        if where.after is not None:
            after = where.after
            until_ns = min(until_ns, after.start_time_ns + 1)
            condition += " AND (start_time < %s OR (trace_id, span_id) < (%s, %s))"
            values += [after.start_time_ns, after.trace_id, after.span_id - _ID_OFFSET]
        found: list[Row] = []
        deadline = time.monotonic() + self._query_timeout_s
        with self._reader() as connection:
            for first, end in _windows(where.since_ns or 0, until_ns, where.trace_id is not None):
                found += connection.execute(
                    f"SELECT {NAMES} FROM {self._table.source} WHERE {condition} "
                    "ORDER BY start_time DESC, trace_id DESC, span_id DESC LIMIT %s",
                    [first, end, *values, limit - len(found)],
                ).fetchall()
                if len(found) >= limit:
                    break
                if time.monotonic() >= deadline:
                    raise QueryTimeoutError(self._query_timeout_s)
        return [_row(row) for row in found]

    def trace(self, trace_id: uuid.UUID, limit: int) -> list[Row]:
        with self._reader() as connection:
            rows = connection.execute(
                f"SELECT {NAMES} FROM {self._table.source} WHERE trace_id = %s "
                "ORDER BY start_time, duration_nanos DESC, span_id LIMIT %s",
                [trace_id, limit],
            ).fetchall()
        return [_row(row) for row in rows]

    def models(self, selection: Selection, limit: int) -> list[ModelStatistics]:
        condition, values = selection.condition("%s", escape)
        with self._reader() as connection:
            query = _MODELS.format(spans=self._table.source, condition=condition, **EXPRESSIONS)
            rows = connection.execute(query, [*values, limit]).fetchall()
            foreign = FOREIGN_TOKENS.format(spans=self._table.source, condition=condition)
            has_foreign = any(row[-1] for row in rows)
            tokens = connection.execute(foreign, values).fetchall() if has_foreign else []
            intervals = []
            if any(row[-2] for row in rows):
                sql = intervals_sql("model_name", self._table.source, condition)
                intervals = connection.execute(sql, values).fetchall()
        models = [
            ModelStatistics(unescape(name), samples, errors, *durations, *others)
            for name, samples, errors, durations, *others, _, _ in rows
        ]
        models = with_interval_quantiles(
            models, ((unescape(name), messages) for name, messages in intervals)
        )
        return with_foreign_tokens(models, {unescape(name): count for name, count in tokens})

    def series(self, selection: Selection, metric: Metric, step_ns: int) -> list[SeriesPoint]:
        value = aggregate_sql(metric, step_ns, _QUANTILE)
        condition, values = selection.condition("%s", escape)
        source = self._table.source
        spans, condition, values = series_source(metric, source, condition, values)
        query = _SERIES.format(spans=spans, step=int(step_ns), value=value, condition=condition)
        with self._reader() as connection:
            points = [SeriesPoint(*row) for row in connection.execute(query, values).fetchall()]
            if metric.aggregate != "interval_quantile":
                return points
            step = f"start_time / {step_ns:d} * {step_ns:d}"
            intervals = connection.execute(intervals_sql(step, spans, condition), values).fetchall()
        return with_interval_values(points, intervals, metric)

    def engine_rows(
        self, where: EngineFilter, columns: Sequence[str], limit: int, *, is_sample: bool = False
    ) -> list[Row]:
        condition, values = where.condition("%s", escape)
        names = ", ".join(f'"{name}"' for name in columns)
        order = EVENLY if is_sample else "start_time, span_id"
        query = f"SELECT {names} FROM {self._table.source} WHERE {{}} ORDER BY {order} LIMIT %s"
        rows: list[Row] = []
        with self._reader() as connection:
            if is_sample:
                few = f"{condition} AND {slices_sql(where.since_ns, where.until_ns)}"
                rows = connection.execute(query.format(few), [*values, limit]).fetchall()
            if len(rows) < limit:
                rows = connection.execute(query.format(condition), [*values, limit]).fetchall()
        conversions = [_CONVERSIONS[COLUMN_INDEX[name]] for name in columns]
        return [_converted(row, conversions) for row in rows]

    def step_columns(self, where: EngineFilter, length_ns: int) -> list[StepColumn]:
        condition, values = where.condition("%s", escape)
        floor = f"(start_time - {where.since_ns:d}) / {length_ns:d}"
        with self._reader() as connection:
            rows = connection.execute(
                step_columns_sql(floor, self._table.source, condition), values
            ).fetchall()
        return [step_column(row, where.since_ns, length_ns) for row in rows]

    def grouped(self, query: GroupedQuery) -> list[list[tuple[Any, ...]]]:
        resource_ids = self._chosen_resources(query.where)
        with self._reader() as connection:
            statement = query.sql(DIALECT, self._table.source, resource_ids)
            lists = query.fetched(connection.execute(*statement))
        found = []
        for keys, groups in zip(query.groupings, lists, strict=True):
            conversions = [
                _CONVERSIONS[COLUMN_INDEX[key.name]] if isinstance(key, ColumnKey) else None
                for key in keys
            ]
            conversions += [None] * (1 + len(query.aggregates))
            found.append([_converted(group, conversions) for group in groups])
        return found

    def model_sums(self, where: SpanFilter, parts: TimeKey) -> Mapping[str, ModelSums]:
        return model_sums(self.grouped, where, parts).get(0, {})

    def value_counts(self, where: SpanFilter) -> tuple[tuple[int, int], ValueCounts] | None:
        return None  # other collectors write to it as well

    def foreign_tokens(self, where: SpanFilter) -> dict[str, int]:
        condition, values = filter_condition(
            DIALECT, where, self._chosen_resources(where), is_exact=True
        )
        query = FOREIGN_TOKENS.format(spans=self._table.source, condition=condition)
        with self._reader() as connection:
            rows = connection.execute(query, values).fetchall()
        return {unescape(name): count for name, count in rows}

    def ranked(self, where: SpanFilter, measure: str, limit: int) -> list[Row]:
        condition, values = filter_condition(
            DIALECT, where, self._chosen_resources(where), is_exact=True
        )
        with self._reader() as connection:
            rows = connection.execute(
                f"SELECT {NAMES} FROM {self._table.source} WHERE {condition} "
                f"ORDER BY {MEASURES[measure].sql} DESC NULLS LAST, start_time DESC, "
                "trace_id DESC, span_id DESC LIMIT %s",
                [*values, limit],
            ).fetchall()
        return [_row(row) for row in rows]

    def listen(self, listener: Callable[[Sequence[pa.RecordBatch]], None]) -> None:
        self._arrivals.listen(listener)

    def sql(self, query: str, limit: int) -> pa.Table:
        # A role that may read files, as that of an administrator, could do so within a SELECT.
        raise SqlError("PostgreSQL answers SQL itself, to psql and every other client of it")

    def arrived(self, after: int | None, where: SpanFilter, limit: int) -> Arrival:
        return arrival(self._arrivals.after(after), where, limit, self._chosen_resources(where))

    def rows(self, since_ns: int, until_ns: int) -> Iterator[pa.RecordBatch]:
        with (
            self._reader() as connection,
            connection.transaction(),
            connection.cursor(name="infertrace_rows") as cursor,
        ):
            connection.execute("SET LOCAL statement_timeout = 0")
            cursor.execute(
                f"SELECT {NAMES} FROM {self._table.source} "
                "WHERE start_time >= %s AND start_time < %s",
                [since_ns, until_ns],
            )
            while found := cursor.fetchmany(EXPORT_ROWS):
                yield _batch([_row(row) for row in found])

    def _chosen_resources(self, where: SpanFilter) -> list[uuid.UUID] | None:
        return self._matching_resources(where.resource) if where.resource else None

    def _matching_resources(self, conditions: Sequence[KeyedText]) -> list[uuid.UUID]:
        sql, values = [], []
        for condition in conditions:
            pieces = condition.pieces()
            sql.append(f"({' OR '.join(['strpos(attributes, %s) > 0'] * len(pieces))})")
            values += pieces
        with self._reader() as connection:
            rows = connection.execute(
                f"SELECT resource_id, attributes FROM resources WHERE {' AND '.join(sql)}", values
            ).fetchall()
        return [key for key, attributes in rows if are_in(conditions, attributes)]

    def resources(self, ids: Collection[uuid.UUID]) -> dict[uuid.UUID, str]:
        with self._reader() as connection:
            rows = connection.execute(
                "SELECT resource_id, attributes FROM resources WHERE resource_id = ANY(%s)",
                [list(ids)],
            ).fetchall()
        return dict(rows)

    def producers(self, limit: int) -> list[Producer]:
        with self._reader() as connection:
            rows = connection.execute(
                f"SELECT {PRODUCER_NAMES} FROM producers "
                "ORDER BY last_seen DESC, producer_id LIMIT %s",
                [limit],
            ).fetchall()
        return [_producer(row) for row in rows]

    def retain(self, retention: Retention) -> int:
        with self._reader() as connection, connection.transaction():
            # It may be a lot to delete, and no request waits for it.
            connection.execute("SET LOCAL statement_timeout = 0")
            return self._table.retain(connection, retention)

    def check(self) -> None:
        with self._reader() as connection:
            connection.execute("SELECT FROM spans LIMIT 0")

    def checkpoint(self) -> None:
        """The server checkpoints by itself."""

    def close(self) -> None:
        self._readers.close()
        if self._writer is not None:
            self._writer.close()


def _copy(connection: psycopg.Connection[Any], table: str, rows: bytes) -> None:
    with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY {table} FROM STDIN (FORMAT BINARY)") as copy,
    ):
        copy.write(rows)


def _save_accounts(
    connection: psycopg.Connection[Any], accounts: Mapping[bytes, Producer], *, has_new: bool
) -> None:
    for producer in accounts.values():
        row = producer_row(producer, service_name=escape(producer.service_name))
        connection.execute(_SAVE_PRODUCER, row)
    if has_new:
        connection.execute(_FORGET_PRODUCERS, [ledger.MAX_PRODUCERS - 1])


def _windows(since_ns: int, until_ns: int, whole: bool) -> Iterator[tuple[int, int]]:
    """Times to search one after another, the latest first, each longer than the one before.

    A BRIN index finds the rows of a time, but not the newest rows.
    """
    length_ns, end_ns = NANOS_PER_MINUTE, until_ns
    first_ns = min(until_ns, time.time_ns()) - length_ns
    while not whole and first_ns > since_ns and length_ns < PAST_DAYS * NANOS_PER_DAY:
        yield first_ns, end_ns
        end_ns, length_ns = first_ns, length_ns * 8
        first_ns = end_ns - length_ns
    yield since_ns, end_ns


def _row(row: Row) -> Row:
    return _converted(row, _CONVERSIONS)


def _converted(row: Row, conversions: Sequence[Callable[[Any], Any] | None]) -> Row:
    return tuple(
        value if value is None or convert is None else convert(value)
        for convert, value in zip(conversions, row, strict=True)
    )


def _unsigned(span_id: int) -> int:
    return span_id + _ID_OFFSET


def _conversion(kind: ColumnKind) -> Callable[[Any], Any] | None:
    if kind.is_unsigned:
        return _unsigned
    if kind.arrow == pa.float32():
        return exact_float32
    return unescape if pa.types.is_string(kind.arrow) else None


_CONVERSIONS = [_conversion(KINDS[column.kind]) for column in COLUMNS]


def _batch(rows: Sequence[Row]) -> pa.RecordBatch:
    columns = []
    for field, values in zip(SCHEMA, zip(*rows, strict=True), strict=True):
        if isinstance(field.type, pa.UuidType):
            present = [None if value is None else value.bytes for value in values]
            ids = pa.array(present, type=pa.binary(16))
            columns.append(pa.ExtensionArray.from_storage(field.type, ids))
        else:
            columns.append(pa.array(values, type=field.type))
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _producer(row: Sequence[Any]) -> Producer:
    values = producer_values(row)
    values["producer_id"] = bytes(values["producer_id"])
    values["service_name"] = unescape(values["service_name"])
    for name in ("produced", "stored", "rejected", "duplicates"):
        values[name] = int(values[name])
    return Producer(**values)


def _reason(error: Exception) -> str:
    """The error in one line; psycopg names host and user in it, but no password."""
    return " ".join(str(error).split()) or type(error).__name__
