"""PostgreSQL: several collectors on one database, a server that goes away, times of all kinds."""

from __future__ import annotations

import functools
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertrace.collector.query.flat_span import flat_span
from infertrace.collector.store.postgres import day_partitions, hypertable
from infertrace.collector.store.postgres import schema as postgres_schema
from infertrace.collector.store.postgres import store as postgres_store
from infertrace.collector.store.postgres.copy_rows import copy_rows, escape, unescape
from infertrace.collector.store.postgres.span_table import NANOS_PER_DAY
from infertrace.collector.store.postgres.store import PostgresStore
from infertrace.collector.store.registry import shown_url
from infertrace.collector.store.selection import Selection
from infertrace.collector.store.span_filter import SpanFilter
from infertrace.collector.store.store import QueryTimeoutError, Retention, StoreError
from infertrace.generated.span_pb2 import InferenceContext, Span
from postgresql_cluster import PARTITIONS, TIMESCALEDB, Cluster, kinds
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


RELATION = "SELECT relkind = 'p' FROM pg_class WHERE oid = 'spans'::regclass"
COMPRESSED = "SELECT is_compressed FROM timescaledb_information.chunks ORDER BY range_start_integer"


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
    pytest.importorskip("infertrace.collector.store.postgres.native_copy_rows")
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
    pytest.importorskip(f"infertrace.collector.store.postgres.{encoder}_copy_rows")
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
    """Every collector gets each batch, in another order: it is stored and counted once."""
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
                except (
                    StoreError
                ):  # a deadlock ended one of two transactions: a producer would retry
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
    """The pool of readers reconnects by itself, after a pause."""
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


def test_the_table_is_what_the_server_offers(
    open_store: Any, postgresql: Cluster, postgresql_url: str
) -> None:
    store = open_store()
    expected = {PARTITIONS: "native partitions", TIMESCALEDB: "TimescaleDB 2."}[postgresql.kind]
    assert store.describe().startswith(expected)
    with psycopg.connect(postgresql_url) as connection:
        assert connection.execute(RELATION).fetchall() == [(postgresql.kind == PARTITIONS,)]
    assert open_store().describe() == store.describe()


def test_days_have_tables_and_strange_times_share_one(open_store: Any, postgresql_url: str) -> None:
    day = NANOS_PER_DAY
    times = [1, START_NS - 10**15, START_NS - 3 * day, START_NS, START_NS + 900 * day, 2**62]
    store = open_store()
    spans = [new_span(start_time_unix_nano=moment) for moment in times]
    store.commit([batch_of(spans[:1])])
    assert store.commit([batch_of([*spans, spans[2]])]) == 2
    assert store.commit([batch_of(spans)]) == len(spans)
    assert [row[5] for row in store.spans(SpanFilter(), 10)] == times[::-1]
    # The same ids, with a time that belongs into the other table.
    moved = [
        new_span(trace_id=span.trace_id, span_id=span.span_id, start_time_unix_nano=other)
        for span, other in ((spans[0], START_NS), (spans[3], 7))
    ]
    assert store.commit([batch_of(moved)]) == 2
    with psycopg.connect(postgresql_url) as connection:
        counts: dict[str, int] = dict(
            connection.execute(
                "SELECT tableoid::regclass::text, count(*) FROM spans GROUP BY 1 UNION "
                "SELECT 'spans_other', count(*) FROM spans_other"
            ).fetchall()
        )
    assert counts.pop("spans_other") == 3
    assert list(counts.values()) == [1, 1, 1]


@pytest.fixture
def hypertable_store(new_store_url: Any) -> Iterator[tuple[PostgresStore, Any]]:
    """A store on TimescaleDB, and a connection to its database."""
    if TIMESCALEDB not in kinds():
        pytest.skip("TimescaleDB is not installed")
    url = new_store_url(TIMESCALEDB)
    store = PostgresStore(url)
    with psycopg.connect(url, autocommit=True) as connection:
        yield store, connection
    store.close()


def run_policy(connection: Any, name: str) -> None:
    """Run a policy now instead of waiting for the server's scheduler."""
    ((job,),) = connection.execute(
        "SELECT job_id FROM timescaledb_information.jobs WHERE hypertable_name = 'spans' "
        "AND proc_name = %s",
        [name],
    ).fetchall()
    connection.execute(f"CALL run_job({job})")


def test_days_are_compressed_and_still_one_row_for_each_span(hypertable_store: Any) -> None:
    store, connection = hypertable_store
    day = NANOS_PER_DAY
    spans = [
        new_span(model=f"m{n % 3}", start_time_unix_nano=START_NS - n % 6 * day, tags={"n": str(n)})
        for n in range(60)
    ]
    store.commit([batch_of(spans)])

    def answers() -> list[Any]:
        return [
            store.spans(SpanFilter(), 100),
            store.spans(SpanFilter(model="m1", since_ns=START_NS - 4 * day), 100),
            store.trace(uuid.UUID(bytes=spans[5].trace_id), 10),
            store.models(Selection(0), 10),
        ]

    before = answers()
    run_policy(connection, "policy_compression")
    states = [c for (c,) in connection.execute(COMPRESSED).fetchall()]
    assert states.count(True) >= 3
    assert not states[-1]
    assert answers() == before
    # Duplicates and late spans fall into compressed days.
    late = new_span(start_time_unix_nano=START_NS - 5 * day)
    assert store.commit([batch_of([*spans, late])]) == len(spans)
    assert store.commit([batch_of([late], PRODUCER, 1)]) == 1
    moved = new_span(trace_id=late.trace_id, span_id=late.span_id)
    assert store.commit([batch_of([moved])]) == 1
    assert len(store.spans(SpanFilter(), 100)) == 61


