"""The sender that all processes of a user share: started once, replaced, refused, left alone."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backend_recording import assert_closed
from grpc_receiver import Receiver
from infertrace import backend as backends
from infertrace.exporting import host_sender
from lasting_address import lasting_address
from otlp_receiver import HttpOtlpReceiver
from traced_program import (
    environment,
    has_ended,
    program,
    run_program,
    sender_of,
    start_program,
    wait_until,
)

ONE_SPAN = """
    tracer = infertrace.Tracer("{endpoint}", exit_timeout_s=60)
    tracer.start_span("m").end()
    assert tracer.flush(60)
    print(tracer._exporter.sender_pid)
"""


def sender_after(backend: Any, receiver: Receiver, first: str = "", **environ: str) -> int:
    """The sender of a process that has delivered a span and ended."""
    done = run_program(backend, ONE_SPAN.format(endpoint=receiver.endpoint), first, **environ)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def sockets(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_socket()]


def test_one_outlives_the_process_that_started_it(backend: Any, receiver: Receiver) -> None:
    pid = sender_after(backend, receiver)
    assert not has_ended(pid)
    assert sender_after(backend, receiver) == pid
    assert len(receiver.spans) == 2


def test_it_is_in_nobodys_way(new_tracer: Any, receiver: Receiver) -> None:
    """It has its own session, is no child of the process, inherits nothing, shows no secrets."""
    tracer = new_tracer(receiver.endpoint, headers={"authorization": "Bearer s3cret"})
    tracer.start_span("m").end()
    assert tracer.flush(60)
    pid = sender_of(tracer)
    assert receiver.metadata[0]["authorization"] == "Bearer s3cret"
    assert os.getsid(pid) == os.getpgid(pid) == pid
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    assert str(pid) not in children
    assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
    for number in range(3):
        assert Path(f"/proc/{pid}/fd/{number}").readlink() == Path("/dev/null")
    files, ours = open_files(pid), open_files(os.getpid())
    known = ("socket:", "anon_inode:", "pipe:", "/dev/", "/memfd:")
    assert [file for file in files if not file.startswith(known)] == []
    assert not ours & {file for file in files if file.startswith(("socket:", "pipe:"))}
    for name in ("cmdline", "environ"):
        assert b"s3cret" not in Path(f"/proc/{pid}/{name}").read_bytes()


def open_files(pid: int) -> set[str]:
    found = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of this iteration
            found.add(path.readlink().as_posix())
    return found


def test_a_tracers_variables_are_not_the_senders(backend: Any, receiver: Receiver) -> None:
    pid = sender_after(
        backend,
        receiver,
        INFERTRACE_TOKEN="s3cret",
        OTEL_EXPORTER_OTLP_HEADERS="authorization=s3cret",
    )
    assert b"s3cret" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_many_that_start_at_once_end_with_one(backend: Any, receiver: Receiver) -> None:
    running = [
        start_program(backend, ONE_SPAN.format(endpoint=receiver.endpoint)) for _ in range(12)
    ]
    pids = {process.communicate(timeout=120)[0] for process in running}
    assert [process.returncode for process in running] == [0] * 12
    assert len(pids) == 1
    assert len(receiver.spans) == 12


def test_it_leaves_when_nobody_needs_it(
    backend: Any, receiver: Receiver, fresh_senders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_INFERTRACE_SENDER_IDLE_S", "0.1")
    pid = sender_after(backend, receiver)
    wait_until(lambda: has_ended(pid))
    assert sockets(fresh_senders) == []
    assert sender_after(backend, receiver) != pid


def test_whoever_comes_as_it_leaves_finds_the_next(
    new_tracer: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that leaves at each opportunity, again and again."""
    monkeypatch.setenv("_INFERTRACE_SENDER_IDLE_S", "0")
    for number in range(1, 9):
        tracer = new_tracer(receiver.endpoint)
        tracer.start_span("m").end()
        assert tracer.flush(60)
        assert tracer.shutdown(60)
        assert len(receiver.spans) == number
        time.sleep(0.25)


