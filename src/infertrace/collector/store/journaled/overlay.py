"""Questions to rows that are in memory, as the database answers them of its own."""

from __future__ import annotations

import heapq
import uuid
from collections.abc import Collection, Iterable, Sequence
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from infertrace.collector.store.columns import COLUMNS
from infertrace.collector.store.store import SpanFilter

Row = tuple[Any, ...]

_PLACE = {column.name: place for place, column in enumerate(COLUMNS)}
_TRACE_ID, _SPAN_ID, _START_TIME, _DURATION = (
    _PLACE[name] for name in ("trace_id", "span_id", "start_time", "duration_nanos")
)


def matching_rows(
    batches: Sequence[pa.RecordBatch],
    where: SpanFilter,
    limit: int | None = None,
    resource_ids: Collection[uuid.UUID] | None = None,
) -> list[Row]:
    """The rows that a filter lets pass; with a limit, at least the newest so many of them.

    Of conditions on keys they have the pieces. `resource_ids` are those of the resources that the
    filter lets pass, None all of them.
    """
    if not batches:
        return []
    table = pa.Table.from_batches(batches)
    conditions = list(_conditions(table, where, resource_ids))
    after = where.after
    # Positions first, and of the many columns only what is answered.
    if conditions:
        positions = pc.indices_nonzero(reduce(pc.and_, conditions))
    else:
        positions = pa.array(range(len(table)), type=pa.uint64())
    if limit is not None and len(positions) > limit:
        start_times = table.column("start_time").take(positions)
        newest = _newest(start_times, limit, None if after is None else after.start_time)
        positions = positions.filter(newest)
    table = table.take(positions)
    rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    if after is None:
        return rows
    bound = (after.start_time, after.trace_id, after.span_id)
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


def _age(row: Row) -> tuple[int, uuid.UUID, int]:
    return row[_START_TIME], row[_TRACE_ID], row[_SPAN_ID]


def _conditions(
    table: pa.Table, where: SpanFilter, resource_ids: Collection[uuid.UUID] | None
) -> Iterable[Any]:
    equal = {
        "model_name": where.model,
        "service_name": where.service,
        "operation_name": where.operation,
        "status": where.status,
    }
    for name, wanted in equal.items():
        if wanted is not None:
            yield pc.fill_null(pc.equal(table.column(name), wanted), False)
    if where.trace_id is not None:
        wanted = pa.scalar(where.trace_id.bytes, type=pa.binary(16))
        yield pc.equal(_bytes(table.column("trace_id")), wanted)
    if resource_ids is not None:
        allowed = pa.array([key.bytes for key in resource_ids], type=pa.binary(16))
        yield pc.is_in(_bytes(table.column("resource_id")), value_set=allowed)
    for name, pieces in where.pieces():
        column = table.column(name)
        found = reduce(pc.or_, [pc.match_substring(column, piece) for piece in pieces])
        yield pc.fill_null(found, False)
    start_time = table.column("start_time")
    if where.since is not None:
        yield pc.greater_equal(start_time, where.since)
    if where.until is not None:
        yield pc.less(start_time, where.until)
    if where.min_duration is not None:
        yield pc.greater_equal(table.column("duration_nanos"), where.min_duration)
    if where.after is not None:
        yield pc.less_equal(start_time, where.after.start_time)


def _bytes(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pa.chunked_array([chunk.storage for chunk in column.chunks], type=pa.binary(16))


def _newest(start_times: pa.ChunkedArray, limit: int, boundary: int | None) -> pa.ChunkedArray:
    """Which are among the newest `limit`, or start at the boundary itself."""
    inside = start_times
    if boundary is not None:
        inside = start_times.filter(pc.less(start_times, boundary))
    if len(inside) <= limit:
        return pc.greater_equal(start_times, 0)
    kept = pc.select_k_unstable(inside, limit, [("start_time", "descending")])
    return pc.greater_equal(start_times, pc.min(inside.take(kept)))
