"""Queries of steps and of requests in DuckDB, which read few columns of few rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from infertrace.collector.store.engine_filter import (
    EVENLY,
    FILTERED_COLUMNS,
    STEP_COLUMN_COLUMNS,
    EngineFilter,
    StepColumn,
    step_column,
    step_columns_sql,
)
from infertrace.collector.store.span_filter import Row


def engine_rows(
    cursor: duckdb.DuckDBPyConnection,
    where: EngineFilter,
    columns: Sequence[str],
    limit: int,
    is_sample: bool,
    unapplied: Sequence[pa.RecordBatch],
) -> list[Row]:
    """These columns of steps or requests, in start order; of a sample, in no order."""
    condition, values = where.condition("?")
    spans = _spans(cursor, where, (*columns, *FILTERED_COLUMNS), unapplied)
    order = EVENLY if is_sample else "start_time, span_id"
    names = ", ".join(_quoted(columns))
    rows: list[Row] = cursor.execute(
        f"{spans} SELECT {names} FROM source WHERE {condition} ORDER BY {order} LIMIT ?",
        [*values, limit],
    ).fetchall()
    return rows


def step_columns(
    cursor: duckdb.DuckDBPyConnection,
    where: EngineFilter,
    length_ns: int,
    unapplied: Sequence[pa.RecordBatch],
) -> list[StepColumn]:
    """The steps summed up in parts of the time, each so long."""
    condition, values = where.condition("?")
    spans = _spans(cursor, where, (*STEP_COLUMN_COLUMNS, *FILTERED_COLUMNS), unapplied)
    floor = f"(start_time - {where.since_ns:d}) // {length_ns:d}"
    sql = f"{spans} {step_columns_sql(floor, 'source', condition)}"
    rows = cursor.execute(sql, values).fetchall()
    return [step_column(row, where.since_ns, length_ns) for row in rows]


def _spans(
    cursor: duckdb.DuckDBPyConnection,
    where: EngineFilter,
    columns: Iterable[str],
    unapplied: Sequence[pa.RecordBatch],
) -> str:
    """The name `source`, for the table and the rows that it does not have yet."""
    names = list(dict.fromkeys(columns))
    shown = ", ".join(_quoted(names))
    waiting = [rows for given in unapplied if len(rows := _of_the_time(given.select(names), where))]
    if not waiting:
        return f"WITH source AS (SELECT {shown} FROM all_spans)"
    cursor.register("unapplied", pa.Table.from_batches(waiting))
    # Copied first because DuckDB 1.4 cannot push a filter on a UUID down into Arrow data.
    return (
        f"WITH waiting AS MATERIALIZED (SELECT {shown} FROM unapplied), "
        f"source AS (SELECT {shown} FROM all_spans UNION ALL SELECT {shown} FROM waiting)"
    )


def _of_the_time(rows: pa.RecordBatch, where: EngineFilter) -> pa.RecordBatch:
    """The steps, or what may be requests, that start in the time: few of all that came just now."""
    starts = rows.column("start_time")
    bounds = pc.min_max(starts).as_py()
    if bounds["max"] < where.since_ns or bounds["min"] >= where.until_ns:
        return rows.slice(0, 0)
    is_step = pc.is_valid(rows.column("step_index"))
    is_inside = pc.and_(pc.greater_equal(starts, where.since_ns), pc.less(starts, where.until_ns))
    return rows.filter(pc.and_(is_inside, is_step if where.kind == "step" else pc.invert(is_step)))


def _quoted(names: Iterable[str]) -> list[str]:
    return [f'"{name}"' for name in names]
