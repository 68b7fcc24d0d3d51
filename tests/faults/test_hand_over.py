"""The end of a process whose collector is slow, late or down: a common sender has its spans."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backend_recording import assert_closed
from collector_process import CollectorProcess
from grpc_receiver import Receiver
from infertrace.exporting import host_sender
from lasting_address import lasting_address
from otlp_receiver import GrpcOtlpReceiver
from spoken_protocol import Spoken
from traced_program import environment, run_program, start_program, wait_until

PROCESSES = 64
# Of a kind that starts an interpreter each, which takes the machine minutes.
SOME_PROCESSES = 16
SPANS = 99
BUSY_LOOPS = 4

STORM = f"""
import json, multiprocessing, os, sys
from multiprocessing import util
from pathlib import Path
import infertrace

tracer = infertrace.Tracer(sys.argv[1])

def report():
    Path(sys.argv[3], str(os.getpid())).write_text(json.dumps(tracer.stats()))

def work(gate):
    # After the tracer's own, which has -1000.
    util.Finalize(None, report, exitpriority=-2000)
    gate.wait()
    for _ in range({SPANS}):
        with tracer.start_span("m", "worker"):
            pass

if __name__ == "__main__":
    with tracer.start_span("m", "parent"):
        pass
    assert tracer.flush(120)
    context = multiprocessing.get_context(sys.argv[2])
    processes = int(sys.argv[4])
    gate = context.Barrier(processes)
    workers = [context.Process(target=work, args=(gate,)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * processes
"""


@pytest.fixture
def neighbours() -> Iterator[None]:
    """Busy ones, which do not lower their priority."""
    busy = [
        subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"])
        for _ in range(BUSY_LOOPS)
    ]
    yield
    for process in busy:
        process.kill()
        process.wait()


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_many_workers_that_end_at_once(
    backend: Any,
    collector: CollectorProcess,
    tmp_path: Path,
    neighbours: None,
    nightly: bool,
    method: str,
) -> None:
    """Nothing is lost, nothing is miscounted, with the default settings."""
    processes = PROCESSES if nightly or method == "fork" else SOME_PROCESSES
    script = tmp_path / "storm.py"
    script.write_text(STORM)
    reports = tmp_path / "reports"
    reports.mkdir()
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(script), collector.endpoint, method, str(reports), str(processes)],
        env=environment(backend),
        capture_output=True,
        text=True,
        timeout=400,
    )
    ended = time.monotonic()
    assert done.returncode == 0, done.stderr
    assert "not delivered" not in done.stderr
    ledgers = [json.loads(path.read_text()) for path in reports.iterdir()]
    assert len(ledgers) == processes
    for ledger in ledgers:
        assert_closed(ledger)
        assert ledger["dropped"] == {}
        assert ledger["delivered"] + ledger["handed_over"] == ledger["produced"] == SPANS
        assert ledger["pending"] == ledger["handed_over"]
    # The neighbours are still busy, and the sender's priority is low.
    wait_until(lambda: collector.count() == processes * SPANS + 1, patience_s=240)
    spans = collector.spans(operation="worker")
    assert len(spans) == len({span["span_id"] for span in spans}) == processes * SPANS
    for account in collector.producers():
        assert account["stored"] == account["produced"]
        assert account["dropped"] == {}
        assert account["gaps"] == []
    handed_over = sum(ledger["handed_over"] for ledger in ledgers)
    print(
        f"{backend.NAME}, {method}: {ended - began:.1f} s for all; "
        f"{handed_over} of {processes * SPANS} spans handed over, "
        f"all stored {time.monotonic() - ended:.1f} s after the last process"
    )


def test_a_collector_that_comes_after_the_process(
    backend: Any, new_collector: Callable[..., CollectorProcess], spoken: Spoken
) -> None:
    """The process does not wait for it, and says that everything is taken care of."""
    address = lasting_address()
    first = new_collector(address, **spoken.options)
    endpoint = spoken.endpoint(first)
    first.kill()
    done = run_program(
        backend,
        f"""
        import json
        tracer = infertrace.Tracer("{endpoint}", protocol="{spoken.protocol}")
        for _ in range({SPANS}):
            with tracer.start_span("m"):
                pass
        print(json.dumps([tracer.shutdown(60), tracer.stats()]))
        """,
    )
    assert done.returncode == 0, done.stderr
    assert "not delivered" not in done.stderr
    is_all, stats = json.loads(done.stdout)
    assert is_all is True
    assert_closed(stats)
    assert stats["pending"] == stats["handed_over"] == SPANS
    assert stats["dropped"] == {}
    collector = new_collector(address, **spoken.options)
    wait_until(lambda: collector.count() == SPANS)
    if spoken.protocol == "infertrace":
        wait_until(lambda: all(account["state"] == "finished" for account in collector.producers()))
        (account,) = collector.producers()
        assert account["stored"] == account["produced"] == SPANS


def test_a_collector_that_turns_out_to_take_otlp_after_the_process(backend: Any) -> None:
    address = lasting_address()
    body = f"""
        tracer = infertrace.Tracer("{address}")
        for _ in range({SPANS}):
            tracer.start_span("m").end()
        assert tracer.shutdown(60)
        assert tracer.stats()["handed_over"] == {SPANS}
    """
    done = run_program(backend, body)
    assert done.returncode == 0, done.stderr
    receiver = GrpcOtlpReceiver(address)
    try:
        wait_until(lambda: len(receiver.span_ids) == SPANS)
        assert len(receiver.spans) == SPANS
    finally:
        receiver.stop()


def test_a_batch_on_its_way_is_not_sent_twice(backend: Any, receiver: Receiver) -> None:
    """The process does not know that it arrives; its sender does."""
    accept = receiver.answer
    may_answer = threading.Event()

    def slowly(*request: Any) -> Any:
        may_answer.wait(60)
        return accept(*request)

    receiver.answer = slowly
    running = start_program(
        backend,
        f"""
        import json, os
        tracer = infertrace.Tracer("{receiver.endpoint}", export_interval_s=0.01,
                                   max_batch_bytes=4096)
        for number in range(400):
            with tracer.start_span("m", tags={{"number": str(number)}}):
                pass
        while tracer._exporter.sender_pid is None:
            pass
        print(tracer.shutdown(60), json.dumps(tracer.stats()), flush=True)
        """,
    )
    assert running.stdout is not None
    with running.stdout:
        said = running.stdout.readline()
    assert running.wait(60) == 0
    assert said.startswith("True ")
    stats = json.loads(said.partition(" ")[2])
    assert stats["handed_over"] == stats["pending"] > 0
    time.sleep(0.5)
    may_answer.set()
    wait_until(lambda: any(request.final for request in receiver.requests))
    numbers = [int(span.tags["number"]) for span in receiver.spans]
    assert sorted(numbers) == list(range(400))
    last = receiver.requests[-1]
    assert last.final
    assert last.produced_count == 400
    assert not last.dropped_counts


def test_what_the_collector_refuses_after_the_end_is_counted_for_the_process(
    backend: Any,
) -> None:
    """The sender gives the account that the process cannot give any more."""
    address = lasting_address()
    done = run_program(
        backend,
        f"""
        tracer = infertrace.Tracer("{address}")
        for _ in range(10):
            tracer.start_span("m").end()
        assert tracer.shutdown(60)
        """,
    )
    assert done.returncode == 0, done.stderr
    late_receiver = Receiver(address)
    accept = late_receiver.answer

    def most(request: Any, context: Any) -> Any:
        answer = accept(request, context)
        if request.spans:
            answer.accepted_count -= 3
            answer.rejected_count = 3
        return answer

    late_receiver.answer = most
    try:
        wait_until(lambda: any(request.final for request in late_receiver.requests))
        last = late_receiver.requests[-1]
        assert dict(last.dropped_counts) == {"rejected": 3}
        assert last.produced_count == 10
    finally:
        late_receiver.stop()


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("sys.exit(0)", 0),
        ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)", -signal.SIGTERM),
    ],
)
def test_ends_with_a_collector_that_hangs(backend: Any, hung: str, end: str, code: int) -> None:
    done = run_program(
        backend,
        f"""
        import os, signal, sys, time
        tracer = infertrace.Tracer("{hung}", flush_on_sigterm=True, exit_timeout_s=60)
        for _ in range(50):
            tracer.start_span("m").end()
        {end}
        """,
    )
    assert done.returncode == code, done.stderr
    assert "not delivered" not in done.stderr


def test_many_tracers_hand_over_together(backend: Any, hung: str, receiver: Receiver) -> None:
    """Of twenty whose collectors hang, none holds the others up, or the one that works."""
    done = run_program(
        backend,
        f"""
        tracers = [infertrace.Tracer("{hung}", exit_timeout_s=60) for _ in range(20)]
        tracers.append(infertrace.Tracer("{receiver.endpoint}", exit_timeout_s=60))
        for tracer in tracers:
            tracer.start_span("m").end()
        """,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" or "not delivered" not in done.stderr
    wait_until(lambda: any(request.final for request in receiver.requests))
    assert len(receiver.spans) == 1


def test_a_sender_that_is_stopped_finds_the_spans_when_it_goes_on(
    new_tracer: Any, new_receiver: Callable[..., Receiver]
) -> None:
    """What was written to its socket outlives the process that wrote it."""
    address = lasting_address()
    tracer = new_tracer(address)
    tracer.start_span("m").end()
    wait_until(lambda: tracer._exporter.sender_pid is not None)
    sender = tracer._exporter.sender_pid
    os.kill(sender, signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert tracer.shutdown(1)
        assert time.monotonic() - began < 10  # not a speed
        assert tracer.stats()["handed_over"] == 1
    finally:
        os.kill(sender, signal.SIGCONT)
    receiver = new_receiver(address)
    wait_until(lambda: any(request.final for request in receiver.requests))
    assert len(receiver.spans) == 1


def test_without_a_sender_the_exit_timeout_bounds_the_wait(
    new_tracer: Any, hung: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracer = new_tracer(hung)
    tracer.start_span("m").end()
    wait_until(lambda: tracer._exporter.sender_pid is not None)
    with monkeypatch.context() as patch:
        patch.setattr(host_sender, "start", start_nothing)
        os.kill(tracer._exporter.sender_pid, signal.SIGKILL)
        began = time.monotonic()
        assert not tracer.shutdown(1)
        assert time.monotonic() - began < 10  # not a speed
    stats = tracer.stats()
    assert stats["dropped"] == {"shutdown": 1}
    assert stats["pending"] == stats["handed_over"] == 0


def start_nothing(*_: Any) -> None:
    raise BlockingIOError("Resource temporarily unavailable")


def test_a_shutdown_with_spans_from_all_sides(backend: Any, hung: str) -> None:
    """Threads go on recording while the spans are handed over; each is counted once."""
    done = run_program(
        backend,
        f"""
        import json, threading
        tracer = infertrace.Tracer("{hung}", max_batch_bytes=4096, export_interval_s=0.01)
        done = threading.Event()
        def record():
            while not done.is_set():
                with tracer.start_span("m", tags={{"a": "b"}}):
                    pass
        threads = [threading.Thread(target=record) for _ in range(4)]
        for thread in threads:
            thread.start()
        threading.Event().wait(0.2)
        tracer.shutdown(60)
        done.set()
        for thread in threads:
            thread.join()
        print(json.dumps(tracer.stats()))
        """,
    )
    assert done.returncode == 0, done.stderr
    stats = json.loads(done.stdout)
    assert_closed(stats)
    assert stats["pending"] == stats["handed_over"] > 0
    assert set(stats["dropped"]) <= {"shutdown", "buffer_full"}
