"""The process that speaks gRPC for the traced one: it may be killed, stopped, forked away from."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from grpc_receiver import Receiver
from infertrace.exporting import launcher
from traced_program import has_ended, run_program, sender_of, wait_until


@pytest.fixture
def sender(own_sender: None) -> None:
    """All of these are about a sender process that one tracer has for itself."""


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


def test_shutdown_leaves_no_process(tracer: Any) -> None:
    tracer.start_span("m").end()
    assert tracer.flush(30)
    pid = sender_of(tracer)
    tracer.shutdown()
    assert not Path(f"/proc/{pid}").exists()


def test_signals_to_a_whole_group_leave_it_its_work(backend: Any, receiver: Receiver) -> None:
    program = f"""
        import os, signal, infertrace
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        tracer = infertrace.Tracer("{receiver.endpoint}", export_interval_s=3600)
        tracer.start_span("m").end()
        assert tracer.flush(30)
        sender = tracer._exporter.sender_pid
        assert os.getpgid(sender) != os.getpgid(0)
        os.kill(sender, signal.SIGTERM)
        os.kill(sender, signal.SIGINT)
        tracer.start_span("m").end()
        assert tracer.flush(30)
        assert tracer._exporter.sender_pid == sender
    """
    done = run_program(backend, program)
    assert done.returncode == 0, done.stderr


def test_credentials_are_in_neither_arguments_nor_environment(
    new_tracer: Any, receiver: Receiver
) -> None:
    tracer = new_tracer(receiver.endpoint, headers={"authorization": "Bearer s3cret"})
    tracer.start_span("m").end()
    assert tracer.flush(30)
    assert receiver.metadata[0]["authorization"] == "Bearer s3cret"
    for name in ("cmdline", "environ"):
        assert b"s3cret" not in Path(f"/proc/{sender_of(tracer)}/{name}").read_bytes()


@pytest.mark.parametrize("why", ["no process can be started", "it cannot import infertrace"])
def test_without_a_sender_the_spans_wait_for_one(
    tracer: Any,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    why: str,
) -> None:
    """They are not sent from here instead: gRPC ends a process that is out of descriptors."""

    def fail(*_: Any, **__: Any) -> None:
        raise BlockingIOError("Resource temporarily unavailable")

    launcher.end_prestarted()
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "infertrace"):
        if why == "no process can be started":
            patch.setattr(subprocess, "Popen", fail)
        else:
            patch.setattr(launcher, "_PROGRAM", "raise SystemExit(3)")
        tracer.start_span("m").end()
        assert not tracer.flush(2)
        (said,) = caplog.messages
        assert "cannot deliver spans, will keep trying: no process to send from (" in said
        assert "sender_process='none'" in said
    assert tracer.flush(60)
    assert len(receiver.spans) == 1


@pytest.mark.parametrize("limit_s", [600.0, 0.0])
def test_a_sender_that_starts_slowly(
    new_tracer: Any,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    limit_s: float,
) -> None:
    """On a busy machine: a second one would be as slow, so the first one stays for long."""
    started: list[int] = []
    slow = "import time; time.sleep(1); " + launcher._PROGRAM
    monkeypatch.setattr(launcher, "_START_TIMEOUT_S", 0.01)
    monkeypatch.setattr(launcher, "_START_LIMIT_S", limit_s)
    start = launcher._start

    def counted(*arguments: Any) -> Any:
        process = start(*arguments)
        started.append(process.pid)
        return process

    monkeypatch.setattr(launcher, "_start", counted)
    launcher.end_prestarted()
    with monkeypatch.context() as patch:
        patch.setattr(launcher, "_PROGRAM", slow)
        tracer = new_tracer(receiver.endpoint)
        tracer.start_span("m").end()
        wait_until(lambda: bool(caplog.messages))
        assert "it is not ready after 0.01 s" in caplog.messages[0]
        wait_until(lambda: len(started) > 1 or bool(receiver.spans))
    if limit_s:
        assert tracer.flush(60)
        assert started == [sender_of(tracer)]
    else:
        assert len(started) > 1
        assert not receiver.spans


def test_out_of_descriptors(backend: Any, receiver: Receiver) -> None:
    """The traced process opens all that it may, and its sender is killed: it goes on."""
    program = f"""
        import os, resource, socket, time
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
        tracer = infertrace.Tracer("{receiver.endpoint}", export_interval_s=0.05,
                                   exit_timeout_s=30)
        tracer.start_span("m").end()
        assert tracer.flush(60)
        taken = []
        try:
            while True:
                taken.append(socket.socket())
        except OSError:
            pass
        os.kill(tracer._exporter.sender_pid, 9)
        for _ in range(20):
            tracer.start_span("m").end()
            time.sleep(0.02)
        assert not tracer.flush(1)
        for one in taken:
            one.close()
        assert tracer.flush(60)
        print(tracer.stats()["delivered"])
    """
    done = run_program(backend, program)
    assert (done.stdout, done.returncode) == ("21\n", 0), done.stderr
    assert len({span.span_id for span in receiver.spans}) == 21


def test_a_process_that_gave_up_its_rights(backend: Any, receiver: Receiver) -> None:
    """It may not kill the sender that it started as another user; closing the socket ends that."""
    program = f"""
        import os
        tracer = infertrace.Tracer("{receiver.endpoint}", export_interval_s=0.05)
        tracer.start_span("m").end()
        assert tracer.flush(60)
        pid = tracer._exporter.sender_pid
        os.kill = None  # nothing here may rely on it
        import subprocess
        def refuse(self):
            raise PermissionError(1, "Operation not permitted")
        subprocess.Popen.kill = refuse
        tracer.configure(service_name="another")
        tracer.start_span("m").end()
        assert tracer.flush(60)
        assert tracer.shutdown()
        print(pid)
    """
    done = run_program(backend, program)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: has_ended(int(done.stdout)))
    assert len(receiver.spans) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up rights")
def test_setuid(backend: Any, receiver: Receiver) -> None:
    program = f"""
        import os
        tracer = infertrace.Tracer("{receiver.endpoint}", export_interval_s=0.05)
        tracer.start_span("m").end()
        assert tracer.flush(60)
        os.setgid(65534)
        os.setuid(65534)
        tracer.configure(service_name="another")
        tracer.shutdown()
    """
    done = run_program(backend, program)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("executable", ["/usr/sbin/uwsgi", "", None, "/opt/app/model-server"])
def test_an_embedded_interpreter_is_not_started_again(
    monkeypatch: pytest.MonkeyPatch, executable: str | None
) -> None:
    assert launcher.is_possible()
    monkeypatch.setattr(sys, "executable", executable)
    assert not launcher.is_possible()


def test_a_frozen_program_is_not_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert not launcher.is_possible()