def test_one_that_was_killed_is_replaced_for_all(new_tracer: Any, receiver: Receiver) -> None:
    tracers = [new_tracer(receiver.endpoint) for _ in range(4)]
    pids = []
    for _ in range(3):
        for tracer in tracers:
            tracer.start_span("m").end()
        assert all(tracer.flush(60) for tracer in tracers)
        (pid,) = {sender_of(tracer) for tracer in tracers}
        pids.append(pid)
        os.kill(pid, signal.SIGKILL)
    assert len(set(pids)) == 3
    for tracer in tracers:
        stats = tracer.stats()
        assert_closed(stats)
        assert stats["delivered"] == 3
    assert len({span.span_id for span in receiver.spans}) == 12


def test_one_that_is_stopped_holds_no_deadline_up_and_goes_on(
    new_tracer: Any, receiver: Receiver
) -> None:
    tracer = new_tracer(receiver.endpoint)
    tracer.start_span("m").end()
    assert tracer.flush(60)
    sender = sender_of(tracer)
    os.kill(sender, signal.SIGSTOP)
    try:
        tracer.start_span("m").end()
        began = time.monotonic()
        assert not tracer.flush(0.2)
        assert time.monotonic() - began < 5  # not a speed: the request itself may take 10 s
    finally:
        os.kill(sender, signal.SIGCONT)
    assert tracer.flush(60)
    assert sender_of(tracer) == sender
    assert tracer.stats()["delivered"] == 2


