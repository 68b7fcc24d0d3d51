"""The journal before the database: nothing is lost or stored twice, and no answer shows it."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from infertrace.collector.background_thread import NICENESS_STEP
from infertrace.collector.store import duplicates
from infertrace.collector.store.duckdb.database import DuckDBDatabase
from infertrace.collector.store.duckdb.store import open_duckdb
from infertrace.collector.store.journaled import applier
from infertrace.collector.store.journaled.journaled_store import JournaledStore
from infertrace.collector.store.keyed_filter import KeyedText
from infertrace.collector.store.selection import Selection
from infertrace.collector.store.span_filter import SpanFilter, SpanKey
from infertrace.collector.store.store import StoreError
from infertrace.generated.span_pb2 import AttributeValue
from store_batches import START_NS, batch_of, new_span

PRODUCER = b"p" * 16
NEVER_S = 3_600.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spans.duckdb"


@pytest.fixture
def open_store(path: Path) -> Iterator[Callable[..., JournaledStore]]:
    opened: list[JournaledStore] = []

    def open_one(at: Path = path) -> JournaledStore:
        opened.append(open_duckdb(str(at)))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def lazy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows stay in memory until the store has to apply them: for room, a drain or the end."""
    monkeypatch.setattr(applier, "APPLY_INTERVAL_S", NEVER_S)


def killed(path: Path, to: Path) -> Path:
    """A copy of the files that a kill at this moment would leave."""
    to.mkdir()
    for file in path.parent.glob("spans.duckdb*"):
        if file.is_file():
            shutil.copy(file, to)
    return to / path.name


def is_healthy(store: JournaledStore) -> bool:
    try:
        store.check()
    except StoreError:
        return False
    return True


def in_database(path: Path) -> int:
    with duckdb.connect(str(path), read_only=True) as connection:
        return int(connection.execute("SELECT count(*) FROM spans").fetchall()[0][0])


@pytest.mark.usefixtures("lazy")
def test_a_kill_before_the_database_has_it(open_store: Any, path: Path, tmp_path: Path) -> None:
    store = open_store()
    spans = [new_span() for _ in range(10)]
    store.commit([batch_of(spans[:6], PRODUCER, 1), batch_of(spans[6:], PRODUCER, 7)])
    left = killed(path, tmp_path / "left")
    again = open_store(left)
    assert len(again.spans(SpanFilter(), 100)) == 10
    assert again.producers(10)[0].stored == 10
    again.commit(
        [batch_of(spans[6:], PRODUCER, 7)]
    )  # the answer was lost, so the producer sends it again
    assert len(again.spans(SpanFilter(), 100)) == 10
    assert again.producers(10)[0].duplicates == 4


@pytest.mark.usefixtures("lazy")
def test_a_kill_between_the_database_and_the_journal(
    open_store: Any, path: Path, tmp_path: Path
) -> None:
    """The entries are in both; the number in the database tells."""
    store = open_store()
    store.commit([batch_of([new_span() for _ in range(4)], PRODUCER, 1)])
    store.checkpoint()
    store.commit([batch_of([new_span() for _ in range(3)], PRODUCER, 5)])
    left = killed(path, tmp_path / "left")
    assert in_database(left) == 4
    again = open_store(left)
    assert len(again.spans(SpanFilter(), 100)) == 7
    assert again.producers(10)[0].stored == 7


@pytest.mark.skipif(sys.platform != "linux", reason="only there a thread has a priority")
def test_queries_come_before_the_database(open_store: Any) -> None:
    store = open_store()
    store.commit([batch_of([new_span()])])
    store.checkpoint()  # so that the thread is running
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    theirs = os.getpriority(os.PRIO_PROCESS, store.threads[0].native_id)
    assert theirs == min(own + NICENESS_STEP, 19)


def test_an_end_in_order_leaves_one_file(open_store: Any, path: Path) -> None:
    store = open_store()
    store.commit([batch_of([new_span()])])
    store.checkpoint()
    store.close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert in_database(path) == 1