def test_much_comes_late_to_a_compressed_day(hypertable_store: Any) -> None:
    """Stored spans are looked up without decompression, on which the server has a limit."""
    store, connection = hypertable_store
    database = connection.info.dbname
    limit = "timescaledb.max_tuples_decompressed_per_dml_transaction"
    connection.execute(f"ALTER DATABASE {database} SET {limit} = 10")
    then = START_NS - 5 * NANOS_PER_DAY
    spans = [new_span(start_time_unix_nano=then + n % 50) for n in range(3_000)]
    store.commit([batch_of(spans)])
    run_policy(connection, "policy_compression")
    again = PostgresStore(f"postgresql://tests@127.0.0.1:{connection.info.port}/{database}")
    late = [new_span(start_time_unix_nano=then + n % 50) for n in range(500)]
    # Its sequence numbers claim that it is new; only the index tells that it is not.
    again.commit([batch_of([new_span()], PRODUCER, 1)])
    assert again.commit([batch_of([*late, spans[7]], PRODUCER, 2)]) == 1
    assert len(ids(again)) == 3_501
    again.close()


def test_an_age_is_a_policy_of_the_hypertable(hypertable_store: Any) -> None:
    store, connection = hypertable_store
    day = NANOS_PER_DAY

    def policies() -> list[Any]:
        return connection.execute(hypertable._RETENTION_POLICY).fetchall()

    store.retain(Retention(max_age_ns=2 * day))
    store.retain(Retention(max_age_ns=2 * day))
    assert policies() == [(2 * day,)]
    store.retain(Retention(max_age_ns=3 * day))
    assert policies() == [(3 * day,)]
    store.commit([batch_of([new_span(start_time_unix_nano=START_NS - n * day) for n in (0, 9)])])
    run_policy(connection, "policy_retention")
    assert len(ids(store)) == 1
    store.retain(Retention())
    assert policies() == []


def test_a_compressed_day_goes_as_a_whole(hypertable_store: Any) -> None:
    store, connection = hypertable_store
    day = NANOS_PER_DAY
    ages = (0, 3, 8)
    store.commit([batch_of([new_span(start_time_unix_nano=START_NS - n * day) for n in ages])])
    run_policy(connection, "policy_compression")
    assert store.retain(Retention(max_age_ns=3 * day)) == 1
    assert len(ids(store)) == 2  # a part of that day is younger
    assert store.retain(Retention(max_age_ns=2 * day - 20 * 10**9)) == 1


def test_partitions_stay_when_the_extension_comes(new_store_url: Any, monkeypatch: Any) -> None:
    url = new_store_url(kinds()[-1])
    with monkeypatch.context() as then:
        then.setattr(postgres_schema, "_offered", lambda _: day_partitions.DayPartitions())
        store = PostgresStore(url)
        store.commit([batch_of([new_span()])])
        store.close()
    again = PostgresStore(url)
    again.commit([batch_of([new_span()])])
    assert again.describe() == "native partitions"
    assert len(ids(again)) == 2
    again.close()


def test_a_query_that_takes_too_long(postgresql_url: str) -> None:
    store = PostgresStore(postgresql_url, query_timeout_s=0.05)
    with pytest.raises(QueryTimeoutError, match=r"^took longer than 0\.05 s$"):  # noqa: SIM117
        with store._reader() as connection:
            connection.execute("SELECT pg_sleep(60)")
    store.check()
    store.close()


def test_a_day_that_began_among_the_others(
    open_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first rows came when it was too far away for a partition; later ones join them."""
    store = open_store()
    with monkeypatch.context() as then:
        then.setattr(day_partitions, "PAST_DAYS", -1)
        then.setattr(day_partitions, "FUTURE_DAYS", -1)
        store.commit([batch_of([new_span()])])
    store.commit([batch_of([new_span()])])
    again = open_store()
    again.commit([batch_of([new_span()])])
    assert len(ids(again)) == 3


def test_a_newer_schema_is_refused(open_store: Any, postgresql_url: str) -> None:
    open_store()
    with psycopg.connect(postgresql_url) as connection:
        connection.execute("UPDATE infertrace_schema SET version = 1000")
    with pytest.raises(StoreError, match="schema has version 1000"):
        open_store()


def test_what_a_url_sets_holds_for_readers_as_well(postgresql_url: str) -> None:
    with psycopg.connect(postgresql_url) as connection:
        connection.execute("CREATE SCHEMA elsewhere")
    store = PostgresStore(f"{postgresql_url}?options=-csearch_path%3Delsewhere")
    store.commit([batch_of([new_span()])])
    assert len(ids(store)) == 1
    store.close()


def test_a_url_is_shown_without_its_secrets() -> None:
    assert shown_url("postgresql://me:secret@host:5/db?password=x") == "postgresql://host:5/db"
    assert shown_url("duckdb:///spans.duckdb") == "duckdb:///spans.duckdb"
    hard = "postgresql://me:se?cret@host/db"
    for url in (hard, "postgresql://host/db?password=se@cret", f"{hard}?password=se@cret"):
        assert "cret" not in shown_url(url)
