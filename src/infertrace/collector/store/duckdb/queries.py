"""Queries of spans, statistics and resources in DuckDB."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from infertrace.collector.store.columns import COLUMNS
from infertrace.collector.store.duckdb.block_index import BlockIndex
from infertrace.collector.store.duckdb.dialect import DIALECT
from infertrace.collector.store.duckdb.engine_queries import engine_rows, step_columns
from infertrace.collector.store.duckdb.grouped_queries import foreign_tokens, grouped, ranked
from infertrace.collector.store.engine_filter import EngineFilter, StepColumn
from infertrace.collector.store.filter_sql import filter_condition
from infertrace.collector.store.grouping import GroupedQuery
from infertrace.collector.store.interval_quantiles import (
    intervals_sql,
    with_interval_quantiles,
    with_interval_values,
)
from infertrace.collector.store.keyed_filter import KeyedText
from infertrace.collector.store.metrics import (
    AGGREGATED_COLUMNS,
    EXPRESSIONS,
    FOREIGN_TOKENS,
    Metric,
    aggregate_sql,
    series_source,
)
from infertrace.collector.store.selection import Selection
from infertrace.collector.store.span_filter import Row, SpanFilter
from infertrace.collector.store.span_rows import SCHEMA
from infertrace.collector.store.store import (
    ModelStatistics,
    SeriesPoint,
    SqlError,
    with_foreign_tokens,
)

SPAN_NAMES = ", ".join(column.sql_name for column in COLUMNS)

_MODELS = """
    SELECT model_name, count(*), count(*) FILTER (status = 'ERROR'),
        quantile_cont(duration_nanos, [0.5, 0.95, 0.99]),
        sum(output_tokens) FILTER (kind IS NULL)::BIGINT,
        min(start_time), max(start_time + duration_nanos),
        quantile_cont(time_to_first_token_ms, [0.5, 0.95, 0.99]),
        quantile_cont({queue_wait_time_ms}, [0.5, 0.95, 0.99]),
        count(token_intervals), count(output_tokens) FILTER (kind IS NOT NULL)
    FROM {spans} WHERE {condition}
    GROUP BY model_name ORDER BY count(*) DESC, model_name LIMIT ?"""
_SERIES = """
    SELECT start_time // {step} * {step}, count(*), {value}
    FROM {spans} WHERE {condition}
    GROUP BY 1 ORDER BY 1"""
_QUANTILE = "quantile_cont({column}, {fraction})"


class DuckDBSnapshot:
    """Queries through one cursor; where it has begun a transaction, of one moment."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, blocks: BlockIndex) -> None:
        self._cursor = cursor
        self._blocks = blocks

    def applied_number(self) -> int:
        return int(self._rows("SELECT number FROM applied")[0][0])

    def spans(
        self, where: SpanFilter, limit: int, resource_ids: Collection[uuid.UUID] | None
    ) -> list[Row]:
        condition, values = _condition(where, resource_ids)
        if where.trace_id is not None:
            ranges = self._blocks.ranges(where.trace_id.bytes) or [(1, 0)]
            condition += " AND start_time BETWEEN ? AND ?"
            values += [ranges[0][0], ranges[-1][1]]
        # Find the oldest start time first: a narrow scan plus a bounded wide one beats one wide
        # scan.
        starts = self._rows(
            f"SELECT start_time FROM all_spans WHERE {condition} ORDER BY start_time DESC LIMIT ?",
            [*values, limit],
        )
        if not starts:
            return []
        return self._rows(
            f"SELECT {SPAN_NAMES} FROM all_spans WHERE {condition} AND start_time >= ? "
            "ORDER BY start_time DESC, trace_id DESC, span_id DESC LIMIT ?",
            [*values, starts[-1][0], limit],
        )

    def trace(self, trace_id: uuid.UUID, limit: int) -> list[Row]:
        return [
            row
            for first_ns, last_ns in self._blocks.ranges(trace_id.bytes)
            for row in self._rows(
                f"SELECT {SPAN_NAMES} FROM all_spans "
                "WHERE trace_id = ? AND start_time BETWEEN ? AND ? "
                "ORDER BY start_time, duration_nanos DESC, span_id LIMIT ?",
                [trace_id, first_ns, last_ns, limit],
            )
        ][:limit]

    def models(
        self, selection: Selection, limit: int, unapplied: Sequence[pa.RecordBatch]
    ) -> list[ModelStatistics]:
        condition, values = selection.condition("?")
        spans = self._with(unapplied)
        rows = self._rows(
            _MODELS.format(spans=spans, condition=condition, **EXPRESSIONS), [*values, limit]
        )
        models = [
            ModelStatistics(name, samples, errors, *durations, *others)
            for name, samples, errors, durations, *others, _, _ in rows
        ]
        if any(row[-2] for row in rows):
            intervals = intervals_sql("model_name", spans, condition)
            models = with_interval_quantiles(models, self._rows(intervals, values))
        if not any(row[-1] for row in rows):
            return models
        foreign = FOREIGN_TOKENS.format(spans=spans, condition=condition)
        return with_foreign_tokens(models, dict(self._rows(foreign, values)))

    def series(
        self,
        selection: Selection,
        metric: Metric,
        step_ns: int,
        unapplied: Sequence[pa.RecordBatch],
    ) -> list[SeriesPoint]:
        value = aggregate_sql(metric, step_ns, _QUANTILE)
        condition, values = selection.condition("?")
        source = self._with(unapplied)
        spans, condition, values = series_source(metric, source, condition, values)
        sql = _SERIES.format(step=int(step_ns), value=value, spans=spans, condition=condition)
        points = [SeriesPoint(*row) for row in self._rows(sql, values)]
        if metric.aggregate != "interval_quantile":
            return points
        step = f"start_time // {step_ns:d} * {step_ns:d}"
        intervals = self._rows(intervals_sql(step, spans, condition), values)
        return with_interval_values(points, intervals, metric)

    def engine_rows(
        self,
        where: EngineFilter,
        columns: Sequence[str],
        limit: int,
        is_sample: bool,
        unapplied: Sequence[pa.RecordBatch],
    ) -> list[Row]:
        return engine_rows(self._cursor, where, columns, limit, is_sample, unapplied)

    def step_columns(
        self, where: EngineFilter, length_ns: int, unapplied: Sequence[pa.RecordBatch]
    ) -> list[StepColumn]:
        return step_columns(self._cursor, where, length_ns, unapplied)

    def grouped(
        self,
        query: GroupedQuery,
        resource_ids: Collection[uuid.UUID] | None,
        unapplied: Sequence[pa.RecordBatch],
    ) -> list[list[tuple[Any, ...]]]:
        return grouped(self._cursor, query, resource_ids, unapplied)

    def foreign_tokens(
        self,
        where: SpanFilter,
        resource_ids: Collection[uuid.UUID] | None,
        unapplied: Sequence[pa.RecordBatch],
    ) -> dict[str, int]:
        return foreign_tokens(self._cursor, where, resource_ids, unapplied)

    def ranked(
        self,
        where: SpanFilter,
        measure: str,
        limit: int,
        resource_ids: Collection[uuid.UUID] | None,
        unapplied: Sequence[pa.RecordBatch],
    ) -> list[Row]:
        return ranked(self._cursor, where, measure, limit, resource_ids, unapplied)

    def sql(self, query: str, limit: int) -> pa.Table:
        try:
            statements = self._cursor.extract_statements(query)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise SqlError("expected one SELECT")
            # What exports and imports rows has set it otherwise.
            self._cursor.execute("SET SESSION arrow_lossless_conversion = false")
            # A SELECT may have parts that write; files and network are out of reach in any case.
            self._cursor.execute("BEGIN TRANSACTION READ ONLY")
            return self._cursor.sql(query).limit(limit).to_arrow_table()
        except duckdb.Error as error:
            raise SqlError(str(error)) from error

    def rows(self, since_ns: int, until_ns: int) -> Iterator[pa.RecordBatch]:
        self._cursor.execute("SET arrow_lossless_conversion = true")  # ids as bytes, not as text
        where = f"start_time >= {since_ns:d} AND start_time < {until_ns:d}"
        stored = self._cursor.sql(f"SELECT {SPAN_NAMES} FROM all_spans WHERE {where}")
        for rows in pa.RecordBatchReader.from_stream(stored):
            yield rows.cast(SCHEMA)

    def resources(self, ids: Collection[uuid.UUID]) -> dict[uuid.UUID, str]:
        sql = (
            "SELECT resource_id, attributes FROM resources "
            "WHERE resource_id IN (SELECT unnest(?::UUID[]))"
        )
        return dict(self._rows(sql, [list(ids)]))

    def resources_with(self, conditions: Sequence[KeyedText]) -> dict[uuid.UUID, str]:
        sql, values = [], []
        for condition in conditions:
            pieces = condition.pieces()
            found = DIALECT.contains.format(column="attributes")
            sql.append(f"({' OR '.join([found] * len(pieces))})")
            values += pieces
        query = f"SELECT resource_id, attributes FROM resources WHERE {' AND '.join(sql)}"
        return dict(self._rows(query, values))

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        rows: list[Any] = self._cursor.execute(sql, values).fetchall()
        return rows

    def _with(self, unapplied: Sequence[pa.RecordBatch]) -> str:
        """What to select statistics from: the table, and the rows that it does not have yet."""
        if not unapplied:
            return "all_spans"
        aggregated = [rows.select(AGGREGATED_COLUMNS) for rows in unapplied]
        self._cursor.register("unapplied", pa.Table.from_batches(aggregated))
        names = ", ".join(AGGREGATED_COLUMNS)
        return f"(SELECT {names} FROM all_spans UNION ALL SELECT {names} FROM unapplied)"


def _condition(
    where: SpanFilter, resource_ids: Collection[uuid.UUID] | None
) -> tuple[str, list[Any]]:
    """A filter in SQL, with the values of its placeholders."""
    condition, values = filter_condition(DIALECT, where, resource_ids)
    if (after := where.after) is not None:
        condition += (
            " AND start_time <= ? AND (start_time < ? OR (trace_id, span_id) < (?, ?::UBIGINT))"
        )
        values += [after.start_time_ns, after.start_time_ns, after.trace_id, after.span_id]
    return condition, values
