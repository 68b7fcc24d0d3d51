"""gevent and eventlet: threads of ours are green ones there, and must give way to the others."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from grpc_receiver import Receiver
from traced_program import run_program

PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}
SPAWN = {
    "gevent": "import gevent; spawn, sleep = gevent.spawn, gevent.sleep",
    "eventlet": "spawn, sleep = eventlet.spawn, eventlet.sleep",
}
LOOP = """
    import json, sys, time
    {spawn}
    tracer = infertrace.Tracer({endpoint!r}, export_interval_s=0.1, resource_interval_s=0.1,
                               exit_timeout_s=30, **{settings!r})
    beats = 0
    def heart():
        global beats
        while True:
            sleep(0.005)
            beats += 1
    def work():
        for _ in range(100):
            with tracer.start_span("m"):
                sleep(0.001)
    spawn(heart)
    workers = [spawn(work) for _ in range(5)]
    while tracer.stats()["produced"] < 500:
        sleep(0.01)
    before = beats
    assert tracer.flush(60)
    sleep(0.5)
    stats = tracer.stats()
    print(json.dumps([stats, beats - before, "grpc" in sys.modules]))
"""


@pytest.fixture
def sender() -> None:
    """gRPC in this process waits in C, which green threads cannot do: the sender has it."""


@pytest.mark.parametrize("library", PATCHES)
def test_green_threads_deliver_and_give_way(backend: Any, receiver: Receiver, library: str) -> None:
    program = LOOP.format(spawn=SPAWN[library], endpoint=receiver.endpoint, settings={})
    done = run_program(backend, program, first=PATCHES[library])
    assert done.returncode == 0, done.stderr
    stats, beats, has_grpc = json.loads(done.stdout)
    assert stats["delivered"] == stats["produced"] == 500
    assert len({span.span_id for span in receiver.spans}) == 500
    assert beats > 0
    assert not has_grpc
    assert receiver.requests[-1].final


@pytest.mark.parametrize("library", PATCHES)
def test_a_tracer_that_was_made_before_threads_were_patched(
    backend: Any, receiver: Receiver, library: str
) -> None:
    """As gunicorn does it that loads an application before it starts its workers."""
    program = f"""
        import os
        tracer = infertrace.Tracer({receiver.endpoint!r}, export_interval_s=0.05,
                                   resource_interval_s=0, exit_timeout_s=60)
        if os.fork() == 0:
            {PATCHES[library].replace("; ", chr(10) + " " * 12)}
            {SPAWN[library].replace("; ", chr(10) + " " * 12)}
            beats = []
            def heart():
                while True:
                    sleep(0.005)
                    beats.append(1)
            spawn(heart)
            for _ in range(20):
                with tracer.start_span("m"):
                    sleep(0.01)
            assert len(beats) >= 5, beats
            assert tracer.flush(60)
            os._exit(0)
        assert os.wait()[1] == 0
    """
    done = run_program(backend, program)
    assert done.returncode == 0, done.stderr
    assert len({span.span_id for span in receiver.spans}) == 20


@pytest.mark.parametrize("library", PATCHES)
def test_the_collector_is_down(backend: Any, receiver: Receiver, library: str) -> None:
    """What the exporter waits for holds up nobody, and it delivers when there is a collector."""
    program = f"""
        {SPAWN[library]}
        tracer = infertrace.Tracer("127.0.0.1:1", export_interval_s=0.05, exit_timeout_s=30)
        beats = []
        def heart():
            while True:
                sleep(0.005)
                beats.append(1)
        spawn(heart)
        tracer.start_span("m").end()
        assert not tracer.flush(1)
        assert beats
        tracer.configure(endpoint={receiver.endpoint!r})
        assert tracer.flush(60)
        print(tracer.stats()["delivered"])
    """
    done = run_program(backend, program, first=PATCHES[library])
    assert (done.stdout, done.returncode) == ("1\n", 0), done.stderr


@pytest.mark.parametrize("library", PATCHES)
def test_grpc_in_this_process_is_refused(backend: Any, receiver: Receiver, library: str) -> None:
    """Its threads wait in C; what was recorded waits for another way."""
    program = f"""
        {SPAWN[library]}
        tracer = infertrace.Tracer({receiver.endpoint!r}, sender_process=False, exit_timeout_s=30)
        tracer.start_span("m").end()
        assert not tracer.flush(0.5)
        tracer.configure(sender_process=True)
        assert tracer.flush(60)
    """
    done = run_program(backend, program, first=PATCHES[library])
    assert done.returncode == 0, done.stderr
    assert "threads are green here" in done.stderr
    assert len(receiver.spans) == 1


def test_a_gpu_is_not_read_by_green_threads(backend: Any) -> None:
    program = """
        print(infertrace.get_gpu_metrics())
        from infertrace.gpu import gpu_reason
        print("green" in gpu_reason())
    """
    done = run_program(backend, program, first=PATCHES["gevent"])
    assert done.stdout == "{}\nTrue\n", done.stderr


SIGTERM_IN_THE_LOOP = """
    import gevent, os, signal
    from threading import Event
    handled = Event()
    if {is_handled}:
        signal.signal(signal.SIGTERM, lambda *_: handled.set())
    tracer = infertrace.Tracer({endpoint!r}, flush_on_sigterm=True, export_interval_s=3600,
                               exit_timeout_s=60)
    tracer.start_span("m").end()
    def send():
        # The handler runs before the next line, in the event loop.
        os.kill(os.getpid(), signal.SIGTERM)
        print("sent", flush=True)
    gevent.get_hub().loop.run_callback(send)
    while not (handled.is_set() and tracer.stats()["delivered"]):
        gevent.sleep(0.01)
    print("handled", flush=True)
"""


@pytest.mark.parametrize("is_handled", [True, False])
def test_sigterm_in_the_event_loop(backend: Any, receiver: Receiver, is_handled: bool) -> None:
    """Nothing can wait there, and an exception of ours would end the program's own handling."""
    body = SIGTERM_IN_THE_LOOP.format(endpoint=receiver.endpoint, is_handled=is_handled)
    done = run_program(backend, body, first=PATCHES["gevent"])
    assert "Error" not in done.stderr
    assert len(receiver.spans) == 1
    if is_handled:
        assert done.stdout == "sent\nhandled\n", done.stderr
        assert done.returncode == 0
    else:
        assert done.stdout == "sent\n", done.stderr
        assert done.returncode == -signal.SIGTERM
