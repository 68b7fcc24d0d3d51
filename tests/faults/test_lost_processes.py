"""Processes that die with spans in memory, and without a spool: their sender delivers for them."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from grpc_receiver import Receiver
from infertrace import backend as backends
from lasting_address import lasting_address
from traced_program import environment, program, wait_until

AT_ONCE = 5
CHILDREN, SPANS_OF_CHILD = 20, 99
KINDS = ("SIGKILL", "SIGTERM", "SIGSEGV", "os._exit")

RECORDING = """
    import os, signal, threading, time
    tracer = infertrace.Tracer("{endpoint}", export_interval_s={interval_s}, max_batch_bytes=4096)
    number = 0
    while True:
        for _ in range(10):
            tracer.start_span("m", tags={{"number": str(number)}}).end()
            number += 1
        os.write(1, b"%d\\n" % number)
        if {leaves} and number == 10:
            threading.Timer({leaves}, os._exit, (3,)).start()
        time.sleep(0.001)
"""

pytestmark = pytest.mark.skipif(
    backends.selected.NAME == "pure", reason="only the compiled backend shares its memory"
)


@pytest.fixture
def kills(nightly: bool) -> int:
    """Of each kind."""
    return 200 if nightly else 5


@pytest.fixture(autouse=True)
def shared_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERTRACE_SENDER_PROCESS", "shared")


@contextlib.contextmanager
def running(body: str) -> Iterator[subprocess.Popen[bytes]]:
    command = program(body)
    with subprocess.Popen(
        command, env=environment(backends.selected), stdout=subprocess.PIPE
    ) as process:
        yield process
        process.kill()


def kill(process: subprocess.Popen[bytes], kind: str) -> int:
    """End it; how many spans it said had ended before."""
    assert process.stdout is not None
    if kind.startswith("SIG"):
        process.send_signal(getattr(signal, kind))
    said = process.stdout.read().rpartition(b"\n")[0].rpartition(b"\n")[2]
    process.wait()
    return int(said or 10)


def last_requests(receiver: Receiver) -> dict[int, Any]:
    """By process, the request that says it is complete."""
    return {
        request.resource.attributes["process.pid"].int_value: request
        for request in list(receiver.requests)
        if request.final
    }


def assert_all_arrived(receiver: Receiver, ended: dict[int, int]) -> None:
    wait_until(lambda: last_requests(receiver).keys() >= ended.keys())
    for pid, count in ended.items():
        last = last_requests(receiver)[pid]
        arrived = [
            int(span.tags["number"])
            for request in receiver.requests
            if request.producer_id == last.producer_id
            for span in request.spans
        ]
        assert set(arrived) >= set(range(count))
        assert set(arrived) == set(range(len(set(arrived))))
        assert last.produced_count == len(set(arrived))
        assert dict(last.dropped_counts) == {}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("interval_s", [0.02, 30.0], ids=["sending", "holding"])
def test_nothing_is_lost(receiver: Receiver, kills: int, kind: str, interval_s: float) -> None:
    """At random moments, under load, with batches in flight and before the first."""
    chance = random.Random(f"{kind} {interval_s}")
    for _ in range(kills // AT_ONCE):
        receiver.requests.clear()
        with contextlib.ExitStack() as stack:
            processes = []
            for _ in range(AT_ONCE):
                leaves = chance.random() * 0.1 if kind == "os._exit" else 0
                body = RECORDING.format(
                    endpoint=receiver.endpoint, interval_s=interval_s, leaves=leaves
                )
                processes.append(stack.enter_context(running(body)))
            ended = {}
            for process in processes:
                assert process.stdout is not None
                process.stdout.readline()
                time.sleep(chance.random() * 0.1)
                ended[process.pid] = kill(process, kind)
            assert_all_arrived(receiver, ended)


def test_an_outage_is_outlived(new_receiver: Callable[..., Receiver]) -> None:
    """The collector comes only after the process has gone."""
    address = lasting_address()
    with running(RECORDING.format(endpoint=address, interval_s=0.02, leaves=0)) as process:
        assert process.stdout is not None
        for _ in range(50):
            process.stdout.readline()
        ended = {process.pid: kill(process, "SIGKILL")}
    assert_all_arrived(new_receiver(address), ended)


def test_children_that_leave_by_exit(receiver: Receiver) -> None:
    """Without a flush, a shutdown or a hook of ours, many at once."""
    body = f"""
        import os
        tracer = infertrace.Tracer("{receiver.endpoint}")
        tracer.start_span("m", tags={{"number": "0"}}).end()
        for _ in range({CHILDREN}):
            pid = os.fork()
            if not pid:
                for number in range({SPANS_OF_CHILD}):
                    tracer.start_span("m", tags={{"number": str(number)}}).end()
                os._exit(0)
            print(pid, flush=True)
        for _ in range({CHILDREN}):
            os.wait()
    """
    done = subprocess.run(
        program(body), env=environment(backends.selected), capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    children = {int(line): SPANS_OF_CHILD for line in done.stdout.split()}
    assert len(children) == CHILDREN
    assert_all_arrived(receiver, children)


def test_who_hangs_up_and_lives_is_not_delivered_for(tracer: Any, receiver: Receiver) -> None:
    """Each span arrives once, although its process has told the sender that it goes."""
    for number in range(30):
        tracer.start_span("m", tags={"number": str(number)}).end()
        if number % 10 == 5:
            tracer._exporter._connection.disconnect()
    assert tracer.flush(60)
    arrived = [int(span.tags["number"]) for span in receiver.spans]
    assert sorted(arrived) == list(range(30))
    assert not any(request.final for request in receiver.requests)
