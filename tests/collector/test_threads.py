"""A thread that an unforeseen error ends is replaced, and health and metrics report it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from collector_client import Client, NewSpan
from infertrace.collector import background_thread
from infertrace.collector.background_thread import BackgroundThread
from infertrace.collector.ingest.grpc_server import GrpcServer
from infertrace.collector.query import http_server
from infertrace.collector.server import Collector
from infertrace.collector.store import retention
from infertrace.collector.store.duckdb.database import DuckDBDatabase
from infertrace.collector.store.group_commit import GroupCommit
from infertrace.collector.store.journaled import applier
from infertrace.collector.store.journaled.journaled_store import JournaledStore
from infertrace.collector.store.store import Retention
from infertrace.collector.time_limits import TimeLimits

PATIENCE_S = 60
DAY = 86_400_000_000_000


class Fault:
    """Raises instead of calling a method, `times` times or while `left` is positive."""

    def __init__(self, real: Callable[..., Any], times: float) -> None:
        self.real = real
        self.left = times
        self.raised = 0

    def __get__(self, instance: Any, owner: Any) -> Callable[..., Any]:
        return lambda *given, **named: self(instance, *given, **named)

    def __call__(self, *given: Any, **named: Any) -> Any:
        if self.left > 0:
            self.left -= 1
            self.raised += 1
            raise MemoryError
        return self.real(*given, **named)


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_thread, "FIRST_DELAY_S", 0.01)
    monkeypatch.setattr(background_thread, "MAX_DELAY_S", 0.05)
    monkeypatch.setattr(retention, "INTERVAL_S", 0.01)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Fault]:
    def fail(owner: Any, name: str, times: float) -> Fault:
        fault = Fault(getattr(owner, name), times)
        monkeypatch.setattr(owner, name, fault)
        return fault

    return fail


@pytest.fixture
def open_collector(open_client: Any, new_store_url: Any) -> Any:
    opened: list[Collector] = []

    def open_one(store: str, **options: Any) -> Any:
        collector = Collector("127.0.0.1:0", "127.0.0.1:0", new_store_url(store), **options)
        opened.append(collector)
        collector.start()
        return open_client(collector.grpc_address, collector.http_address)

    yield open_one
    for collector in opened:
        collector.stop()


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]


def restarts(client: Any, thread: str) -> float:
    (line,) = (
        line
        for line in client.http.get("/metrics").text.splitlines()
        if line.startswith(f'infertrace_collector_thread_restarts_total{{thread="{thread}"}}')
    )
    return float(line.rpartition(" ")[2])


@pytest.mark.parametrize("times", [1, 5])
def test_moving_the_journal(
    open_collector: Callable[..., Client],
    broken: Callable[..., Fault],
    new_span: NewSpan,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    times: int,
) -> None:
    monkeypatch.setattr(applier, "APPLY_INTERVAL_S", 0.01)
    fault = broken(DuckDBDatabase, "_insert", times)
    client = open_collector("duckdb")
    client.send(*[new_span() for _ in range(10)])
    wait_until(lambda: fault.raised == times)
    client.send(*[new_span() for _ in range(10)])
    wait_until(lambda: client.http.get("/health").status_code == 200)
    wait_until(lambda: "threads" in client.get("/health"))
    wait_until(lambda: client.get("/health")["threads"]["apply"]["error"] is None)
    assert client.get("/health") == {
        "status": "ok",
        "threads": {"apply": {"restarts": times, "error": None}},
    }
    assert restarts(client, "apply") == times
    assert len(client.get("/spans")) == 20
    assert said(caplog).count("the thread apply ended, and is replaced") == 1


def test_what_was_committed_is_not_applied_again(
    open_collector: Callable[..., Client], new_span: NewSpan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread ends after the commit, before it notes what it committed."""
    real = DuckDBDatabase.apply
    times = 2

    def fail(self: Any, *given: Any) -> None:
        nonlocal times
        real(self, *given)
        if times:
            times -= 1
            raise MemoryError

    monkeypatch.setattr(DuckDBDatabase, "apply", fail)
    client = open_collector("duckdb")
    for left in (1, 0):
        client.send(*[new_span() for _ in range(10)])
        wait_until(lambda expected=left: times == expected)  # type: ignore[misc]
    wait_until(lambda: client.http.get("/health").status_code == 200)
    assert len(client.get("/spans")) == 20
    assert client.get("/models")[0]["sample_count"] == 20