@pytest.mark.usefixtures("lazy")
def test_answers_are_the_same_on_both_sides_of_the_database(open_store: Any) -> None:
    """Half of the rows are in the database; then all are, and nothing else changes."""
    store = open_store()
    trace = b"one trace of all"
    spans = [
        new_span(
            model=f"m{n % 3}",
            trace_id=trace if n % 5 == 0 else None,
            status=("OK", "ERROR")[n % 2],
            duration_nanos=n * 1_000_000,
            # Some start at the same time, so that the ids decide.
            start_time_unix_nano=START_NS + n // 4,
            tags={"n": str(n), "odd": str(n % 2)},
            attributes={"n": AttributeValue(int_value=n % 7)},
        )
        for n in range(60)
    ]
    gpu_1 = {"host.name": AttributeValue(string_value="gpu-1")}
    gpu_2 = {"host.name": AttributeValue(string_value="gpu-2")}
    store.commit([batch_of(spans[:30:2], attributes=gpu_1), batch_of(spans[30::2])])
    store.checkpoint()
    store.commit([batch_of(spans[1::4], attributes=gpu_1)])
    store.commit([batch_of(spans[3::4], attributes=gpu_2)])

    def answers() -> list[Any]:
        newest = store.spans(SpanFilter(), 25)
        last = newest[-1]
        after = SpanKey(last[5], last[0], last[1])
        return [
            newest,
            store.spans(SpanFilter(after=after), 100),
            store.spans(SpanFilter(after=after), 3),
            store.spans(SpanFilter(model="m1", status="ERROR"), 5),
            store.spans(SpanFilter(since_ns=START_NS + 3, until_ns=START_NS + 9), 100),
            store.spans(SpanFilter(min_duration_ns=30_000_000, operation="inference"), 100),
            store.spans(SpanFilter(trace_id=uuid.UUID(bytes=trace), service="server"), 100),
            store.spans(SpanFilter(model="none"), 100),
            store.spans(SpanFilter(tags=[KeyedText("odd", "1")]), 100),
            store.spans(SpanFilter(tags=[KeyedText("odd", "1"), KeyedText("n", "7")]), 100),
            store.spans(SpanFilter(attributes=[KeyedText("n", "3")], after=after), 5),
            store.spans(SpanFilter(resource=[KeyedText("host.name", "gpu-1")]), 7),
            store.spans(SpanFilter(resource=[KeyedText("host.name", "gpu-2")]), 100),
            store.spans(SpanFilter(resource=[KeyedText("host.name", "gpu-3")]), 100),
            store.trace(uuid.UUID(bytes=trace), 100),
            store.trace(uuid.UUID(bytes=trace), 2),
            store.models(Selection(0), 10),
            store.models(Selection(START_NS + 5, model="m2"), 10),
        ]

    before = answers()
    assert len(before[0]) == 25
    assert len(before[1]) == 35
    assert [len(answer) for answer in before[8:14]] == [30, 1, 5, 7, 15, 0]
    store.checkpoint()
    assert answers() == before


def test_nothing_is_seen_twice_or_missed_while_rows_move(
    open_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applier, "APPLY_INTERVAL_S", 0.001)
    store = open_store()
    acknowledged = 0
    stop = threading.Event()
    wrong: list[str] = []

    def read() -> None:
        while not stop.is_set():
            least = acknowledged
            rows = store.spans(SpanFilter(), 100_000)
            ids = {row[1] for row in rows}
            (model,) = store.models(Selection(0), 1) or [None]
            if len(ids) != len(rows) or len(rows) < least:
                wrong.append(f"{len(ids)} of {len(rows)} rows, {least} acknowledged")
            if least and (model is None or model.sample_count < least):
                wrong.append(f"{model}, {least} acknowledged")

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(100):
            store.commit([batch_of([new_span() for _ in range(5)])])
            acknowledged += 5
    finally:
        stop.set()
        reader.join()
    assert not wrong
    assert len(store.spans(SpanFilter(), 100_000)) == 500


