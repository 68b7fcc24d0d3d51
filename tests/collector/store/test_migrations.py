"""Opening a store of an older infertrace brings it up to date, with the spans in it."""

from __future__ import annotations

import json
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from infertrace.collector.query.flat_span import flat_span
from infertrace.collector.store.columns import COLUMNS
from infertrace.collector.store.duckdb.store import open_duckdb
from infertrace.collector.store.journaled import applier
from infertrace.collector.store.postgres.store import PostgresStore
from infertrace.collector.store.registry import open_store
from infertrace.collector.store.span_filter import SpanFilter
from infertrace.collector.store.store import StoreError
from infertrace.generated.span_pb2 import AttributeValue, InferenceContext, ResourceMetrics, Span
from postgresql_cluster import kinds
from store_batches import batch_of, new_span

PRODUCER = b"p" * 16
GPU_1 = {"host.name": AttributeValue(string_value="gpu-1")}
# Not the model's name: TimescaleDB cannot drop a column by which it compresses.
NULLABLE = [c.name for c in COLUMNS if not c.required and c.name != "model_name"]
LATER = ["flags", "producer_id", "resource_id"]  # than the first version
DATABASES = ["duckdb", *kinds()]


def execute(url: str, statements: Callable[[bool], Sequence[str]]) -> list[Any]:
    """Change a database behind the store's back; `statements` is told whether there is a view.

    Returns the rows of the last statement.
    """
    if url.startswith("duckdb"):
        with duckdb.connect(url.removeprefix("duckdb:///")) as connection:
            for statement in statements(False):
                connection.execute(statement)
            return connection.fetchall()
    with psycopg.connect(url) as connection:
        has_view = connection.execute("SELECT to_regclass('all_spans')").fetchall()[0][0]
        for statement in statements(has_view is not None):
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def changed_columns(url: str, changes: Sequence[str]) -> None:
    """Alter the table of spans, and the relations that share its columns."""

    def statements(has_view: bool) -> Iterator[str]:
        if has_view:
            yield "DROP VIEW all_spans"
        for table in ("spans", "spans_other") if has_view else ("spans",):
            yield from (f"ALTER TABLE {table} {change}" for change in changes)
        if has_view:
            yield "CREATE VIEW all_spans AS SELECT * FROM spans UNION ALL SELECT * FROM spans_other"

    execute(url, lambda has_view: list(statements(has_view)))


def without(url: str, names: Sequence[str]) -> None:
    changed_columns(url, [f"DROP COLUMN IF EXISTS {name}" for name in names])


def full_span() -> Span:
    return new_span(
        parent_span_id=b"12345678",
        status_message="why",
        flags=0x301,
        tags={"k": "v"},
        inference=InferenceContext(queue_depth=7, cache_hit_rate=0.5, pipeline_stage="inference"),
        resources=ResourceMetrics(gpu_power_watts=99.5, memory_heap_bytes=2**40),
    )


@pytest.mark.parametrize("kind", DATABASES)
@pytest.mark.parametrize(
    "missing",
    [["status_message"], ["queue_depth"], ["cache_hit_rate", "tags"], ["resource_id"], NULLABLE],
    ids=lambda names: names[0] if len(names) < 9 else "all",
)
def test_columns_that_the_table_lacks(
    kind: str, missing: list[str], opened: Any, new_store_url: Callable[[str], str]
) -> None:
    url = new_store_url(kind)
    store = opened(url)
    store.commit([batch_of([full_span(), full_span()], PRODUCER, 1, GPU_1)])
    before = [flat_span(row) for row in store.spans(SpanFilter(), 10)]
    store.checkpoint()
    store.close()
    without(url, missing)
    again = opened(url)
    keys = {column.key for column in COLUMNS if column.name in missing}
    expected = [{k: v for k, v in span.items() if k not in keys} for span in before]
    assert [flat_span(row) for row in again.spans(SpanFilter(), 10)] == expected
    new = full_span()
    again.commit([batch_of([new], PRODUCER, 3, GPU_1)])
    again.checkpoint()
    (found,) = (flat_span(row) for row in again.trace(uuid.UUID(bytes=new.trace_id), 10))
    for key in keys & before[0].keys():
        assert found[key] == before[0][key]
    assert sum(rows.num_rows for rows in again.rows(0, 2**63 - 1)) == 3


