"""Counts, sums and orders of spans in DuckDB, with the rows that it does not have yet."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from infertrace.collector.store.columns import COLUMNS
from infertrace.collector.store.duckdb.dialect import DIALECT
from infertrace.collector.store.filter_sql import filter_condition, filtered_columns
from infertrace.collector.store.grouping import GroupedQuery
from infertrace.collector.store.measures import MEASURES
from infertrace.collector.store.metrics import FOREIGN_TOKENS
from infertrace.collector.store.span_filter import Row, SpanFilter

_TOKEN_COLUMNS = {"model_name", "trace_id", "service_name", "output_tokens", "kind"}


def grouped(
    cursor: duckdb.DuckDBPyConnection,
    query: GroupedQuery,
    resource_ids: Collection[uuid.UUID] | None,
    unapplied: Sequence[pa.RecordBatch],
) -> list[list[tuple[Any, ...]]]:
    """The groups of each list of keys."""
    source = _source(cursor, query.columns(), unapplied)
    sql, values = query.sql(DIALECT, "source", resource_ids)
    return query.fetched(cursor.execute(f"{source} {sql}", values))


def foreign_tokens(
    cursor: duckdb.DuckDBPyConnection,
    where: SpanFilter,
    resource_ids: Collection[uuid.UUID] | None,
    unapplied: Sequence[pa.RecordBatch],
) -> dict[str, int]:
    """The output tokens of spans that came as OTLP, each call once, by the model."""
    source = _source(cursor, _TOKEN_COLUMNS | filtered_columns(where), unapplied)
    condition, values = filter_condition(DIALECT, where, resource_ids, is_exact=True)
    sql = FOREIGN_TOKENS.format(spans="source", condition=condition)
    return dict(cursor.execute(f"{source} {sql}", values).fetchall())


def ranked(
    cursor: duckdb.DuckDBPyConnection,
    where: SpanFilter,
    measure: str,
    limit: int,
    resource_ids: Collection[uuid.UUID] | None,
    unapplied: Sequence[pa.RecordBatch],
) -> list[Row]:
    """At most `limit` spans with the largest values of a measure; those without it come last."""
    order = f"{MEASURES[measure].sql} DESC NULLS LAST, start_time DESC, trace_id DESC, span_id DESC"
    condition, values = filter_condition(DIALECT, where, resource_ids, is_exact=True)
    narrow = filtered_columns(where) | {"trace_id", "span_id", *MEASURES[measure].columns}
    source = _source(cursor, narrow, unapplied)
    # A narrow search for the ids first: DuckDB would otherwise sort all columns of all rows.
    found = cursor.execute(
        f"{source} SELECT trace_id, span_id FROM source WHERE {condition} ORDER BY {order} LIMIT ?",
        [*values, limit],
    ).fetchall()
    if not found:
        return []
    names = [column.name for column in COLUMNS]
    wide = _source(cursor, names, unapplied)
    rows: list[Row] = cursor.execute(
        f"{wide} SELECT {_quoted(names)} FROM source WHERE {condition} "
        "AND span_id IN (SELECT unnest(?::UBIGINT[])) "
        f"AND trace_id IN (SELECT unnest(?::UUID[])) ORDER BY {order} LIMIT ?",
        [*values, [span for _, span in found], [trace for trace, _ in found], limit],
    ).fetchall()
    return rows


def _source(
    cursor: duckdb.DuckDBPyConnection, columns: Iterable[str], unapplied: Sequence[pa.RecordBatch]
) -> str:
    """The name `source`, for the table and the rows that it does not have yet."""
    names = sorted(set(columns))
    shown = _quoted(names)
    if not unapplied:
        return f"WITH source AS NOT MATERIALIZED (SELECT {shown} FROM all_spans)"
    waiting = [rows.select(names) for rows in unapplied]
    cursor.register("unapplied", pa.Table.from_batches(waiting))
    # Copied first because DuckDB cannot push a filter on a UUID down into Arrow data.
    return (
        f"WITH waiting AS MATERIALIZED (SELECT {shown} FROM unapplied), "
        "source AS NOT MATERIALIZED "
        f"(SELECT {shown} FROM all_spans UNION ALL SELECT {shown} FROM waiting)"
    )


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