@pytest.mark.usefixtures("lazy")
def test_duplicates_of_all_ages(open_store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the batch, in memory, in the database, and longer ago than the ids are remembered."""
    monkeypatch.setattr(duplicates, "REMEMBERED_SPANS", 8)
    store = open_store()
    old = [new_span() for _ in range(6)]
    store.commit([batch_of(old, PRODUCER, 1)])
    store.commit([batch_of([new_span() for _ in range(40)], PRODUCER, 7)])
    store.checkpoint()
    recent = [new_span() for _ in range(3)]
    assert store.commit([batch_of([*recent, recent[0]], PRODUCER, 47)]) == 1
    assert store.commit([batch_of(old, PRODUCER, 1)]) == 6  # its sequence numbers tell
    assert store.commit([batch_of(old)]) == 6  # nothing proves that it is new
    assert store.commit([batch_of(recent), batch_of([old[2], recent[1], new_span()])]) == 5
    assert len(store.spans(SpanFilter(), 100)) == 50


@pytest.mark.usefixtures("lazy")
def test_ids_are_remembered_across_a_restart(open_store: Any) -> None:
    spans = [new_span() for _ in range(5)]
    store = open_store()
    store.commit([batch_of(spans, PRODUCER, 1)])
    store.checkpoint()
    store.close()
    again = open_store()
    # Beyond the reach of the look-back: only the remembered ids find these.
    day = 86_400_000_000_000
    moved = [new_span(span_id=s.span_id, trace_id=s.trace_id) for s in spans]
    for span in moved:
        span.start_time_unix_nano += day
    assert again.commit([batch_of(moved)]) == 5


def test_a_database_that_cannot_be_written(
    open_store: Any, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Acknowledged spans wait, memory stays bounded, health fails; then the store recovers."""
    monkeypatch.setattr(applier, "APPLY_INTERVAL_S", 0.001)
    monkeypatch.setattr(applier, "RETRY_DELAY_S", 0.01)
    monkeypatch.setattr(applier, "ROOM_TIMEOUT_S", 0.05)
    monkeypatch.setattr(applier, "MAX_UNAPPLIED_BYTES", 20_000)
    store = open_store()
    broken = threading.Event()
    broken.set()
    real = DuckDBDatabase._insert

    def insert(self: DuckDBDatabase, *given: Any) -> None:
        if broken.is_set():
            raise duckdb.IOException("no space left")
        real(self, *given)

    monkeypatch.setattr(DuckDBDatabase, "_insert", insert)
    stored = 0

    def fill() -> None:
        nonlocal stored
        for _ in range(1_000):
            store.commit([batch_of([new_span() for _ in range(5)])])
            stored += 5

    with pytest.raises(StoreError, match="too much waits for the database: no space left"):
        fill()
    with pytest.raises(StoreError, match="no space left"):
        store.check()
    assert len(store.spans(SpanFilter(), 10_000)) == stored > 0
    broken.clear()
    monkeypatch.setattr(applier, "ROOM_TIMEOUT_S", 60)
    deadline = time.monotonic() + 60
    while not is_healthy(store):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    store.commit([batch_of([new_span()])])
    store.checkpoint()
    store.close()
    assert in_database(path) == stored + 1


def test_files_are_private(open_store: Any, path: Path, tmp_path: Path) -> None:
    """Also when DuckDB creates its log again."""
    before = os.umask(0o022)
    try:
        store = open_store()
        for _ in range(3):
            store.commit([batch_of([new_span()])])
            store._applier.drain()
            modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
            assert modes.pop(f"{path.name}.tmp") == 0o700  # where a query would spill
            assert set(modes.values()) == {0o600}
            assert {path.name, f"{path.name}.wal"} <= set(modes)
            store.checkpoint()
        store.close()
    finally:
        assert os.umask(before) == 0o022
    assert path.stat().st_mode & 0o777 == 0o600
