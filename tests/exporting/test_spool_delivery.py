"""Spans outlive their process: kills, forks, full disks, two drainers at once."""

from __future__ import annotations

import logging
import os
import resource
import signal
import subprocess
import sys
import threading
import time
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
    run_program,
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
    new_tracer: Any, receiver: Receiver, tmp_path: Path
) -> None:
    arrived, released = threading.Event(), threading.Event()

    def hold(request: Any, context: Any) -> Any:
        arrived.set()
        assert released.wait(60)
        return Receiver.accept(request, context)

    receiver.answer = hold
    tracer = new_tracer(receiver.endpoint, spool_dir=tmp_path)
    tracer.start_span("m").end()
    assert arrived.wait(60)
    assert not tracer.shutdown(0)
    released.set()
    assert tracer.stats()["pending"] == 1
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
    """Without a sender, which would try them again and again, and have them locked meanwhile."""
    body = f"""
        import os, infertrace
        tracer = infertrace.Tracer(
            "{NOBODY}", spool_dir={str(directory)!r}, sender_process="none"
        )
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


def test_a_flush_does_not_wait_for_all_that_is_left(
    backend: Any, new_tracer: Any, receiver: Receiver, tmp_path: Path
) -> None:
    leave(backend, tmp_path, spans=1_000)
    own, left = threading.Event(), []

    def hold_what_is_left(request: Any, context: Any) -> Any:
        names = {span.operation_name for span in request.spans}
        if "own" in names:
            own.set()
        elif "first" not in names and request.spans:
            left.append(own.wait(2))
        return Receiver.accept(request, context)

    receiver.answer = hold_what_is_left
    tracer = new_tracer(receiver.endpoint, spool_dir=tmp_path, max_batch_bytes=4096)
    tracer.start_span("m", "first").end()
    wait_until(lambda: bool(left) or own.is_set())
    tracer.start_span("m", "own").end()
    assert tracer.flush(60)
    wait_until(lambda: len(receiver.spans) == 1_002)
    assert left[-1]  # sent after the newer span
    assert len(left) > 5


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


@pytest.mark.parametrize("obstacle", ["a folder in the way", "a folder of that name", "a fifo"])
def test_what_cannot_be_looked_after_stops_nothing(
    backend: Any,
    receiver: Receiver,
    tmp_path: Path,
    new_tracer: Any,
    caplog: pytest.LogCaptureFixture,
    obstacle: str,
) -> None:
    if obstacle == "a folder in the way":
        (tmp_path / "1-00.spool").write_bytes(b"rubbish")
        (tmp_path / "1-00.spool.damaged").mkdir()
    elif obstacle == "a folder of that name":
        (tmp_path / "1-00.spool").mkdir()
    else:
        os.mkfifo(tmp_path / "1-00.spool")
    leave(backend, tmp_path)
    with caplog.at_level(logging.WARNING, "infertrace"):
        tracer = new_tracer(receiver.endpoint, spool_dir=tmp_path, export_interval_s=0.01)
        for _ in range(20):
            tracer.start_span("m").end()
            assert tracer.flush(30)
        wait_until(lambda: len(receiver.spans) >= 220)
    assert tracer.stats()["thread_failures"] == 0
    assert len([line for line in caplog.messages if "1-00.spool" in line]) == 1


def test_a_spool_that_is_removed_while_it_is_drained(
    backend: Any, receiver: Receiver, tmp_path: Path, new_tracer: Any
) -> None:
    leave(backend, tmp_path, spans=20_000)
    (left,) = spools(tmp_path)
    accept = receiver.answer

    def remove_first(request: Any, context: Any) -> Any:
        if len(request.spans) > 1:  # not the tracer's own
            left.unlink(missing_ok=True)
        return accept(request, context)

    receiver.answer = remove_first
    tracer = new_tracer(receiver.endpoint, spool_dir=tmp_path)
    tracer.start_span("m").end()
    wait_until(lambda: len(receiver.spans) == 20_001)
    tracer.start_span("m").end()
    assert tracer.flush(30)
    assert tracer.stats()["delivered"] == 2


def test_a_large_spool_takes_little_memory(
    backend: Any, receiver: Receiver, tmp_path: Path
) -> None:
    buffer_bytes = 256 * 1024 * 1024
    body = f"""
        import os
        tracer = infertrace.Tracer("{NOBODY}", spool_dir={str(tmp_path)!r},
                                   max_buffer_bytes={buffer_bytes})
        for _ in range(100):
            tracer.start_span("m").end()
        os._exit(0)
    """
    subprocess.run(program(body), env=environment(backend), timeout=60, check=True)
    done = run_program(
        backend,
        f"""
        import time
        def peak_bytes():
            for line in open("/proc/self/status"):
                if line.startswith("VmHWM"):
                    return int(line.split()[1]) * 1024
        tracer = infertrace.Tracer("{receiver.endpoint}", spool_dir={str(tmp_path)!r},
                                   export_interval_s=0.05)
        before = peak_bytes()
        import os
        deadline = time.monotonic() + 60
        while len(os.listdir({str(tmp_path)!r})) > 1:
            assert time.monotonic() < deadline
            tracer.start_span("m").end()
            time.sleep(0.02)
        print(peak_bytes() - before)
        """,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < buffer_bytes / 4


@pytest.mark.parametrize("how", ["cut short", "removed", "cut short and grown again"])
@pytest.mark.parametrize("handler", ["before", "after"])
def test_a_spool_that_somebody_takes_away(
    backend: Any, receiver: Receiver, tmp_path: Path, how: str, handler: str
) -> None:
    """While it is in use, and with a handler for fatal signals of the program's own."""
    done = run_program(
        backend,
        f"""
        import faulthandler, glob, os, time
        if {handler == "before"}:
            faulthandler.enable()
        tracer = infertrace.Tracer("{receiver.endpoint}", spool_dir={str(tmp_path)!r},
                                   export_interval_s=0.05, exit_timeout_s=30)
        tracer.start_span("m").end()
        if {handler == "after"}:
            faulthandler.enable()
        (first,) = glob.glob({str(tmp_path)!r} + "/*.spool")
        inode = os.stat(first).st_ino
        size_bytes = os.path.getsize(first)
        os.unlink(first) if {how == "removed"} else open(first, "wb").close()
        if {how == "cut short and grown again"}:
            os.truncate(first, size_bytes)
        for _ in range(1000):
            tracer.start_span("m").end()
        assert tracer.flush(60)
        deadline = time.monotonic() + 60
        def replaced():
            try:
                (found,) = glob.glob({str(tmp_path)!r} + "/*.spool")
                status = os.stat(found)
            except (ValueError, FileNotFoundError):  # one goes, another comes
                return False
            with open(found, "rb") as file:
                return status.st_size == size_bytes and file.read(1) == b"I"
        while not replaced():
            assert time.monotonic() < deadline
            tracer.start_span("m").end()
            time.sleep(0.02)
        tracer.start_span("last").end()
        stats = tracer.stats()
        print(stats["thread_failures"], stats["dropped"])
        """,
    )
    assert (done.stdout, done.returncode) == ("0 {}\n", 0), done.stderr
    assert done.stderr.count("another takes its place") == 1
    assert spools(tmp_path) == []


