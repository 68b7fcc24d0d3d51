"""PostgreSQL: several collectors on one database, a server that goes away, times of all kinds."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertrace.generated.span_pb2 import InferenceContext, Span
from infertrace.querying.flat_span import flat_span
from infertrace.storing import postgres_store
from infertrace.storing.copy_rows import copy_rows, escape, unescape
from infertrace.storing.opening import shown_url
from infertrace.storing.postgres_store import PostgresStore
from infertrace.storing.store import SpanFilter, StoreError
from postgresql_cluster import Cluster
from store_batches import START_NS, batch_of, new_span

PRODUCER = b"p" * 16
RETRY_S, PATIENCE_S = 0.05, 60


@pytest.fixture
def open_store(postgresql_url: str) -> Iterator[Callable[[], PostgresStore]]:
    opened: list[PostgresStore] = []

    def open_one() -> PostgresStore:
        opened.append(PostgresStore(postgresql_url))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


def ids(store: PostgresStore) -> list[int]:
    return [row[1] for row in store.spans(SpanFilter(), 100_000)]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["\x00", "\uf8f0", "\uf8f00\x00\uf8f01"]
)
SPANS = st.lists(
    st.builds(
        new_span,
        model=TEXT,
        service_name=TEXT,
        parent_span_id=st.sampled_from([b"", b"\xff" * 8, b"\x00" * 7 + b"\x01"]),
        tags=st.dictionaries(TEXT, TEXT, max_size=2),
        inference=st.builds(
            InferenceContext,
            batch_size=st.none() | st.integers(-(2**31), 2**31 - 1),
            cache_hit_rate=st.none() | st.floats(width=32),
        ),
    ),
    max_size=5,
)


@given(SPANS, st.integers(0, 2))
def test_both_encoders_write_the_same(spans: list[Span], skipped: int) -> None:
    pytest.importorskip("infertrace.storing.native_copy_rows")
    rows = batch_of(spans).rows.slice(skipped)
    for positions in (False, True):
        one, other = (
            copy_rows(rows, positions=positions, name=name) for name in ("native", "pure")
        )
        assert one == other


@given(TEXT)
def test_text_is_escaped_both_ways(text: str) -> None:
    assert "\0" not in escape(text)
    assert unescape(escape(text)) == text


@pytest.mark.parametrize("encoder", ["native", "pure"])
def test_the_same_rows_come_back(
    open_store: Any, encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(f"infertrace.storing.{encoder}_copy_rows")
    encode = functools.partial(copy_rows, name=encoder)
    monkeypatch.setattr(postgres_store, "copy_rows", encode)
    spans = [
        new_span(model="a\0b", span_id=b"\xff" * 8, tags={"\0": "\uf8f0"}),
        new_span(model="", parent_span_id=b"\x80" + bytes(7)),
        new_span(inference=InferenceContext(cache_hit_rate=0.1, batch_size=-(2**31))),
    ]
    rows = batch_of(spans).rows
    store = open_store()
    store.commit([batch_of(spans)])
    expected = [tuple(row.values()) for row in reversed(rows.to_pylist())]
    for row, other in zip(store.spans(SpanFilter(), 10), expected, strict=True):
        assert flat_span(row) == flat_span(other)


def test_several_collectors_take_the_same_batches(open_store: Any) -> None:
    """Each batch comes to every collector, in another order: it is stored, and counted, once."""
    stores = [open_store() for _ in range(3)]
    batches = [
        batch_of([new_span() for _ in range(20)], PRODUCER, 1 + 20 * number) for number in range(12)
    ]

    def send(store: PostgresStore, shift: int) -> None:
        for batch in batches[shift:] + batches[:shift]:
            deadline = time.monotonic() + PATIENCE_S
            while True:
                try:
                    store.commit([batch])
                    break
                except StoreError:  # a deadlock ends one of two: the producer tries again
                    assert time.monotonic() < deadline

    threads = [threading.Thread(target=send, args=(s, 4 * n)) for n, s in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = ids(stores[0])
    assert len(found) == len(set(found)) == 240
    (account,) = stores[1].producers(10)
    assert (account.stored, account.produced, account.duplicates) == (240, 240, 480)
    assert account.gaps == []


def wait_until_readable(store: PostgresStore) -> None:
    """The pool of the readers comes back on its own, after a pause or two."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return store.check()
        except StoreError:
            assert time.monotonic() < deadline
            time.sleep(RETRY_S)


def test_a_server_that_crashes_under_load(
    open_store: Any, postgresql: Cluster, postgresql_url: str
) -> None:
    store = open_store()
    acknowledged: set[int] = set()
    stop, failed = threading.Event(), threading.Event()

    def produce() -> None:
        first = 1
        while not stop.is_set():
            batch = batch_of([new_span() for _ in range(10)], PRODUCER, first)
            while True:
                try:
                    store.commit([batch])
                    break
                except StoreError:
                    failed.set()
                    time.sleep(RETRY_S)
            acknowledged.update(batch.rows.column("span_id").to_pylist())
            first += 10

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        while len(acknowledged) < 200:
            time.sleep(RETRY_S)
        postgresql.stop("immediate")
        assert failed.wait(PATIENCE_S)
        with pytest.raises(StoreError):
            store.check()
        before = len(acknowledged)
        postgresql.start()
        deadline = time.monotonic() + PATIENCE_S
        while len(acknowledged) < before + 100:
            assert time.monotonic() < deadline
            time.sleep(RETRY_S)
    finally:
        stop.set()
        thread.join()
    wait_until_readable(store)
    found = ids(store)
    assert len(found) == len(set(found))
    assert set(found) == acknowledged
    assert store.producers(1)[0].stored == len(acknowledged)


def test_days_have_partitions_and_strange_times_share_one(
    open_store: Any, postgresql_url: str
) -> None:
    day = postgres_store.NANOS_PER_DAY
    times = [1, START_NS - 10**15, START_NS - 3 * day, START_NS, START_NS + 900 * day, 2**62]
    store = open_store()
    store.commit([batch_of([new_span(start_time_unix_nano=moment) for moment in times])])
    assert [row[5] for row in store.spans(SpanFilter(), 10)] == times[::-1]
    with psycopg.connect(postgresql_url) as connection:
        counts = connection.execute(
            "SELECT tableoid::regclass::text, count(*) FROM spans GROUP BY 1 ORDER BY 1"
        ).fetchall()
    assert counts[-1] == ("spans_other", 3)
    assert len(counts) == 4


def test_a_day_that_began_among_the_others(
    open_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows for it came when it was too far away for a partition; later ones join them."""
    store = open_store()
    with monkeypatch.context() as then:
        then.setattr(postgres_store, "PAST_DAYS", -1)
        then.setattr(postgres_store, "FUTURE_DAYS", -1)
        store.commit([batch_of([new_span()])])
    store.commit([batch_of([new_span()])])
    again = open_store()
    again.commit([batch_of([new_span()])])
    assert len(ids(again)) == 3


def test_a_newer_schema_is_refused(open_store: Any, postgresql_url: str) -> None:
    open_store()
    with psycopg.connect(postgresql_url) as connection:
        connection.execute("UPDATE infertrace_schema SET version = 2")
    with pytest.raises(StoreError, match="schema has version 2"):
        open_store()


def test_a_url_is_shown_without_its_secrets() -> None:
    assert shown_url("postgresql://me:secret@host:5/db?password=x") == "postgresql://host:5/db"
    assert shown_url("duckdb:///spans.duckdb") == "duckdb:///spans.duckdb"
