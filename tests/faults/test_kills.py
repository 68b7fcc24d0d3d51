"""Kills of the traced process, of its sender and of the collector, at random moments."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backend_recording import assert_closed
from collector_process import CollectorProcess
from grpc_receiver import Receiver
from spoken_protocol import Spoken
from traced_program import (
    NOBODY,
    drain,
    environment,
    has_ended,
    program,
    sender_of,
    spools,
    start_program,
    wait_until,
)

AT_ONCE = 5
MAX_PENDING = 5_000  # spans; the buffer holds several times that


def test_a_killed_sender_is_replaced(tracer: Any, receiver: Receiver) -> None:
    for number in range(1, 4):
        tracer.start_span("m").end()
        assert tracer.flush(30)
        os.kill(sender_of(tracer), signal.SIGKILL)
        assert tracer.stats()["delivered"] == number
    tracer.start_span("m").end()
    assert tracer.flush(30)
    assert len(receiver.spans) == 4


def test_a_sender_killed_with_a_request_in_flight(tracer: Any, receiver: Receiver) -> None:
    arrived = threading.Event()
    accept = receiver.answer

    def slowly(*request: Any) -> Any:
        arrived.set()
        time.sleep(0.2)
        return accept(*request)

    receiver.answer = slowly
    for _ in range(100):
        tracer.start_span("m").end()
    assert arrived.wait(30)
    os.kill(sender_of(tracer), signal.SIGKILL)
    assert tracer.flush(30)
    assert tracer.stats()["delivered"] == 100
    assert len({span.span_id for span in receiver.spans}) == 100


def test_a_stopped_sender_holds_no_deadline_up(
    own_sender: None, new_tracer: Any, receiver: Receiver
) -> None:
    tracer = new_tracer(receiver.endpoint)
    tracer.start_span("m").end()
    assert tracer.flush(30)
    sender = sender_of(tracer)
    os.kill(sender, signal.SIGSTOP)
    tracer.start_span("m").end()
    began = time.monotonic()
    assert not tracer.flush(0.2)
    assert not tracer.shutdown(0.2)
    # Not a speed: the request itself may take 10 s.
    assert time.monotonic() - began < 5
    assert not Path(f"/proc/{sender}").exists()  # killed, and waited for
    assert tracer.stats()["dropped"] == {"shutdown": 1}


def test_the_sender_ends_with_a_killed_producer(
    own_sender: None, backend: Any, receiver: Receiver
) -> None:
    """Also while a forked child of that producer lives on."""
    program = f"""
        import os, signal, subprocess, time, infertrace
        tracer = infertrace.Tracer("{receiver.endpoint}")
        tracer.start_span("m").end()
        assert tracer.flush(30)
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
        print(tracer._exporter.sender_pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    running = start_program(backend, program)
    assert running.stdout is not None
    pid = int(running.stdout.readline())
    running.wait(60)
    wait_until(lambda: has_ended(pid))
    running.stdout.close()


def test_the_sender_ends_soon_also_with_a_request_in_flight(
    own_sender: None, backend: Any, hung: str
) -> None:
    running = start_program(
        backend,
        f"""
        import os, time
        tracer = infertrace.Tracer("{hung}", export_interval_s=0.01)
        tracer.start_span("m").end()
        while tracer._exporter.sender_pid is None:
            time.sleep(0.01)
        time.sleep(0.3)
        print(tracer._exporter.sender_pid, flush=True)
        os.kill(os.getpid(), 9)
        """,
    )
    assert running.stdout is not None
    with running.stdout:
        pid = int(running.stdout.readline())
    running.wait(60)
    began = time.monotonic()
    wait_until(lambda: has_ended(pid))
    assert time.monotonic() - began < 7  # not a speed: the request itself may take 10 s


@pytest.mark.parametrize(
    "end",
    [
        "os.kill(os.getpid(), 9)",
        "os._exit(1)",
        "import ctypes; ctypes.string_at(0)",
        "os.kill(os.getpid(), 15)",
    ],
)
def test_ends_of_a_process(
    own_sender: None, backend: Any, receiver: Receiver, tmp_path: Path, end: str
) -> None:
    body = f"""
        import os, infertrace
        tracer = infertrace.Tracer("{NOBODY}", spool_dir={str(tmp_path)!r})
        for number in range(1_000):
            with tracer.start_span("m", tags={{"number": str(number)}}):
                pass
        {end}
    """
    done = subprocess.run(program(body), env=environment(backend), timeout=60, check=False)
    assert done.returncode != 0
    drained = drain(tmp_path, receiver.endpoint)
    assert drained.returncode == 0, drained.stderr
    assert "1000 spans delivered, 0 rejected, 0 damaged" in drained.stdout
    assert [span.tags["number"] for span in receiver.spans] == [str(n) for n in range(1_000)]
    assert spools(tmp_path) == []


@pytest.fixture
def producer_kills(nightly: bool) -> int:
    """Of each backend."""
    return 500 if nightly else 25


@pytest.fixture
def collector_kills(nightly: bool) -> int:
    """Of each backend."""
    return 50 if nightly else 5


def test_kills_of_spooling_producers(
    own_sender: None, backend: Any, receiver: Receiver, tmp_path: Path, producer_kills: int
) -> None:
    """Every span reported as ended before the kill is delivered, also with batches in flight."""
    body = f"""
        import os, time
        tracer = infertrace.Tracer("{receiver.endpoint}", spool_dir={str(tmp_path)!r},
                                   export_interval_s=0.02, max_batch_bytes=4096)
        number = 0
        while True:
            for _ in range(10):
                tracer.start_span("m", tags={{"number": str(number)}}).end()
                number += 1
            os.write(1, b"%d\\n" % number)
            time.sleep(0.001)
    """
    chance = random.Random(11)
    for _ in range(producer_kills // AT_ONCE):
        receiver.requests.clear()
        with contextlib.ExitStack() as stack:
            running = [
                stack.enter_context(
                    subprocess.Popen(
                        program(body), env=environment(backend), stdout=subprocess.PIPE
                    )
                )
                for _ in range(AT_ONCE)
            ]
            ended: dict[int, int] = {}
            for process in running:
                assert process.stdout is not None
                process.stdout.readline()
                time.sleep(chance.random() * 0.1)
                process.kill()
                reported = process.stdout.read().rpartition(b"\n")[0].rpartition(b"\n")[2]
                ended[process.pid] = int(reported or 10)
        # A sender process may still deliver its last batch, which makes duplicates.
        drained = drain(tmp_path, receiver.endpoint)
        assert drained.returncode == 0, drained.stdout + drained.stderr
        assert spools(tmp_path) == []
        for requests in by_producer(receiver).values():
            pid = requests[-1].resource.attributes["process.pid"].int_value
            arrived = {int(span.tags["number"]) for r in requests for span in r.spans}
            assert arrived >= set(range(ended.pop(pid)))
            # A drainer that was killed after its goodbye leaves it to the next one to repeat.
            last = [request for request in requests if request.final][-1]
            assert last.produced_count == len(arrived) + sum(last.dropped_counts.values())
        assert ended == {}


def by_producer(receiver: Receiver) -> dict[bytes, list[Any]]:
    found: dict[bytes, list[Any]] = {}
    for request in receiver.requests:
        found.setdefault(request.producer_id, []).append(request)
    return found


def test_kills_of_the_collector(
    new_tracer: Any,
    new_collector: Callable[..., CollectorProcess],
    collector_kills: int,
    spoken: Spoken,
) -> None:
    """Acknowledged spans are stored, the others sent again, while the producer records more."""
    chance = random.Random(12)
    collector = new_collector(**spoken.options)
    tracer = new_tracer(
        spoken.endpoint(collector),
        protocol=spoken.protocol,
        export_interval_s=0.01,
        max_batch_bytes=4096,
    )
    made: list[str] = []
    done = threading.Event()

    def produce() -> None:
        while not done.is_set():
            # On a busy machine the program could record more than small batches take away.
            if tracer.stats()["pending"] < MAX_PENDING:
                for _ in range(5):
                    with tracer.start_span("m") as span:
                        made.append(span.span_id)
            time.sleep(0.002)

    producer = threading.Thread(target=produce)
    producer.start()
    try:
        for _ in range(collector_kills):
            time.sleep(chance.random() * 0.5)
            acknowledged = tracer.stats()["delivered"]
            collector.kill()
            assert_closed(tracer.stats())
            collector = new_collector(collector.endpoint, **spoken.options)
            assert collector.count() >= acknowledged
            before = tracer.stats()["delivered"]
            wait_until(lambda: tracer.stats()["delivered"] > before)  # noqa: B023
    finally:
        done.set()
        producer.join()
    assert tracer.flush(60)
    stats = tracer.stats()
    assert stats["dropped"] == {}
    assert stats["delivered"] == stats["produced"] == len(made)
    stored = [span["span_id"] for span in collector.spans()]
    assert len(stored) == len(made)
    assert set(stored) == set(made)
    (account,) = collector.producers()
    assert account["stored"] == len(made)
    assert account["produced"] == (len(made) if account["numbered"] else None)
