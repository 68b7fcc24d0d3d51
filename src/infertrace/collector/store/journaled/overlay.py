"""Evaluates span filters on rows that are not in the database yet."""

from __future__ import annotations

import heapq
import uuid
from collections.abc import Collection, Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from infertrace.collector.store.row_filter import matching_positions
from infertrace.collector.store.span_filter import COLUMN_INDEX, Row, SpanFilter

_TRACE_ID, _SPAN_ID, _START_TIME, _DURATION = (
    COLUMN_INDEX[name] for name in ("trace_id", "span_id", "start_time", "duration_nanos")
)


def matching_rows(
    batches: Sequence[pa.RecordBatch],
    where: SpanFilter,
    limit: int | None = None,
    resource_ids: Collection[uuid.UUID] | None = None,
) -> list[Row]:
    """The rows that a filter lets pass; with a limit, at least the newest `limit` of them.

    Of conditions on keys, a row has to hold one of their pieces. `resource_ids` are the ids of the
    resources to choose from, None for all.
    """
    if not batches:
        return []
    table = pa.Table.from_batches(batches)
    after = where.after
    # Positions first: only the rows of the answer are copied, with their many columns.
    positions = matching_positions(table, where, resource_ids)
    if limit is not None and len(positions) > limit:
        start_times = table.column("start_time").take(positions)
        newest = _newest(start_times, limit, None if after is None else after.start_time_ns)
        positions = positions.filter(newest)
    table = table.take(positions)
    rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    if after is None:
        return rows
    bound = (after.start_time_ns, after.trace_id, after.span_id)
    return [row for row in rows if _age(row) < bound]


def newest_first(stored: Iterable[Row], recent: Iterable[Row], limit: int) -> list[Row]:
    """The first `limit` of both, in the order of answers."""
    if not recent:
        return list(stored)
    return heapq.nlargest(limit, [*stored, *recent], key=_age)


def trace_order(stored: Iterable[Row], recent: Iterable[Row], limit: int) -> list[Row]:
    """The first `limit` of both, in the order of a trace."""
    if not recent:
        return list(stored)
    return heapq.nsmallest(
        limit,
        [*stored, *recent],
        key=lambda row: (row[_START_TIME], -row[_DURATION], row[_SPAN_ID]),
    )


def started_between(rows: pa.RecordBatch, since_ns: int, until_ns: int) -> pa.RecordBatch:
    """The rows that start in a time; `since_ns` is included, `until_ns` is not."""
    start = rows.column("start_time")
    return rows.filter(pc.and_(pc.greater_equal(start, since_ns), pc.less(start, until_ns)))


def _age(row: Row) -> tuple[int, uuid.UUID, int]:
    return row[_START_TIME], row[_TRACE_ID], row[_SPAN_ID]


def _newest(start_times: pa.ChunkedArray, limit: int, boundary: int | None) -> pa.ChunkedArray:
    """Which are among the newest `limit`, or start at the boundary itself."""
    inside = start_times
    if boundary is not None:
        inside = start_times.filter(pc.less(start_times, boundary))
    if len(inside) <= limit:
        return pc.greater_equal(start_times, 0)
    kept = pc.select_k_unstable(inside, limit, [("start_time", "descending")])
    return pc.greater_equal(start_times, pc.min(inside.take(kept)))
