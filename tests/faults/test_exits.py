"""The ways a process may exit: cleanly, with spans left, with busy threads, by a finalizer."""

from __future__ import annotations

import gc
import json
import logging
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from backend_recording import assert_closed
from grpc_receiver import Receiver
from traced_program import (
    environment,
    run_program,
    wait_until,
)

FLUSH = {"flush_on_sigterm": True}


@pytest.mark.parametrize("seed", range(20))
def test_shutdown_from_a_finalizer(own_sender: None, new_tracer: Any, hung: str, seed: int) -> None:
    """The GC may run it anywhere, also in the middle of the buffer's own work."""
    tracer = new_tracer(endpoint=hung, export_interval_s=0.01)
    chance = random.Random(seed)
    results = []

    class Model:
        def __init__(self) -> None:
            self.cycle = self

        def __del__(self) -> None:
            results.append(tracer.shutdown(timeout=0.05))

    threshold = gc.get_threshold()
    gc.collect()
    tracer.start_span("m").end()
    Model()
    gc.set_threshold(chance.randint(2, 40))
    try:
        for _ in range(99):
            with tracer.start_span("m", tags={"a": "b"}) as span:
                span.add_event("e", {"k": 1})
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    stats = tracer.stats()
    assert len(results) == 1
    assert stats["produced"] == stats["dropped"]["shutdown"] == 100
    assert stats["pending"] == 0


@pytest.mark.parametrize("how", ["return", "sys.exit(3)", "1/0", "os.kill(os.getpid(), 2)"])
def test_leaving_the_interpreter_delivers(backend: Any, receiver: Receiver, how: str) -> None:
    outcome = run_program(
        backend,
        f"""
        import os, sys
        def main():
            # The default is too short for a sender that starts on a busy machine.
            tracer = infertrace.Tracer("{receiver.endpoint}", service_name="exit",
                                       exit_timeout_s=60)
            for _ in range(50):
                with tracer.start_span("m"): pass
            {how}
        main()
        """,
    )
    # What took the collector long arrives by way of the sender, after the end.
    wait_until(lambda: any(request.final for request in receiver.requests))
    assert len(receiver.spans) == 50, outcome.stderr


def test_leaving_the_interpreter_is_bounded_and_says_what_is_lost(
    own_sender: None, backend: Any, hung: str
) -> None:
    began = time.monotonic()
    outcome = run_program(
        backend,
        f"""
        tracer = infertrace.Tracer("{hung}", exit_timeout_s=0.5)
        for _ in range(50):
            with tracer.start_span("m"): pass
        """,
    )
    assert outcome.returncode == 0
    assert "50 spans were not delivered" in outcome.stderr
    assert time.monotonic() - began < 30


def test_all_tracers_share_one_deadline_at_the_exit(
    backend: Any, hung: str, receiver: Receiver
) -> None:
    """Thirty collectors that hang, and one that answers, which still gets the goodbye."""
    began = time.monotonic()
    outcome = run_program(
        backend,
        f"""
        options = dict(exit_timeout_s=5, resource_interval_s=0)
        tracers = [infertrace.Tracer("{receiver.endpoint}", **options)]
        tracers[0].start_span("m").end()
        assert tracers[0].flush(60)  # its sender has started, however busy the machine is
        options["sender_process"] = False
        tracers += [infertrace.Tracer("{hung}", **options) for _ in range(30)]
        for tracer in tracers:
            tracer.start_span("m").end()
        """,
    )
    assert outcome.returncode == 0
    assert outcome.stderr.count("1 spans were not delivered") == 30
    wait_until(lambda: any(request.final for request in receiver.requests))
    assert len(receiver.spans) == 2
    assert time.monotonic() - began < 100  # one after the other they would take 150


