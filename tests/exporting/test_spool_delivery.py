"""Spans outlive their process: kills, forks, full disks, two drainers at once."""

from __future__ import annotations

import json
import logging
import os
import random
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backend_recording import assert_closed
from grpc_receiver import Receiver
from infertrace import backend as backends

KILLS = int(os.environ.get("INFERTRACE_TEST_KILLS", "15"))
"""Of each backend; the nightly set asks for more."""
NOBODY = "127.0.0.1:1"


@pytest.fixture
def sender() -> None:
    """One way to send is enough here."""


def program(body: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(body)]


def environment(backend: Any) -> dict[str, str]:
    return {**os.environ, backends.VARIABLE: backend.NAME}


def drain(directory: Path, endpoint: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "infertrace", "spool", "drain"),
            *("--spool-dir", str(directory), "--endpoint", endpoint),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )


def spools(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.spool"))


def test_a_clean_end_leaves_nothing(new_tracer: Any, receiver: Receiver, tmp_path: Path) -> None:
    tracer = new_tracer(receiver.endpoint, spool_dir=tmp_path)
    assert len(spools(tmp_path)) == 1
    for _ in range(100):
        tracer.start_span("m").end()
    assert tracer.shutdown()
    assert spools(tmp_path) == []
    assert len(receiver.spans) == 100


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


@pytest.mark.parametrize(
    "end",
    [
        "os.kill(os.getpid(), 9)",
        "os._exit(1)",
        "import ctypes; ctypes.string_at(0)",
        "os.kill(os.getpid(), 15)",
    ],
)
def test_ends_of_a_process(backend: Any, receiver: Receiver, tmp_path: Path, end: str) -> None:
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


def test_kills_at_random(backend: Any, receiver: Receiver, tmp_path: Path) -> None:
    """Every span whose end was reported before the kill arrives, while batches are in flight."""
    body = f"""
        import os, time, infertrace
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
    for _ in range(KILLS):
        receiver.requests.clear()
        running = subprocess.Popen(
            program(body), env=environment(backend), stdout=subprocess.PIPE, text=False
        )
        assert running.stdout is not None
        running.stdout.readline()
        os.set_blocking(running.stdout.fileno(), False)
        end = time.monotonic() + chance.random() * 0.3
        reported = b""
        while time.monotonic() < end:
            reported += running.stdout.read() or b""
            time.sleep(0.002)
        running.send_signal(signal.SIGKILL)
        running.wait()
        os.set_blocking(running.stdout.fileno(), True)
        reported += running.stdout.read()
        running.stdout.close()
        ended = int(reported.rpartition(b"\n")[0].rpartition(b"\n")[2] or 10)
        # The sender process may be delivering the last batch still: that makes duplicates.
        drained = drain(tmp_path, receiver.endpoint)
        assert drained.returncode == 0, drained.stdout + drained.stderr
        assert spools(tmp_path) == []
        arrived = {int(span.tags["number"]) for span in receiver.spans}
        assert set(range(ended)) <= arrived


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


def test_a_forked_child_has_a_spool_of_its_own(
    backend: Any, receiver: Receiver, tmp_path: Path
) -> None:
    """The child is killed and the parent too; both leave their own spans, once."""
    body = f"""
        import json, os, infertrace
        tracer = infertrace.Tracer("{NOBODY}", spool_dir={str(tmp_path)!r})
        for number in range(50):
            tracer.start_span("m", "parent").end()
        child = os.fork()
        if child == 0:
            for number in range(70):
                tracer.start_span("m", "child").end()
            os.kill(os.getpid(), 9)
        os.waitpid(child, 0)
        print(json.dumps(tracer.stats()), flush=True)
        os.kill(os.getpid(), 9)
    """
    done = subprocess.run(
        program(body), env=environment(backend), capture_output=True, text=True, timeout=60
    )
    assert json.loads(done.stdout)["pending"] == 50
    assert len(spools(tmp_path)) == 2
    drained = drain(tmp_path, receiver.endpoint)
    assert drained.returncode == 0, drained.stdout
    operations = [span.operation_name for span in receiver.spans]
    assert (operations.count("parent"), operations.count("child")) == (50, 70)
    assert len({request.producer_id for request in receiver.requests}) == 2


def wait_until(happened: Callable[[], bool], patience_s: float = 30.0) -> None:
    end = time.monotonic() + patience_s
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)
