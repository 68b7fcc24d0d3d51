"""Evaluates span filters on rows in memory, without a database."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from infertrace.collector.store.measures import MEASURES
from infertrace.collector.store.selection import PARENT_IS_REMOTE
from infertrace.collector.store.span_filter import SpanFilter


def matching_positions(
    table: pa.Table, where: SpanFilter, resource_ids: Collection[uuid.UUID] | None
) -> pa.Array:
    """Where the rows lie that a filter lets pass.

    Of conditions on keys, a row has to hold one of their pieces. `resource_ids` are the ids of the
    resources to choose from, None for all. Rows that start when `after` does are let pass.
    """
    conditions = list(_conditions(table, where, resource_ids))
    if not conditions:
        return pa.array(range(len(table)), type=pa.uint64())
    return pc.indices_nonzero(reduce(pc.and_, conditions))


def _conditions(
    table: pa.Table, where: SpanFilter, resource_ids: Collection[uuid.UUID] | None
) -> Iterable[Any]:
    for name, wanted in where.equal_texts.items():
        yield pc.fill_null(pc.equal(table.column(name), wanted), False)
    if where.trace_id is not None:
        wanted = pa.scalar(where.trace_id.bytes, type=pa.binary(16))
        yield pc.equal(_bytes(table.column("trace_id")), wanted)
    if where.producer_id is not None:
        wanted = pa.scalar(where.producer_id.bytes, type=pa.binary(16))
        yield pc.fill_null(pc.equal(_bytes(table.column("producer_id")), wanted), False)
    for given in where.ranges:
        first, *others = (table.column(name) for name in MEASURES[given.measure].columns)
        number = pc.cast(pc.coalesce(first, *others), pa.float64(), safe=False)
        for sign, bound in given.bounds():
            compare = pc.greater_equal if sign == ">=" else pc.less_equal
            yield pc.fill_null(compare(number, pa.scalar(float(bound), pa.float64())), False)
    if where.is_request:
        yield from _requests(table)
    if resource_ids is not None:
        allowed = pa.array([key.bytes for key in resource_ids], type=pa.binary(16))
        yield pc.is_in(_bytes(table.column("resource_id")), value_set=allowed)
    for name, pieces in where.pieces():
        column = table.column(name)
        found = reduce(pc.or_, [pc.match_substring(column, piece) for piece in pieces])
        yield pc.fill_null(found, False)
    for condition in where.anywhere:
        matches = [
            pc.fill_null(pc.match_substring(table.column(name), piece), False)
            for name in ("tags", "attributes")
            for piece in condition.pieces()
        ]
        yield reduce(pc.or_, matches)
    start_time = table.column("start_time")
    if where.since_ns is not None:
        yield pc.greater_equal(start_time, where.since_ns)
    if where.until_ns is not None:
        yield pc.less(start_time, where.until_ns)
    if where.min_duration_ns is not None:
        yield pc.greater_equal(table.column("duration_nanos"), where.min_duration_ns)
    if where.after is not None:
        yield pc.less_equal(start_time, where.after.start_time_ns)


def _requests(table: pa.Table) -> Iterable[Any]:
    """The conditions of MODEL_REQUEST."""
    yield pc.is_valid(table.column("model_name"))
    yield pc.is_null(table.column("step_index"))
    is_root = pc.is_null(table.column("parent_span_id"))
    flags = pc.fill_null(pc.cast(table.column("flags"), pa.int64()), 0)
    is_remote = pc.not_equal(pc.bit_wise_and(flags, PARENT_IS_REMOTE), 0)
    is_call = pc.and_(pc.is_valid(table.column("kind")), pc.is_valid(table.column("output_tokens")))
    yield pc.or_(pc.or_(is_root, is_remote), is_call)


def _bytes(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pa.chunked_array([chunk.storage for chunk in column.chunks], type=pa.binary(16))