def test_writes_that_are_blocked(
    open_collector: Callable[..., Client],
    broken: Callable[..., Fault],
    new_span: NewSpan,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(applier, "APPLY_INTERVAL_S", 0.01)
    monkeypatch.setattr(applier, "MAX_UNAPPLIED_BYTES", 1)
    monkeypatch.setattr(applier, "ROOM_TIMEOUT_S", 0.01)
    fault = broken(DuckDBDatabase, "_insert", float("inf"))
    client = open_collector("duckdb")
    client.send(new_span())
    wait_until(lambda: fault.raised > 2)
    found = client.http.get("/health")
    assert found.status_code == 503
    assert found.json()["error"] == "the store cannot answer"
    assert found.json()["threads"]["apply"]["error"] == "MemoryError"
    with pytest.raises(grpc.RpcError) as refusal:
        client.send(new_span())
    assert refusal.value.code() == grpc.StatusCode.UNAVAILABLE
    fault.left = 0
    wait_until(lambda: client.http.get("/health").status_code == 200)
    assert client.send(new_span()).accepted_count == 1


@pytest.mark.parametrize("store", ["memory", "duckdb", "postgresql"])
def test_retention(
    open_collector: Callable[..., Client],
    broken: Callable[..., Fault],
    new_span: NewSpan,
    caplog: pytest.LogCaptureFixture,
    store: str,
) -> None:
    from infertrace.collector.store.postgres.store import PostgresStore

    owner = PostgresStore if store == "postgresql" else JournaledStore
    fault = broken(owner, "retain", float("inf"))
    client = open_collector(store, retention=Retention(max_age_ns=DAY))
    client.send(new_span(start_time_unix_nano=time.time_ns() - 2 * DAY), new_span())
    wait_until(lambda: fault.raised > 3)
    found = client.get("/health")
    assert found["status"] == "degraded"
    assert found["threads"]["retention"]["error"] == "MemoryError"
    assert said(caplog).count("the thread retention ended, and is replaced") == 1
    fault.left = 0
    wait_until(lambda: len(client.get("/spans")) == 1)
    wait_until(lambda: client.get("/health")["status"] == "ok")


@pytest.mark.parametrize("times", [1, 4])
def test_writing(
    open_collector: Callable[..., Client],
    broken: Callable[..., Fault],
    new_span: NewSpan,
    times: int,
) -> None:
    """A batch that a thread was writing when it ended is refused, and can be sent again."""
    fault = broken(GroupCommit, "_commit", times)
    client = open_collector("duckdb")
    span = new_span()
    for _ in range(times):
        with pytest.raises(grpc.RpcError) as refusal:
            client.send(span)
        assert refusal.value.code() == grpc.StatusCode.UNAVAILABLE
    assert fault.raised == times
    assert client.send(span).accepted_count == 1
    wait_until(lambda: client.http.get("/health").status_code == 200)
    found = client.get("/health")
    assert found == {"status": "ok", "threads": {"store": {"restarts": times, "error": None}}}
    text = client.http.get("/metrics").text
    assert "\ninfertrace_collector_pending_bytes 0.0\n" in text
    assert client.send(new_span()).accepted_count == 1


def test_health_while_nothing_is_written(
    open_collector: Callable[..., Client], broken: Callable[..., Fault], new_span: NewSpan
) -> None:
    client = open_collector("memory")
    broken(GroupCommit, "_commit", 1)
    with pytest.raises(grpc.RpcError):
        client.send(new_span())
    found = client.http.get("/health")
    assert found.status_code == 503
    assert found.json() == {
        "error": "the store is not being written",
        "threads": {"store": {"restarts": 1, "error": "MemoryError"}},
    }
    client.send(new_span())
    # The thread settles a batch before it notes that it does well.
    wait_until(lambda: client.http.get("/health").status_code == 200)


def test_time_limits(broken: Callable[..., Fault]) -> None:
    limits = TimeLimits(0.05, lambda _: TimeoutError())
    slow = threading.Event()

    class Interrupted(Exception):
        pass

    def interrupt() -> None:
        slow.set()
        raise Interrupted

    for _ in range(3):  # an interrupt that raises does not prevent the next one
        with pytest.raises(TimeoutError), limits.limit(interrupt):  # noqa: PT012
            assert slow.wait(PATIENCE_S)
            raise InterruptedError
        slow.clear()
    assert limits.thread.state.restarts == 0
    limits.close()


def test_answers(
    open_collector: Callable[..., Client], broken: Callable[..., Fault], new_span: NewSpan
) -> None:
    client = open_collector("memory")
    client.send(new_span())
    fault = broken(http_server._ThreadedServer, "on_tick", 2)

    def is_replaced() -> bool:
        try:
            found = client.get("/health")
        except OSError:
            return False
        except Exception:  # the connection ended with its server
            return False
        return bool(found.get("threads"))

    wait_until(is_replaced)
    wait_until(lambda: fault.raised == 2)
    wait_until(is_replaced)
    assert len(client.get("/spans")) == 1


def test_taking_spans_in(
    open_collector: Callable[..., Client], new_span: NewSpan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread continues the loop of gRPC, with the same server."""
    servers: list[GrpcServer] = []
    real = GrpcServer.start

    def start(self: GrpcServer, service: Any) -> None:
        servers.append(self)
        real(self, service)

    def fail() -> None:
        raise SystemExit

    monkeypatch.setattr(GrpcServer, "start", start)
    client = open_collector("memory")
    client.send(new_span())
    servers[0]._loop.call_soon_threadsafe(fail)
    wait_until(lambda: client.get("/health").get("threads", {}).get("grpc") is not None)
    assert client.send(new_span()).accepted_count == 1
    assert len(client.get("/spans")) == 2
    wait_until(lambda: client.get("/health")["status"] == "ok")


def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread can be started, not even the replacement; `ensure` tries again."""
    ran: list[int] = []

    def work(thread: BackgroundThread) -> None:
        ran.append(len(ran))
        if len(ran) == 1:
            monkeypatch.setattr(threading.Thread, "start", refuse)
            raise MemoryError

    real = threading.Thread.start

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    thread = BackgroundThread("test", work)
    thread.start()
    wait_until(lambda: thread.state.error == "RuntimeError")
    monkeypatch.setattr(threading.Thread, "start", real)
    thread.ensure()
    wait_until(lambda: len(ran) == 2)
    thread.ensure()
    assert thread.stop(PATIENCE_S)
    assert len(ran) == 2
