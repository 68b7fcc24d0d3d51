"""The table of spans in DuckDB has a column from the first value on that is stored there."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from infertrace.collector.query.flat_span import flat_span
from infertrace.collector.store.columns import COLUMNS
from infertrace.collector.store.duckdb.database import DuckDBDatabase
from infertrace.collector.store.duckdb.queries import DuckDBSnapshot
from infertrace.collector.store.duckdb.store import open_duckdb
from infertrace.collector.store.journaled.journal import Entry
from infertrace.collector.store.journaled.journaled_store import JournaledStore
from infertrace.collector.store.metrics import METRICS
from infertrace.collector.store.selection import Selection
from infertrace.collector.store.span_filter import SpanFilter
from infertrace.collector.store.store import Retention
from infertrace.generated.span_pb2 import InferenceContext, Span
from store_batches import batch_of, new_span

REQUIRED = {column.name for column in COLUMNS if column.required}
ALL = Selection(0, model="m")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spans.duckdb"


@pytest.fixture
def store(path: Path) -> Iterator[JournaledStore]:
    store = open_duckdb(str(path))
    yield store
    store.close()


def bare() -> Span:
    return new_span(inference=InferenceContext(model_name="m"))


def with_queue(depth: int) -> Span:
    return new_span(inference=InferenceContext(model_name="m", queue_depth=depth))


def columns(path: Path) -> set[str]:
    with duckdb.connect(str(path)) as connection:
        rows = connection.execute("SELECT * FROM spans LIMIT 0").description
    return {name for name, *_ in rows or ()}


def test_a_new_store_has_what_each_span_has(store: JournaledStore, path: Path) -> None:
    assert store.spans(SpanFilter(), 10) == []
    store.close()
    assert columns(path) == REQUIRED


def test_a_column_comes_with_its_first_value(store: JournaledStore, path: Path) -> None:
    store.commit([batch_of([bare(), bare()])])
    store.checkpoint()
    store.commit([batch_of([bare(), with_queue(7)])])
    store.checkpoint()
    found = [flat_span(row).get("queue_depth") for row in store.spans(SpanFilter(), 10)]
    assert sorted(found, key=str) == [7, None, None, None]
    store.close()
    assert {"model_name", "queue_depth"} <= columns(path)
    assert not {"gpu_device_id", "tags", "flags"} & columns(path)
    with duckdb.connect(str(path)) as connection:
        shown = connection.execute("SELECT * FROM all_spans").fetchall()
        assert connection.description is not None
        assert [name for name, *_ in connection.description] == [c.name for c in COLUMNS]
    assert len(shown) == 4


@pytest.mark.parametrize("metric", METRICS)
def test_a_metric_of_a_column_that_is_not_there(store: JournaledStore, metric: str) -> None:
    store.commit([batch_of([bare()])])
    store.checkpoint()
    (point,) = store.series(ALL, METRICS[metric], 10**9)
    store.commit([batch_of([bare()])])  # which is in memory only
    (beside,) = store.series(ALL, METRICS[metric], 10**9)
    assert (point.value is None) == (beside.value is None)


def test_a_snapshot_from_before_a_column(path: Path) -> None:
    """A query that runs when a column comes sees what was there when it began."""
    database = DuckDBDatabase(str(path), 30.0)

    def apply(number: int, span: Span) -> None:
        database.apply([Entry(number, [batch_of([span]).rows], [])], 0)

    def depths(snapshot: DuckDBSnapshot) -> list[Any]:
        return [flat_span(row).get("queue_depth") for row in snapshot.spans(SpanFilter(), 9, None)]

    apply(1, bare())
    with database.snapshot(is_pinned=True) as before:
        assert depths(before) == [None]
        apply(2, with_queue(7))
        with database.snapshot(is_pinned=True) as after:
            assert depths(after) == [7, None]
        assert depths(before) == [None]
        assert sum(map(len, before.rows(0, 2**63 - 1))) == 1
    database.close()


def test_columns_come_while_old_spans_are_deleted(store: JournaledStore) -> None:
    """DuckDB refuses to alter a table beside another transaction: neither may fail for it."""
    ended = time.monotonic() + 3
    names = [
        name
        for name, field in InferenceContext.DESCRIPTOR.fields_by_name.items()
        if field.cpp_type == field.CPPTYPE_INT32
    ]
    count = 0
    while time.monotonic() < ended and names:
        store.commit([batch_of([bare() for _ in range(200)])])
        store.retain(Retention(max_bytes=1))
        context = InferenceContext(model_name="m")
        setattr(context, names.pop(), 3)
        span = new_span(inference=context, start_time_unix_nano=time.time_ns())
        store.commit([batch_of([span])])
        store.checkpoint()
        store.check()
        count += 1
        found = store.trace(uuid.UUID(bytes=span.trace_id), 10)
        assert len(found) == 1
    assert count > 2
