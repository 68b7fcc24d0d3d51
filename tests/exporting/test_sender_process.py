"""The process that speaks gRPC for the traced one: it may be killed, stopped, forked away from."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from grpc_receiver import Receiver
from infertrace.exporting import process_transport
from traced_program import (
    run_program,
    sender_of,
)


@pytest.fixture
def sender() -> None:
    """All of these are about the sender process."""


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
    pid = sender_of(tracer).pid
    tracer.shutdown()
    assert not Path(f"/proc/{pid}").exists()


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
