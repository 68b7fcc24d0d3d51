"""The process that speaks gRPC for the traced one: it may be killed, stopped, forked away from."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from grpc_receiver import Receiver
from infertrace import backend as backends
from infertrace.exporting import process_transport


@pytest.fixture
def sender() -> None:
    """All of these are about the sender process."""


def sender_of(tracer: Any) -> subprocess.Popen[bytes]:
    process: subprocess.Popen[bytes] = tracer._exporter._transport._process._process
    return process


def test_the_traced_process_loads_neither_grpc_nor_protobuf(
    backend: Any, receiver: Receiver
) -> None:
    program = f"""
        import sys, infertrace
        tracer = infertrace.Tracer("{receiver.endpoint}")
        tracer.start_span("m").end()
        assert tracer.shutdown()
        print(sys.modules.keys() & {{"grpc", "google.protobuf"}})
    """
    done = run_program(backend, program)
    assert (done.stdout, done.returncode) == ("set()\n", 0), done.stderr
    assert len(receiver.spans) == 1


def test_a_killed_sender_is_replaced(tracer: Any, receiver: Receiver) -> None:
    for number in range(1, 4):
        tracer.start_span("m").end()
        assert tracer.flush(30)
        sender_of(tracer).kill()
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
    sender_of(tracer).kill()
    assert tracer.flush(30)
    assert tracer.stats()["delivered"] == 100
    assert len({span.span_id for span in receiver.spans}) == 100


def test_a_stopped_sender_holds_no_deadline_up(new_tracer: Any, receiver: Receiver) -> None:
    tracer = new_tracer(receiver.endpoint)
    tracer.start_span("m").end()
    assert tracer.flush(30)
    process = sender_of(tracer)
    process.send_signal(signal.SIGSTOP)
    tracer.start_span("m").end()
    began = time.monotonic()
    assert not tracer.flush(0.2)
    assert not tracer.shutdown(0.2)
    # Not a speed: the request itself may take 10 s.
    assert time.monotonic() - began < 5
    assert process.returncode == -signal.SIGKILL  # and has been waited for
    assert tracer.stats()["dropped"] == {"shutdown": 1}


def test_shutdown_leaves_no_process(tracer: Any) -> None:
    tracer.start_span("m").end()
    assert tracer.flush(30)
    pid = sender_of(tracer).pid
    tracer.shutdown()
    assert not Path(f"/proc/{pid}").exists()


def test_the_sender_ends_with_a_killed_producer(backend: Any, receiver: Receiver) -> None:
    """Also while a forked child of that producer lives on."""
    program = f"""
        import os, signal, subprocess, time, infertrace
        tracer = infertrace.Tracer("{receiver.endpoint}")
        tracer.start_span("m").end()
        assert tracer.flush(30)
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
        print(tracer._exporter._transport._process.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    running = start_program(backend, program)
    assert running.stdout is not None
    pid = int(running.stdout.readline())
    running.wait(60)
    assert wait_until(lambda: has_ended(pid))
    running.stdout.close()


def test_signals_to_a_whole_group_leave_it_its_work(backend: Any, receiver: Receiver) -> None:
    program = f"""
        import os, signal, infertrace
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        tracer = infertrace.Tracer("{receiver.endpoint}", export_interval_s=3600)
        tracer.start_span("m").end()
        assert tracer.flush(30)
        sender = tracer._exporter._transport._process._process
        assert os.getpgid(sender.pid) != os.getpgid(0)
        sender.send_signal(signal.SIGTERM)
        sender.send_signal(signal.SIGINT)
        tracer.start_span("m").end()
        assert tracer.flush(30)
        assert tracer._exporter._transport._process.pid == sender.pid
    """
    done = run_program(backend, program)
    assert done.returncode == 0, done.stderr


def test_children_forked_from_a_live_connection(tracer: Any, receiver: Receiver) -> None:
    """They deliver by a sender of their own; the parent's goes on as if there was no fork."""
    tracer.start_span("m", "parent").end()
    assert tracer.flush(30)
    pid = sender_of(tracer).pid
    children = []
    for _ in range(3):
        tracer.start_span("m", "parent").end()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                for _ in range(10):
                    tracer.start_span("m", "child").end()
                status = not tracer.shutdown(30)
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert tracer.flush(30)
    assert sender_of(tracer).pid == pid
    assert len({request.producer_id for request in receiver.requests}) == 4
    names = [span.operation_name for span in receiver.spans]
    assert (names.count("parent"), names.count("child")) == (4, 30)
    assert len({span.span_id for span in receiver.spans}) == 34


def test_credentials_are_in_neither_arguments_nor_environment(
    new_tracer: Any, receiver: Receiver
) -> None:
    tracer = new_tracer(receiver.endpoint, headers={"authorization": "Bearer s3cret"})
    tracer.start_span("m").end()
    assert tracer.flush(30)
    assert receiver.metadata[0]["authorization"] == "Bearer s3cret"
    for name in ("cmdline", "environ"):
        assert b"s3cret" not in Path(f"/proc/{sender_of(tracer).pid}/{name}").read_bytes()


@pytest.mark.parametrize("why", ["no process can be started", "it cannot import infertrace"])
def test_without_a_sender_this_process_sends(
    tracer: Any,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    why: str,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise BlockingIOError("Resource temporarily unavailable")

    if why == "no process can be started":
        monkeypatch.setattr(subprocess, "Popen", fail)
        process_transport.end_spare()
    else:
        process_transport.end_spare()
        monkeypatch.setattr(process_transport, "_PROGRAM", "raise SystemExit(3)")
    with caplog.at_level(logging.WARNING, "infertrace"):
        tracer.start_span("m").end()
        assert tracer.flush(30)
    assert len(receiver.spans) == 1
    (said,) = caplog.messages
    assert said.startswith("no process to send from (")


@pytest.mark.parametrize("executable", ["/usr/sbin/uwsgi", "", None, "/opt/app/model-server"])
def test_an_embedded_interpreter_is_not_started_again(
    monkeypatch: pytest.MonkeyPatch, executable: str | None
) -> None:
    assert process_transport.is_possible()
    monkeypatch.setattr(sys, "executable", executable)
    assert not process_transport.is_possible()


def test_a_frozen_program_is_not_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert not process_transport.is_possible()


def start_program(backend: Any, body: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(body)],
        env={**os.environ, backends.VARIABLE: backend.NAME},
        stdout=subprocess.PIPE,
        text=True,
    )


def run_program(backend: Any, body: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(body)],
        env={**os.environ, backends.VARIABLE: backend.NAME},
        capture_output=True,
        text=True,
        timeout=120,
    )


def has_ended(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"  # an orphan that nobody reaps


def wait_until(happened: Any, patience_s: float = 30.0) -> bool:
    end = time.monotonic() + patience_s
    while not happened():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