def test_a_second_shutdown_answers_as_the_first(
    own_sender: None, new_tracer: Any, hung: str
) -> None:
    tracer = new_tracer(hung)
    tracer.start_span("m").end()
    assert [tracer.shutdown(0.1) for _ in range(3)] == [False] * 3
    tracer = new_tracer(hung)
    assert [tracer.shutdown(0.1) for _ in range(3)] == [True] * 3


def test_a_second_shutdown_waits_for_the_first(
    own_sender: None, new_tracer: Any, hung: str
) -> None:
    tracer = new_tracer(hung)
    for _ in range(10):
        tracer.start_span("m").end()
    first: list[bool] = []
    thread = threading.Thread(target=lambda: first.append(tracer.shutdown(2)))
    thread.start()
    while tracer.start_span("late") is not None and not tracer.stats()["dropped"]:
        tracer.start_span("late").end()  # dropped, once the first has begun
    assert tracer.shutdown(0.01) is False  # it is not over
    assert tracer.shutdown(60) is False
    thread.join()
    assert first == [False]


def test_a_shutdown_that_is_interrupted_can_be_called_again(
    new_tracer: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracer = new_tracer(receiver.endpoint, export_interval_s=3600)

    def interrupted(timeout_s: float, **_: Any) -> bool:
        raise KeyboardInterrupt

    tracer.start_span("m").end()
    with monkeypatch.context() as patch:
        patch.setattr(tracer._exporter, "flush", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tracer.shutdown(60)
    assert tracer.shutdown(60)
    wait_until(lambda: len(receiver.spans) == 1)


def test_a_tracer_that_nobody_can_reach_delivers_and_goes(backend: Any, receiver: Receiver) -> None:
    """As when a notebook's cell makes one each time it runs."""
    outcome = run_program(
        backend,
        f"""
        import gc, os, threading, time
        from pathlib import Path
        def standing():
            children = Path(f"/proc/self/task/{{os.getpid()}}/children").read_text().split()
            return len(os.listdir("/proc/self/fd")), threading.active_count(), len(children)
        before = standing()
        for _ in range(30):
            tracer = infertrace.Tracer("{receiver.endpoint}", exit_timeout_s=30)
            with tracer.start_span("m"): pass
        late = tracer.start_span("late")
        del tracer
        gc.collect()
        deadline = time.monotonic() + 60
        # What the tracer of the span that goes on is woken by, and its memory, stay with it.
        while any(now > then + 3 for now, then in zip(standing(), before)):
            assert time.monotonic() < deadline, (before, standing())
            time.sleep(0.05)
            gc.collect()
        late.end()  # wakes what had gone
        """,
    )
    assert outcome.returncode == 0, outcome.stderr
    wait_until(lambda: len({span.span_id for span in receiver.spans}) == 31)
    wait_until(lambda: len({one.producer_id for one in receiver.requests if one.final}) == 30)


def test_a_tracer_that_nobody_can_reach_takes_its_spool_with_it(
    backend: Any, receiver: Receiver, tmp_path: Path
) -> None:
    outcome = run_program(
        backend,
        f"""
        import glob, time
        def spools():
            return glob.glob({str(tmp_path)!r} + "/*.spool")
        tracer = infertrace.Tracer("{receiver.endpoint}", spool_dir={str(tmp_path)!r},
                                   exit_timeout_s=60)
        tracer.start_span("m").end()
        late = tracer.start_span("late")
        assert len(spools()) == 1
        del tracer
        deadline = time.monotonic() + 60
        while spools():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        late.end()
        """,
    )
    assert outcome.returncode == 0, outcome.stderr
    wait_until(lambda: len({span.span_id for span in receiver.spans}) == 2)
    wait_until(lambda: list(tmp_path.iterdir()) == [])


def test_a_tracer_without_spans_goes_at_once(backend: Any) -> None:
    outcome = run_program(
        backend,
        """
        import gc, threading, time, weakref
        import glob, os, tempfile
        folder = tempfile.mkdtemp()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            tracer = infertrace.Tracer("127.0.0.1:1", spool_dir=folder)
            exporter = weakref.ref(tracer._exporter)
            del tracer
        assert os.listdir(folder) == []
        deadline = time.monotonic() + 60
        while threading.active_count() > 1 or exporter() is not None:
            assert time.monotonic() < deadline, threading.enumerate()
            time.sleep(0.05)
            gc.collect()
        assert len(os.listdir("/proc/self/fd")) <= before + 2  # a spare sender's
        """,
    )
    assert outcome.returncode == 0, outcome.stderr


def test_a_decorated_function_outlives_its_tracer(backend: Any, receiver: Receiver) -> None:
    outcome = run_program(
        backend,
        f"""
        import gc, time
        @infertrace.Tracer("{receiver.endpoint}", exit_timeout_s=30).trace_inference(model="m")
        def work(): pass
        work()
        gc.collect()
        time.sleep(0.5)
        work()
        """,
    )
    assert outcome.returncode == 0, outcome.stderr
    wait_until(lambda: len({span.span_id for span in receiver.spans}) == 2)


def test_exit_with_a_thread_in_mid_emit(backend: Any, receiver: Receiver) -> None:
    outcome = run_program(
        backend,
        f"""
        import threading, time
        tracer = infertrace.Tracer("{receiver.endpoint}")
        def emit():
            while True:
                with tracer.start_span("m", tags={{"a": "b"}}): pass
                time.sleep(1e-4)
        for _ in range(3):
            threading.Thread(target=emit, daemon=True).start()
        time.sleep(0.3)
        """,
    )
    assert outcome.returncode == 0
    assert "Traceback" not in outcome.stderr
    assert "Fatal" not in outcome.stderr
    wait_until(lambda: any(request.final for request in receiver.requests))
    last = receiver.requests[-1]
    assert last.final
    # Spans that end after the shutdown began have their own counter.
    assert last.produced_count == len(receiver.spans) + sum(last.dropped_counts.values())


def test_spans_of_the_last_moments(own_sender: None, backend: Any, receiver: Receiver) -> None:
    """From atexit before and after the tracer's own shutdown, and from a finalizer at exit."""
    body = f"""
        import atexit, gc, json, os
        def record(name):
            with tracer.start_span("m", name): pass
        def last():
            record("too late")
            os.write(1, json.dumps(tracer.stats()).encode())
        atexit.register(last)  # before infertrace's own, so it is called after that
        import infertrace
        tracer = infertrace.Tracer("{receiver.endpoint}")
        class Model:
            def __del__(self):
                record("finalizer")
        model = Model()
        model.cycle = model
        del model
        atexit.register(record, "atexit")
        atexit.register(gc.collect)
    """
    outcome = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(body)],
        env=environment(backend),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stderr == ""
    assert sorted(span.operation_name for span in receiver.spans) == ["atexit", "finalizer"]
    stats = json.loads(outcome.stdout)
    assert_closed(stats)
    assert (stats["produced"], stats["delivered"]) == (3, 2)
    assert stats["dropped"] == {"shutdown": 1}


def test_spans_from_a_signal_handler(own_sender: None, backend: Any, receiver: Receiver) -> None:
    """While the main thread records, flushes and ends."""
    outcome = run_program(
        backend,
        f"""
        import json, os, signal
        tracer = infertrace.Tracer("{receiver.endpoint}", export_interval_s=0.01)
        handled = 0
        def handler(*_):
            global handled
            with tracer.start_span("m", "handler"):
                handled += 1
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 1e-3, 1e-3)
        made = 0
        while handled < 300:
            with tracer.start_span("m", "main"):
                made += 1
            if made % 1000 == 0:
                tracer.flush(60)
        assert tracer.flush(60)
        tracer.shutdown(60)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps([made, handled, tracer.stats()]))
        """,
    )
    assert outcome.returncode == 0, outcome.stderr
    made, handled, stats = json.loads(outcome.stdout)
    assert_closed(stats)
    assert stats["produced"] == made + handled
    assert stats["delivered"] == len({span.span_id for span in receiver.spans})
    assert set(stats["dropped"]) <= {"shutdown"}


SIGTERM = """
    import os, signal, threading, time
    {before}
    tracer = infertrace.Tracer("{endpoint}", flush_on_sigterm={wanted}, export_interval_s=3600,
                               exit_timeout_s=60)
    for _ in range(50):
        with tracer.start_span("m"): pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.1)
    os._exit(3)
"""


@pytest.mark.parametrize(
    ("before", "code"),
    [
        ("", -signal.SIGTERM),
        ("signal.signal(signal.SIGTERM, lambda number, frame: os._exit(number))", signal.SIGTERM),
        ("signal.signal(signal.SIGTERM, signal.SIG_IGN)", 3),
    ],
    ids=["default", "handler", "ignored"],
)
def test_sigterm_delivers_and_then_does_what_it_did(
    backend: Any, receiver: Receiver, before: str, code: int
) -> None:
    outcome = run_program(
        backend, SIGTERM.format(before=before, endpoint=receiver.endpoint, wanted=True)
    )
    assert outcome.returncode == code, outcome.stderr
    wait_until(lambda: len(receiver.spans) == 50)


def test_sigterm_with_a_handler_that_passes_on(backend: Any, receiver: Receiver) -> None:
    """The program sets a handler that calls ours; then ours is set again, and calls that one."""
    outcome = run_program(
        backend,
        f"""
        import os, signal, time
        tracer = infertrace.Tracer("{receiver.endpoint}", flush_on_sigterm=True,
                                   export_interval_s=3600, exit_timeout_s=60)
        for _ in range(3):
            former = signal.getsignal(signal.SIGTERM)
            calls = []
            def mine(number, frame, former=former):
                calls.append(1)
                former(number, frame)
            signal.signal(signalnum=signal.SIGTERM, handler=mine)
            tracer.configure(sample_rate=1.0)
        tracer.start_span("m").end()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
        os._exit(3)
        """,
    )
    assert outcome.returncode == -signal.SIGTERM, outcome.stderr
    wait_until(lambda: len(receiver.spans) == 1)


def test_signal_signal_takes_what_it_took(backend: Any, receiver: Receiver) -> None:
    outcome = run_program(
        backend,
        f"""
        import os, signal, time
        signal.signal(signal.SIGTERM, lambda number, frame: None)
        tracer = infertrace.Tracer("{receiver.endpoint}", flush_on_sigterm=True)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        signal.signal(signalnum=signal.SIGUSR1, handler=signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
        """,
    )
    assert outcome.returncode == 0, outcome.stderr


def test_sigterm_is_left_alone_unless_asked_for(backend: Any, receiver: Receiver) -> None:
    outcome = run_program(
        backend, SIGTERM.format(before="", endpoint=receiver.endpoint, wanted=False)
    )
    assert outcome.returncode == -signal.SIGTERM
    assert receiver.spans == []


def test_sigterm_with_a_collector_that_hangs(own_sender: None, backend: Any, hung: str) -> None:
    program = SIGTERM.format(before="", endpoint=hung, wanted=True).replace("=60)", "=0.3)")
    began = time.monotonic()
    outcome = run_program(backend, program)
    assert outcome.returncode == -signal.SIGTERM
    assert "50 spans were not delivered" in outcome.stderr
    assert time.monotonic() - began < 30


def test_sigterm_cannot_be_set_up_on_another_thread(
    new_tracer: Any, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=new_tracer, args=(receiver.endpoint,), kwargs=FLUSH)
    with caplog.at_level(logging.WARNING, "infertrace"):
        thread.start()
        thread.join()
    assert caplog.messages == [
        "flush_on_sigterm: SIGTERM is left as it was: only a tracer that is made or configured "
        "on the main thread can"
    ]
    assert signal.getsignal(signal.SIGTERM) is before