@pytest.mark.parametrize("missing", [["queue_depth"], NULLABLE], ids=["one", "all"])
def test_spans_that_only_the_journal_has(
    missing: list[str], opened: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its writer did not know the columns; the database lacks them until it is opened."""
    monkeypatch.setattr(applier, "APPLY_INTERVAL_S", 3_600.0)
    store = opened(f"duckdb:///{tmp_path}/spans.duckdb")
    store.commit([batch_of([full_span()])])
    store.checkpoint()
    known = Span(inference=InferenceContext(model_name="m"))
    store.commit([batch_of([new_span(inference=known.inference), new_span()])])
    left = tmp_path / "left"
    left.mkdir()
    for file in tmp_path.glob("spans.duckdb*"):
        if file.is_file():
            shutil.copy(file, left)
    url = f"duckdb:///{left}/spans.duckdb"
    without(url, missing)
    again = opened(url)
    assert len(again.spans(SpanFilter(), 10)) == 3
    again.commit([batch_of([full_span()])])
    assert flat_span(again.spans(SpanFilter(), 10)[0])["queue_depth"] == 7


@pytest.mark.parametrize("kind", DATABASES)
def test_columns_of_a_newer_infertrace(
    kind: str, opened: Any, new_store_url: Callable[[str], str]
) -> None:
    """They are NULL in the rows that this one writes, and stay."""
    url = new_store_url(kind)
    opened(url).close()
    changed_columns(url, ["ADD COLUMN tomorrow integer"])
    store = opened(url)
    store.commit([batch_of([full_span(), full_span()], PRODUCER, 1)])
    store.checkpoint()
    assert [len(row) for row in store.spans(SpanFilter(), 10)] == [len(COLUMNS)] * 2
    store.close()
    assert execute(url, lambda _: ["SELECT tomorrow FROM spans"]) == [(None,)] * 2
    without(url, ["queue_depth"])  # which the next opening adds beside it
    again = opened(url)
    assert len(again.spans(SpanFilter(), 10)) == 2
    again.close()
    assert execute(url, lambda view: [f"SELECT tomorrow FROM {'all_' * view}spans"])


@pytest.mark.parametrize("kind", DATABASES)
def test_a_required_column_cannot_be_added(
    kind: str, opened: Any, new_store_url: Callable[[str], str]
) -> None:
    url = new_store_url(kind)
    opened(url).close()
    without(url, ["status"])
    with pytest.raises(StoreError, match="its table of spans has no column status"):
        open_store(url)


def of_version_1(url: str) -> None:
    """The PostgreSQL schema as version 1 had it."""
    without(url, LATER)
    statements = ["DROP TABLE resources", "UPDATE infertrace_schema SET version = 1"]
    execute(url, lambda _: statements)


def test_collectors_that_start_together_bring_postgresql_up_to_date(postgresql_url: str) -> None:
    old = PostgresStore(postgresql_url)
    old.commit([batch_of([new_span()], PRODUCER, 1)])
    old.close()
    of_version_1(postgresql_url)
    stores: list[PostgresStore] = []
    threads = [
        threading.Thread(target=lambda: stores.append(PostgresStore(postgresql_url)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stores) == 4
    for number, store in enumerate(stores):
        producer = bytes([number]) * 16
        store.commit([batch_of([new_span(flags=0x301)], producer, 1, GPU_1)])
    rows = stores[0].spans(SpanFilter(), 10)
    assert [row[-3] for row in rows] == [0x301] * 4 + [None]
    assert json.loads(stores[1].resources({rows[0][-1]})[rows[0][-1]]) == {"host.name": "gpu-1"}
    for store in stores:
        store.close()
    with psycopg.connect(postgresql_url) as connection:
        found = connection.execute("SELECT version FROM infertrace_schema").fetchall()
    assert found == [(2,)]


@pytest.mark.parametrize("version", [1, 2])
def test_a_duckdb_from_before_is_brought_up_to_date(tmp_path: Path, version: int) -> None:
    path = tmp_path / "spans.duckdb"
    store = open_duckdb(str(path))
    store.commit([batch_of([new_span()], PRODUCER, 1, GPU_1)])
    store.checkpoint()
    store.close()
    without(f"duckdb:///{path}", LATER)
    with duckdb.connect(str(path)) as connection:
        connection.execute("DROP TABLE resources")
        if version == 1:
            connection.execute("DROP TABLE applied")
        connection.execute("UPDATE schema_version SET version = ?", [version])
    store = open_duckdb(str(path))
    store.commit([batch_of([new_span(flags=1)], PRODUCER, 2, GPU_1)])
    store.checkpoint()
    new, old = store.spans(SpanFilter(), 10)
    assert old[-3:] == (None, None, None)
    assert new[-3:-1] == (1, uuid.UUID(bytes=PRODUCER))
    assert json.loads(store.resources({new[-1]})[new[-1]]) == {"host.name": "gpu-1"}
    store.close()
    with duckdb.connect(str(path)) as connection:
        assert connection.execute("SELECT version FROM schema_version").fetchall() == [(3,)]