@pytest.mark.parametrize("by", ["a fault", "raise"])
def test_the_program_keeps_its_own_bus_error(backend: Any, tmp_path: Path, by: str) -> None:
    """Only a fault in a spool is ours."""
    done = run_program(
        backend,
        f"""
        import mmap, signal
        tracer = infertrace.Tracer("{NOBODY}", spool_dir={str(tmp_path / "spools")!r},
                                   exit_timeout_s=0)
        tracer.start_span("m").end()
        if {by == "raise"}:
            signal.raise_signal(signal.SIGBUS)
        with open({str(tmp_path / "file")!r}, "wb+") as file:
            file.truncate(4096)
            content = mmap.mmap(file.fileno(), 4096)
            file.truncate(0)
            content[0] = 1
        """,
    )
    assert done.returncode == -signal.SIGBUS


def test_files_of_a_killed_maker_are_removed(
    backend: Any, receiver: Receiver, tmp_path: Path, new_tracer: Any
) -> None:
    old, new = tmp_path / "1-00.new", tmp_path / "2-00.new"
    for path in (old, new):
        path.write_bytes(bytes(1000))
    hour_ago = time.time() - 3600
    os.utime(old, (hour_ago, hour_ago))
    tracer = new_tracer(receiver.endpoint, spool_dir=tmp_path)
    tracer.start_span("m").end()
    wait_until(lambda: not old.exists())
    assert new.exists()  # its maker may be alive


def test_a_shutdown_beside_threads_that_record(
    new_tracer: Any, receiver: Receiver, tmp_path: Path
) -> None:
    """No exception of ours where a span ends while the spool is closed."""
    errors: list[BaseException] = []
    tracer = new_tracer(receiver.endpoint, spool_dir=tmp_path)
    stopped = threading.Event()

    def work() -> None:
        try:
            while not stopped.is_set():
                with tracer.start_span("m") as span:
                    span.set_attribute("key", "value")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: tracer.stats()["produced"] > 100)
    tracer.shutdown(30)
    wait_until(lambda: tracer.stats()["dropped"].get("shutdown", 0) > 100)
    stopped.set()
    for thread in threads:
        thread.join()
    assert errors == []


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
