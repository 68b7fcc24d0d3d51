"""Spans outlive their process: kills, forks, full disks, two drainers at once."""

from __future__ import annotations

import logging
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backend_recording import assert_closed
from grpc_receiver import Receiver
from traced_program import (
    NOBODY,
    drain,
    environment,
    program,
    spools,
    wait_until,
)


@pytest.fixture
def sender() -> None:
    """One way to send is enough here."""


def test_a_clean_end_leaves_nothing(new_tracer: Any, receiver: Receiver, tmp_path: Path) -> None:
    tracer = new_tracer(receiver.endpoint, spool_dir=tmp_path)
    assert len(spools(tmp_path)) == 1
    for _ in range(100):
        tracer.start_span("m").end()
    assert tracer.shutdown()
    assert spools(tmp_path) == []
    assert len(receiver.spans) == 100


def test_a_batch_on_its_way_at_the_end_of_a_shutdown_is_left(
    new_tracer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracer = new_tracer(NOBODY, spool_dir=tmp_path)
    exporter = tracer._exporter
    monkeypatch.setattr(exporter, "_start", lambda: None)
    tracer.start_span("m").end()
    assert exporter._take(partial=True)
    exporter._stopping, exporter._deadline = True, 0.0
    exporter._deliver()  # as its own thread would, at that moment
    assert tracer.stats()["pending"] == 1
    tracer.shutdown(0)
    assert_closed(tracer.stats())
    assert len(spools(tmp_path)) == 1


def test_what_a_shutdown_could_not_deliver_is_left_and_said(
    new_tracer: Any, receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracer = new_tracer(NOBODY, spool_dir=tmp_path)
    for _ in range(100):
        tracer.start_span("m", "left").end()
    with caplog.at_level(logging.WARNING, "infertrace"):
        assert not tracer.shutdown(0.2)
    (left,) = spools(tmp_path)
    assert f"100 spans were not delivered before the shutdown; they are left in {left}" in (
        caplog.text
    )
    assert tracer.stats()["pending"] == 100
    assert_closed(tracer.stats())
    heir = new_tracer(receiver.endpoint, spool_dir=tmp_path)
    heir.start_span("m", "own").end()
    wait_until(lambda: len(receiver.spans) == 101)
    wait_until(lambda: not left.exists())
    assert heir.stats()["produced"] == heir.stats()["delivered"] == 1
    by_producer: dict[bytes, list[Any]] = {}
    for request in receiver.requests:
        by_producer.setdefault(request.producer_id, []).append(request)
    (inherited,) = (
        requests
        for requests in by_producer.values()
        if any(span.operation_name == "left" for span in requests[0].spans)
    )
    assert inherited[-1].final
    assert inherited[-1].produced_count == 100
    assert inherited[0].resource.attributes["service.name"].string_value == "tests"


def test_a_live_owners_file_is_never_taken(
    new_tracer: Any, receiver: Receiver, tmp_path: Path
) -> None:
    tracer = new_tracer(NOBODY, spool_dir=tmp_path)
    tracer.start_span("m").end()
    drained = drain(tmp_path, receiver.endpoint)
    assert drained.returncode == 0
    assert "1 spools" in drained.stdout
    assert receiver.spans == []
    assert len(spools(tmp_path)) == 1


def leave(backend: Any, directory: Path, processes: int = 1, spans: int = 200) -> None:
    body = f"""
        import os, infertrace
        tracer = infertrace.Tracer("{NOBODY}", spool_dir={str(directory)!r})
        for number in range({spans}):
            tracer.start_span("m").end()
        os._exit(0)
    """
    for _ in range(processes):
        subprocess.run(program(body), env=environment(backend), timeout=60, check=True)


def test_one_drainer_wins(backend: Any, receiver: Receiver, tmp_path: Path) -> None:
    leave(backend, tmp_path, processes=3)
    command = [
        *(sys.executable, "-m", "infertrace", "spool", "drain"),
        *("--spool-dir", str(tmp_path), "--endpoint", receiver.endpoint),
    ]
    drainers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = "".join(drainer.communicate(timeout=60)[0] for drainer in drainers)
    assert said.count("200 spans delivered") == 3
    assert len(receiver.spans) == len({span.span_id for span in receiver.spans}) == 600


def test_a_drain_that_is_cut_off_goes_on(
    backend: Any, new_receiver: Callable[..., Receiver], tmp_path: Path
) -> None:
    """What was acknowledged is not sent again, what was not is."""
    leave(backend, tmp_path, spans=20_000)
    receiver = new_receiver()
    accept = receiver.answer

    def once(request: Any, context: Any) -> Any:
        import grpc

        if receiver.requests:
            context.abort(grpc.StatusCode.UNAVAILABLE, "going down")
        return accept(request, context)

    receiver.answer = once
    first = drain(tmp_path, receiver.endpoint)
    assert first.returncode == 1
    assert "going down" in first.stdout
    accepted = len(receiver.spans)
    assert 0 < accepted < 20_000
    receiver.requests.clear()
    receiver.answer = accept
    second = drain(tmp_path, receiver.endpoint)
    assert f"{20_000 - accepted} spans delivered, 0 rejected, 0 damaged" in second.stdout
    assert len(receiver.spans) == 20_000 - accepted


def test_a_damaged_file_stops_nothing(
    backend: Any, receiver: Receiver, tmp_path: Path, new_tracer: Any
) -> None:
    (tmp_path / "1-00.spool").write_bytes(b"rubbish")
    leave(backend, tmp_path)
    drained = drain(tmp_path, receiver.endpoint)
    assert drained.returncode == 0
    assert "200 spans delivered" in drained.stdout
    assert (tmp_path / "1-00.spool.damaged").exists()


def test_a_disk_without_room(backend: Any, receiver: Receiver, tmp_path: Path) -> None:
    """Memory then, said once; the limit is the kernel's own for the size of files."""
    body = f"""
        import infertrace, logging
        logging.basicConfig(format="%(message)s")
        tracer = infertrace.Tracer("{receiver.endpoint}", spool_dir={str(tmp_path)!r})
        tracer.start_span("m").end()
        assert tracer.shutdown()
    """

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    done = subprocess.run(
        program(body),
        env=environment(backend),
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("spans are held in memory") == 1
    assert len(receiver.spans) == 1
    assert list(tmp_path.iterdir()) == []