def test_one_that_hangs_is_replaced(
    new_tracer: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has been ready, so it is not slow to start; its own clients notice by their deadline."""
    monkeypatch.setattr(host_sender, "_START_TIMEOUT_S", 0.5)
    first = new_tracer(receiver.endpoint)
    first.start_span("m").end()
    assert first.flush(60)
    hanging = sender_of(first)
    os.kill(hanging, signal.SIGSTOP)
    try:
        second = new_tracer(receiver.endpoint)
        second.start_span("m").end()
        assert second.flush(60)
        assert sender_of(second) != hanging
    finally:
        os.kill(hanging, signal.SIGCONT)
    first.start_span("m").end()
    assert first.flush(60)
    assert sender_of(first) == hanging
    first.shutdown(60)
    wait_until(lambda: has_ended(hanging))
    second.start_span("m").end()
    assert second.flush(60)
    assert len(receiver.spans) == 4


def test_another_version_has_another(backend: Any, receiver: Receiver) -> None:
    """As in an upgrade, while processes of the old version still run."""
    old = sender_after(backend, receiver)
    upgrade = "import infertrace.version; infertrace.version.VERSION = '99.0.0'"
    new = sender_after(backend, receiver, upgrade)
    assert new != old
    assert not has_ended(old)
    assert sender_after(backend, receiver) == old
    assert sender_after(backend, receiver, upgrade) == new


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "no_proxy", "SSL_CERT_FILE", "GRPC_VERBOSITY"])
def test_other_variables_of_the_network_have_another(
    backend: Any, receiver: Receiver, name: str
) -> None:
    first = sender_after(backend, receiver, NO_PROXY="*")
    assert sender_after(backend, receiver, NO_PROXY="*", **{name: "127.0.0.1"}) != first


def test_a_socket_that_was_removed(
    new_tracer: Any, receiver: Receiver, fresh_senders: Path, backend: Any
) -> None:
    """Who is connected goes on; who comes starts another; the first one then leaves."""
    tracer = new_tracer(receiver.endpoint)
    tracer.start_span("m").end()
    assert tracer.flush(60)
    first = sender_of(tracer)
    (path,) = sockets(fresh_senders)
    path.unlink()
    second = sender_after(backend, receiver)
    assert second != first
    tracer.start_span("m").end()
    assert tracer.flush(60)
    assert sender_of(tracer) == first
    assert tracer.shutdown(60)
    wait_until(lambda: has_ended(first))
    assert not has_ended(second)
    assert len(receiver.spans) == 3


OWN = "cannot share a sender ("


def assert_own(backend: Any, receiver: Receiver, why: str, **environ: str) -> None:
    """Its process starts a sender of its own, says so once, and takes it with it."""
    done = run_program(backend, ONE_SPAN.format(endpoint=receiver.endpoint), **environ)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(OWN) == 1
    assert why in done.stderr
    wait_until(lambda: has_ended(int(done.stdout)))


def test_a_directory_that_others_may_enter(
    backend: Any, receiver: Receiver, fresh_senders: Path
) -> None:
    (fresh_senders / "infertrace").mkdir(mode=0o755)
    assert_own(backend, receiver, "expected the mode 700, got 755")


def test_a_directory_that_cannot_be_written_to(
    backend: Any, receiver: Receiver, fresh_senders: Path
) -> None:
    (fresh_senders / "infertrace").mkdir(mode=0o500)
    assert_own(backend, receiver, "expected the mode 700, got 500")


def test_a_link_in_the_place_of_the_directory(
    backend: Any, receiver: Receiver, fresh_senders: Path, tmp_path: Path
) -> None:
    (fresh_senders / "infertrace").symlink_to(tmp_path)
    assert_own(backend, receiver, "expected a directory")


def test_a_path_that_is_too_long(backend: Any, receiver: Receiver, fresh_senders: Path) -> None:
    longer = fresh_senders / ("x" * 90)
    longer.mkdir()
    assert_own(backend, receiver, "too long", XDG_RUNTIME_DIR=str(longer))


def test_a_file_in_the_place_of_the_socket(
    backend: Any, receiver: Receiver, fresh_senders: Path
) -> None:
    pid = sender_after(backend, receiver)
    (path,) = sockets(fresh_senders)
    path.unlink()
    path.touch()
    assert_own(backend, receiver, "expected a socket of this user")
    wait_until(lambda: has_ended(pid))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
def test_another_users_directory(backend: Any, receiver: Receiver, fresh_senders: Path) -> None:
    directory = fresh_senders / "infertrace"
    directory.mkdir(mode=0o700)
    os.chown(directory, 65534, 65534)
    assert_own(backend, receiver, "it is user 65534's")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
def test_another_users_socket(backend: Any, receiver: Receiver, fresh_senders: Path) -> None:
    sender_after(backend, receiver)
    (path,) = sockets(fresh_senders)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as theirs:
        theirs.bind(str(path))
        theirs.listen()
        os.chown(path, 65534, 65534)
        assert_own(backend, receiver, "expected a socket of this user")


LISTEN_AS_NOBODY = """
import os, socket, sys, time
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
os.setuid(65534)
listener.listen()
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
def test_another_user_who_listens(backend: Any, receiver: Receiver, fresh_senders: Path) -> None:
    """The kernel says who that is, whatever the file says."""
    sender_after(backend, receiver)
    (path,) = sockets(fresh_senders)
    path.unlink()
    with subprocess.Popen(
        [sys.executable, "-c", LISTEN_AS_NOBODY, str(path)], stdout=subprocess.PIPE
    ) as theirs:
        assert theirs.stdout is not None
        theirs.stdout.readline()
        try:
            assert_own(backend, receiver, "another user listens there")
        finally:
            theirs.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
def test_another_user_who_connects(
    new_tracer: Any, receiver: Receiver, fresh_senders: Path
) -> None:
    tracer = new_tracer(receiver.endpoint)
    tracer.start_span("m").end()
    assert tracer.flush(60)
    (path,) = sockets(fresh_senders)
    connect = (
        "import os, socket, sys; s = socket.socket(socket.AF_UNIX); os.chdir(sys.argv[1]); "
        "os.setuid(65534); s.connect(sys.argv[2]); print(s.recv(100))"
    )
    for folder in (fresh_senders, path.parent):
        folder.chmod(0o755)
    path.chmod(0o777)
    done = subprocess.run(
        [sys.executable, "-c", connect, path.parent, path.name],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "b''\n"


def test_a_sender_that_is_out_of_descriptors(new_tracer: Any, receiver: Receiver) -> None:
    """It makes way for another, which serves whoever it has no room for; it serves its own on."""
    tracers = [new_tracer(receiver.endpoint) for _ in range(12)]
    tracers[0].start_span("m").end()
    assert tracers[0].flush(60)
    sender = sender_of(tracers[0])
    before = resource.prlimit(sender, resource.RLIMIT_NOFILE)
    taken = len(list(Path(f"/proc/{sender}/fd").iterdir()))
    resource.prlimit(sender, resource.RLIMIT_NOFILE, (taken + 2, before[1]))
    for tracer in tracers:
        tracer.start_span("m").end()
    assert all(tracer.flush(60) for tracer in tracers)
    assert len(receiver.spans) == 13
    assert sender_of(tracers[0]) == sender
    (other,) = {sender_of(tracer) for tracer in tracers[1:]} - {sender}
    resource.prlimit(sender, resource.RLIMIT_NOFILE, before)
    shown = [json.loads(host_sender.ask_status(it) or "{}") for it in host_sender.find_senders()]
    assert {status["pid"] for status in shown} == {sender, other}


FEW_DESCRIPTORS = """
    import os, resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    tracer = infertrace.Tracer("{endpoint}")
    children = []
    for _ in range(48):
        child = os.fork()
        if not child:
            for _ in range(99):
                tracer.start_span("m").end()
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
"""


@pytest.mark.skipif(backends.selected.NAME == "pure", reason="it shares no memory")
def test_more_processes_than_a_sender_has_descriptors_for(receiver: Receiver) -> None:
    """They have ended before it gets to them; the kernel keeps what they have left until then."""
    done = run_program(backends.selected, FEW_DESCRIPTORS.format(endpoint=receiver.endpoint))
    assert done.returncode == 0, done.stderr
    wait_until(lambda: len(receiver.spans) == 48 * 99, 120)
    assert len({span.span_id for span in receiver.spans}) == 48 * 99


def test_a_dead_endpoint_delays_no_other(new_tracer: Any, receiver: Receiver, hung: str) -> None:
    dead = [new_tracer(endpoint) for endpoint in (hung, "127.0.0.1:1") for _ in range(4)]
    for tracer in dead:
        tracer.start_span("m").end()
    wait_until(lambda: all(tracer._exporter.sender_pid is not None for tracer in dead))
    tracer = new_tracer(receiver.endpoint)
    tracer.start_span("m").end()
    assert tracer.flush(30)
    assert len({sender_of(one) for one in (*dead, tracer)}) == 1


NOISY = """
    import sys, threading
    tracer = infertrace.Tracer("{endpoint}", protocol="{protocol}", max_batch_bytes=4096)
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    while not ended.is_set():
        tracer.start_span("m").end()
    tracer.shutdown(0)
"""


@pytest.mark.parametrize("protocol", ["infertrace", "otlp/http"])
def test_noisy_processes_starve_no_other(
    backend: Any, new_tracer: Any, protocol: str, request: pytest.FixtureRequest
) -> None:
    """Each of them records all the time, more than can be sent, to the same endpoint."""
    receiver, endpoint = receiver_of(protocol, request)
    noise = [
        start_program(
            backend, NOISY.format(endpoint=endpoint, protocol=protocol), stdin=subprocess.PIPE
        )
        for _ in range(3)
    ]
    try:
        wait_until(lambda: len(receiver.requests) > 10)
        tracer = new_tracer(endpoint, protocol=protocol)
        for _ in range(5):
            before = len(receiver.requests)
            tracer.start_span("m").end()
            assert tracer.flush(60)
            # Theirs goes on as well.
            wait_until(lambda count=before: len(receiver.requests) > count + 1)  # type: ignore[misc]
    finally:
        for process in noise:
            process.communicate("", timeout=60)


def receiver_of(protocol: str, request: pytest.FixtureRequest) -> tuple[Any, str]:
    receiver = request.getfixturevalue("receiver")
    if protocol == "otlp/http":
        receiver = HttpOtlpReceiver()
        request.addfinalizer(receiver.stop)
    return receiver, receiver.endpoint


def test_equal_targets_share_a_connection(new_tracer: Any, receiver: Receiver) -> None:
    tracers = [new_tracer(receiver.endpoint) for _ in range(4)]
    tracers.append(new_tracer(receiver.endpoint, headers={"x-tenant": "b"}))
    for tracer in tracers:
        tracer.start_span("m").end()
        assert tracer.flush(60)
    status = status_of()
    assert sorted(target["users"] for target in status["targets"]) == [1, 4]
    assert len(status["clients"]) == 5
    assert status["pid"] == sender_of(tracers[0])
    assert "x-tenant" not in json.dumps(status)


def test_nothing_is_kept_of_tracers_that_have_ended(new_tracer: Any, receiver: Receiver) -> None:
    """Their process lives on, and so would their memory."""
    for _ in range(5):
        tracer = new_tracer(receiver.endpoint)
        tracer.start_span("m").end()
        assert tracer.shutdown(60)
    wait_until(lambda: not status_of()["clients"])
    wait_until(lambda: status_of()["memories_of_the_disconnected"] == 0)
    assert len(receiver.spans) == 5


def status_of() -> dict[str, Any]:
    (place,) = host_sender.find_senders()
    status: dict[str, Any] = json.loads(host_sender.ask_status(place) or "{}")
    return status


def test_sigterm_with_nothing_to_do_ends_it(backend: Any, receiver: Receiver) -> None:
    pid = sender_after(backend, receiver)
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: has_ended(pid))


def test_sigterm_with_spans_to_deliver_lets_it_deliver(
    backend: Any, new_receiver: Callable[..., Receiver]
) -> None:
    address = lasting_address()
    done = run_program(
        backend,
        f"""
        tracer = infertrace.Tracer("{address}")
        tracer.start_span("m").end()
        assert tracer.shutdown(60)
        """,
    )
    assert done.returncode == 0, done.stderr
    pid = status_of()["pid"]
    os.kill(pid, signal.SIGTERM)
    time.sleep(1.5)
    assert not has_ended(pid)
    late = new_receiver(address)
    wait_until(lambda: len(late.spans) == 1)
    wait_until(lambda: has_ended(pid))


def test_garbage_on_the_socket_ends_that_connection(
    new_tracer: Any, receiver: Receiver, fresh_senders: Path
) -> None:
    tracer = new_tracer(receiver.endpoint)
    tracer.start_span("m").end()
    assert tracer.flush(60)
    (path,) = sockets(fresh_senders)
    for garbage in (b"GET / HTTP/1.1\r\n\r\n" * 100, b"\xff" * 100, b"\0" * 28 + b"\x63\0\0\0"):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            client.connect(str(path))
            client.sendall(garbage)
            client.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                while client.recv(100):
                    pass
    tracer.start_span("m").end()
    assert tracer.flush(60)


def test_a_spool_is_delivered_once_its_owner_has_gone(
    backend: Any, receiver: Receiver, tmp_path: Path
) -> None:
    body = f"""
        import os, infertrace
        tracer = infertrace.Tracer("{receiver.endpoint}", spool_dir={str(tmp_path)!r},
                                   export_interval_s=3600)
        tracer.start_span("m").end()
        assert tracer.flush(60)
        for _ in range(50):
            tracer.start_span("m").end()
        os.kill(os.getpid(), 9)
    """
    done = subprocess.run(program(body), env=environment(backend), timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    wait_until(lambda: list(tmp_path.glob("*.spool")) == [])
    assert len(receiver.spans) == len({span.span_id for span in receiver.spans}) == 51
    assert receiver.requests[-1].final


GOES = """
import os
from infertrace.buffering.batch import Batch
from infertrace.buffering.spool_memory import write_memory
from infertrace.exporting.envelope import Producer, goodbye
from infertrace.exporting.host_sender import HostSender
from infertrace.exporting.introduction import Introduction
from infertrace.exporting.link_transport import LinkTransport
from infertrace.exporting.target import Target

producer_id = bytes.fromhex("{producer_id}")
memory = write_memory(
    [Batch(bytes((10, 0)) * 5, 5, 3)],
    producer_id=producer_id,
    resource=b"",
    batch_sequence=1,
    last_sequence=7,
    dropped={{}},
)
target = Target("{endpoint}", tls=False, headers={{}})
sender = HostSender.open(Introduction(target), memory)
if {says_goodbye}:
    LinkTransport(sender).send(goodbye(Producer(producer_id, 2, 7, {{}}, b"")), 0, 30)
os._exit(0)
"""


@pytest.mark.parametrize("says_goodbye", [True, False])
def test_the_memory_of_a_process_that_goes(
    backend: Any, receiver: Receiver, says_goodbye: bool
) -> None:
    """Delivered in its name, unless it has said that there is nothing left."""
    ids = [os.urandom(16) for _ in range(2)]
    # Another process after it, so that there is something to wait for in both cases.
    for producer_id, says in zip(ids, (says_goodbye, True), strict=True):
        body = GOES.format(
            producer_id=producer_id.hex(), endpoint=receiver.endpoint, says_goodbye=says
        )
        subprocess.run(program(body), env=environment(backend), check=True, timeout=120)
    wait_until(lambda: {r.producer_id for r in receiver.requests if r.final} == set(ids))
    assert len(receiver.spans) == (0 if says_goodbye else 5)
    if not says_goodbye:
        (batch,) = (request for request in receiver.requests if request.spans)
        assert (batch.first_span_sequence, batch.produced_count) == (3, 7)
