"""`infertrace agent`: it serves, is late, is killed and comes again, and no span is lost."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_process import AgentProcess
from backend_recording import assert_closed
from collector_process import CollectorProcess
from grpc_receiver import Receiver
from infertrace import backend as backends
from lasting_address import lasting_address
from otlp_receiver import GrpcOtlpReceiver
from spoken_protocol import Spoken
from traced_program import (
    NOBODY,
    environment,
    has_ended,
    program,
    run_program,
    sender_of,
    start_program,
    wait_until,
)

SPANS = 99
PROCESSES = 8

MANY_SPANS = """
    import json
    tracer = infertrace.Tracer("{endpoint}"{more})
    for number in range({spans}):
        tracer.start_span("m", tags={{"number": str(number)}}).end()
    print(json.dumps([tracer.shutdown(60), tracer.stats()]))
"""


@pytest.fixture
def new_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Starts agents on one socket, to which all tracers connect."""
    started: list[AgentProcess] = []
    with tempfile.TemporaryDirectory(prefix="it-") as directory:
        path = Path(directory) / "agent.sock"
        monkeypatch.setenv("INFERTRACE_AGENT", f"unix://{path}")

        def start(*options: str, **environ: Any) -> AgentProcess:
            started.append(AgentProcess(path, *options, log=tmp_path / "agent.log", **environ))
            return started[-1]

        yield start
        for agent in started:
            agent.kill()


def all_spans(backend: Any, endpoint: str, spans: int = SPANS, more: str = "") -> dict[str, Any]:
    """The ledger of a process that has recorded that many spans and ended."""
    done = run_program(backend, MANY_SPANS.format(endpoint=endpoint, spans=spans, more=more))
    assert done.returncode == 0, done.stderr
    assert "not delivered" not in done.stderr
    is_all, stats = json.loads(done.stdout)
    assert is_all is True
    assert_closed(stats)
    assert stats["produced"] == spans
    return dict(stats)


def numbers(receiver: Receiver) -> list[int]:
    return sorted(int(span.tags["number"]) for span in receiver.spans)


def sockets(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_socket()]


def test_a_process_sends_by_it_and_starts_none(
    backend: Any, new_agent: Any, spoken: Spoken, new_collector: Any, fresh_senders: Path
) -> None:
    collector = new_collector(**spoken.options)
    new_agent()
    all_spans(backend, spoken.endpoint(collector), more=f', protocol="{spoken.protocol}"')
    wait_until(lambda: collector.count() == SPANS)
    assert sockets(fresh_senders) == []
    if spoken.protocol == "infertrace":
        wait_until(lambda: collector.producers()[0]["state"] == "finished")
        (account,) = collector.producers()
        assert account["stored"] == account["produced"] == SPANS
        assert account["dropped"] == {}


def test_forked_children_send_by_it(backend: Any, new_agent: Any, receiver: Receiver) -> None:
    new_agent()
    body = f"""
        import multiprocessing
        tracer = infertrace.Tracer("{receiver.endpoint}")
        def work():
            for number in range({SPANS}):
                tracer.start_span("m", tags={{"number": str(number)}}).end()
        context = multiprocessing.get_context("fork")
        workers = [context.Process(target=work) for _ in range({PROCESSES})]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    """
    assert run_program(backend, body).returncode == 0
    wait_until(lambda: len(receiver.spans) >= PROCESSES * SPANS)
    assert numbers(receiver) == sorted(list(range(SPANS)) * PROCESSES)


def test_one_that_is_late(backend: Any, new_agent: Any, new_tracer: Any, tmp_path: Path) -> None:
    """What ends before it is there waits in the process, which says so once."""
    receiver = Receiver()
    try:
        running = start_program(
            backend,
            f"""
            import logging, sys
            logging.basicConfig(stream=sys.stderr)
            tracer = infertrace.Tracer("{receiver.endpoint}", export_interval_s=0.05)
            for number in range({SPANS}):
                tracer.start_span("m", tags={{"number": str(number)}}).end()
            assert not tracer.flush(1)
            print("waits", flush=True)
            assert tracer.flush(100)
            print(tracer.stats()["delivered"])
            """,
            stderr=subprocess.PIPE,
        )
        assert running.stdout is not None
        assert running.stdout.readline() == "waits\n"
        assert receiver.spans == []
        new_agent()
        out, log = running.communicate(timeout=120)
        assert (running.returncode, out.strip()) == (0, str(SPANS)), log
        assert log.count("cannot be reached") == 1
        assert numbers(receiver) == list(range(SPANS))
    finally:
        receiver.stop()


def test_one_that_never_comes(backend: Any, tmp_path: Path) -> None:
    """The process ends in time, and counts what it drops; with a spool it leaves that."""
    nowhere = f"unix://{tmp_path}/agent.sock"
    body = f"""
        import json
        tracer = infertrace.Tracer("{NOBODY}", agent="{nowhere}")
        for _ in range({SPANS}):
            tracer.start_span("m").end()
        print(json.dumps([tracer.shutdown(0.5), tracer.stats()]))
    """
    done = run_program(backend, body)
    is_all, stats = json.loads(done.stdout)
    assert is_all is False
    assert stats["dropped"] == {"shutdown": SPANS}
    assert "nobody listens there" in done.stderr
    spool = tmp_path / "spool"
    done = run_program(backend, body, INFERTRACE_SPOOL_DIR=str(spool))
    assert json.loads(done.stdout)[1]["pending"] == SPANS
    assert len(list(spool.glob("*.spool"))) == 1


def test_killed_and_started_again(backend: Any, new_agent: Any, receiver: Receiver) -> None:
    """Those that are connected find the next one."""
    agent = new_agent()
    running = start_program(
        backend,
        f"""
        tracer = infertrace.Tracer("{receiver.endpoint}", export_interval_s=0.02,
                                   max_batch_bytes=4096)
        number = 0
        while input() == "go":
            for _ in range(100):
                tracer.start_span("m", tags={{"number": str(number)}}).end()
                number += 1
            print(number, flush=True)
        assert tracer.flush(100)
        print(tracer.stats())
        """,
        stdin=subprocess.PIPE,
    )
    assert running.stdin is not None
    assert running.stdout is not None
    for _ in range(4):
        running.stdin.write("go\n")
        running.stdin.flush()
        running.stdout.readline()
        agent.kill()
        running.stdin.write("go\n")
        running.stdin.flush()
        running.stdout.readline()
        agent = new_agent()
    out, _ = running.communicate("end\n", timeout=120)
    assert running.returncode == 0, out
    # An answer that died with an agent has the batch sent again; a collector keeps one.
    assert sorted(set(numbers(receiver))) == list(range(800))


def test_what_it_holds_outlives_it(
    backend: Any, new_agent: Any, new_collector: Callable[..., CollectorProcess], tmp_path: Path
) -> None:
    """It is killed twice while no collector is there; then all of it arrives once."""
    spool = tmp_path / "spool"
    address = lasting_address()
    agent = new_agent("--spool-dir", str(spool))
    for _ in range(PROCESSES):
        stats = all_spans(backend, address)
        assert stats["handed_over"] == stats["pending"] == SPANS
    wait_until(lambda: len(list(spool.glob("*.spool"))) == PROCESSES)
    agent.kill()
    new_agent("--spool-dir", str(spool)).kill()
    assert spool.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in spool.glob("*.spool")} == {0o600}
    new_agent("--spool-dir", str(spool))
    collector = new_collector(address)
    wait_until(lambda: collector.count() == PROCESSES * SPANS)
    wait_until(lambda: all(it["state"] == "finished" for it in collector.producers()))
    accounts = collector.producers()
    assert len(accounts) == PROCESSES
    for account in accounts:
        assert account["stored"] == account["produced"] == SPANS
        assert account["dropped"] == {}
        assert account["gaps"] == []
    wait_until(lambda: list(spool.glob("*.spool")) == [])
    assert len({span["span_id"] for span in collector.spans()}) == PROCESSES * SPANS


def test_killed_while_it_delivers(
    backend: Any, new_agent: Any, receiver: Receiver, tmp_path: Path
) -> None:
    """Nothing is lost; no span comes twice but those of a batch that was on its way."""
    spool = tmp_path / "spool"
    agent = new_agent("--spool-dir", str(spool))
    accept = receiver.answer
    taken: list[int] = []
    gate = threading.Semaphore(0)

    def only_some(*request: Any) -> Any:
        gate.acquire()
        taken.append(1)
        return accept(*request)

    receiver.answer = only_some
    stats = all_spans(backend, receiver.endpoint, 4000, ", max_batch_bytes=4096")
    assert stats["handed_over"] > 3900
    wait_until(lambda: len(list(spool.glob("*.spool"))) == 1)
    for _ in range(3):
        before = len(taken)
        gate.release(10)
        wait_until(lambda before=before: len(taken) >= before + 10)  # type: ignore[misc]
        agent.kill()
        agent = new_agent("--spool-dir", str(spool))
    gate.release(10_000)
    wait_until(lambda: any(request.final for request in receiver.requests))
    assert sorted(set(numbers(receiver))) == list(range(4000))
    per_batch = max(len(request.spans) for request in receiver.requests)
    assert len(receiver.spans) <= 4000 + 4 * per_batch
    last = next(request for request in receiver.requests if request.final)
    assert last.produced_count == 4000
    assert not last.dropped_counts


@pytest.mark.skipif(
    backends.selected.NAME == "pure", reason="only the compiled backend shares its memory"
)
def test_a_killed_process_outlives_it_too(
    new_agent: Any, new_receiver: Callable[..., Receiver], tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    address = lasting_address()
    agent = new_agent("--spool-dir", str(spool))
    body = f"""
        import os, signal
        tracer = infertrace.Tracer("{address}", export_interval_s=0.02)
        for number in range({SPANS}):
            tracer.start_span("m", tags={{"number": str(number)}}).end()
        while not tracer._exporter._connection.transport:
            pass
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(program(body), env=environment(backends.selected), timeout=120)
    assert done.returncode == -signal.SIGKILL
    wait_until(lambda: len(list(spool.glob("*.spool"))) == 1)
    agent.kill()
    new_agent("--spool-dir", str(spool))
    receiver = new_receiver(address)
    wait_until(lambda: any(request.final for request in receiver.requests))
    assert numbers(receiver) == list(range(SPANS))
    assert receiver.requests[-1].produced_count == SPANS
    assert not receiver.requests[-1].dropped_counts


def test_what_was_refused_is_counted_across_a_kill(
    backend: Any, new_agent: Any, new_receiver: Callable[..., Receiver], tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    address = lasting_address()
    agent = new_agent("--spool-dir", str(spool))
    all_spans(backend, address, 400, ", max_batch_bytes=4096")
    receiver = new_receiver(address)
    accept = receiver.answer
    seen: list[int] = []

    def refuse_first(request: Any, context: Any) -> Any:
        seen.append(len(request.spans))
        if len(seen) == 1:
            import grpc

            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")
        while len(seen) == 2:
            time.sleep(0.01)
        return accept(request, context)

    receiver.answer = refuse_first
    wait_until(lambda: len(seen) == 2)
    agent.kill()
    seen.append(0)
    new_agent("--spool-dir", str(spool))
    wait_until(lambda: any(request.final for request in receiver.requests))
    last = next(request for request in receiver.requests if request.final)
    assert dict(last.dropped_counts) == {"rejected": seen[0]}
    assert last.produced_count == 400
    assert len(set(numbers(receiver))) == 400 - seen[0]


def test_sigterm_keeps_what_it_holds(
    backend: Any, new_agent: Any, new_receiver: Callable[..., Receiver], tmp_path: Path
) -> None:
    """It does not wait for its clients, nor for a collector that is down; it ends with 0."""
    spool = tmp_path / "spool"
    address = lasting_address()
    agent = new_agent("--spool-dir", str(spool))
    all_spans(backend, address)
    assert agent.terminate() == 0
    assert len(list(spool.glob("*.spool"))) == 1
    new_agent("--spool-dir", str(spool))
    receiver = new_receiver(address)
    wait_until(lambda: len(receiver.spans) >= SPANS)
    assert numbers(receiver) == list(range(SPANS))


def test_sigterm_delivers_what_is_in_memory(
    backend: Any, new_agent: Any, new_receiver: Callable[..., Receiver]
) -> None:
    address = lasting_address()
    agent = new_agent()
    all_spans(backend, address)
    os.kill(agent.pid, signal.SIGTERM)
    receiver = new_receiver(address)
    assert agent.terminate() == 0
    assert numbers(receiver) == list(range(SPANS))


def test_clients_of_one_that_ends_go_to_the_next(
    new_agent: Any, new_tracer: Any, receiver: Receiver, tmp_path: Path
) -> None:
    """Nothing is delivered for those that live on."""
    spool = tmp_path / "spool"
    tracer = new_tracer(receiver.endpoint)
    number = 0
    for _ in range(3):
        agent = new_agent("--spool-dir", str(spool))
        for _ in range(30):
            tracer.start_span("m", tags={"number": str(number)}).end()
            number += 1
        assert tracer.flush(60)
        assert sender_of(tracer) == agent.pid
        assert agent.terminate() == 0
        assert list(spool.glob("*.spool")) == []
    assert numbers(receiver) == list(range(number))
    assert not any(request.final for request in receiver.requests)


def test_a_full_spool_is_no_end(
    backend: Any, new_agent: Any, new_receiver: Callable[..., Receiver], tmp_path: Path
) -> None:
    """What does not fit is held in memory."""
    spool = tmp_path / "spool"
    address = lasting_address()
    new_agent("--spool-dir", str(spool), "--spool-mib", "1")
    large = ', service_name="s"'
    body = MANY_SPANS.replace('"number": str(number)', '"number": str(number), "x": "x" * 10000')
    for _ in range(3):
        done = run_program(backend, body.format(endpoint=address, spans=SPANS, more=large))
        assert json.loads(done.stdout)[1]["handed_over"] == SPANS
    files = list(spool.glob("*.spool"))
    assert len(files) == 1
    assert sum(path.stat().st_size for path in files) <= 1024 * 1024
    receiver = new_receiver(address)
    wait_until(lambda: len(receiver.spans) >= 3 * SPANS)
    assert numbers(receiver) == sorted(list(range(SPANS)) * 3)
    wait_until(lambda: list(spool.glob("*.spool")) == [])


def test_a_damaged_file_is_set_aside(
    backend: Any, new_agent: Any, new_receiver: Callable[..., Receiver], tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    address = lasting_address()
    agent = new_agent("--spool-dir", str(spool))
    all_spans(backend, address)
    agent.kill()
    (path,) = spool.glob("*.spool")
    path.write_bytes(path.read_bytes()[:-200])
    (spool / "other.spool").write_bytes(b"nothing")
    agent = new_agent("--spool-dir", str(spool))
    assert list(spool.glob("*.spool")) == []
    assert len(list(spool.glob("*.damaged"))) == 2
    assert agent.terminate() == 0


def test_all_goes_where_it_forwards(
    backend: Any, new_agent: Any, receiver: Receiver, tmp_path: Path
) -> None:
    """With the agent's own credentials, whatever the tracers say."""
    token = tmp_path / "token"
    token.write_text("agents-s3cret")
    environ = {**os.environ, "INFERTRACE_TOKEN_FILE": str(token)}
    agent = new_agent("--forward", receiver.endpoint, "--http", "127.0.0.1:0", env=environ)
    all_spans(backend, NOBODY, more=', headers={"x-of": "tracer"}, token="theirs"')
    wait_until(lambda: len(receiver.spans) >= SPANS)
    assert numbers(receiver) == list(range(SPANS))
    assert receiver.metadata[0]["authorization"] == "Bearer agents-s3cret"
    assert "x-of" not in receiver.metadata[0]
    assert agent.metrics()["infertrace_agent_spans_delivered_total"] == SPANS


def test_where_it_forwards_turns_out_to_take_otlp(backend: Any, new_agent: Any) -> None:
    """No tracer can switch for it: each names another target."""
    receiver = GrpcOtlpReceiver()
    try:
        new_agent("--forward", receiver.endpoint)
        all_spans(backend, NOBODY)
        wait_until(lambda: len(receiver.span_ids) == SPANS)
        assert len(receiver.spans) == SPANS
    finally:
        receiver.stop()


def test_it_opens_no_files_for_others(
    new_agent: Any, new_tracer: Any, receiver: Receiver, tmp_path: Path, caplog: Any
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of-the-agents-user")
    new_agent()
    tracer = new_tracer(receiver.endpoint, token_file=secret)
    tracer.start_span("m").end()
    assert not tracer.flush(2)
    assert receiver.requests == []
    assert "an agent opens no files for tracers, and this one names token_file" in caplog.text
    tracer.configure(token_file=None)
    assert tracer.flush(60)
    assert "authorization" not in receiver.metadata[0]


def test_it_leaves_the_spools_of_tracers_alone(
    backend: Any, new_agent: Any, receiver: Receiver, tmp_path: Path
) -> None:
    """Another tracer with that directory delivers what a dead process has left there."""
    spool = tmp_path / "tracers"
    new_agent()
    body = f"""
        import os
        tracer = infertrace.Tracer("{receiver.endpoint}", spool_dir="{spool}")
        tracer.start_span("m", tags={{"number": "0"}}).end()
        assert tracer.flush(60)
        tracer._exporter._rounds.export_interval_s = 100
        tracer.start_span("m", tags={{"number": "1"}}).end()
        os._exit(0)
    """
    assert run_program(backend, body, INFERTRACE_EXPORT_INTERVAL_S="100").returncode == 0
    time.sleep(1)
    assert len(list(spool.glob("*.spool"))) == 1
    assert numbers(receiver) == [0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_of_another_user(backend: Any, new_agent: Any, receiver: Receiver) -> None:
    """The socket's mode says who may connect."""
    path = Path(os.environ["INFERTRACE_AGENT"].removeprefix("unix://"))
    path.parent.chmod(0o755)
    body = f"""
        import os
        # Another user may not read this interpreter's modules: load all of them.
        first = infertrace.Tracer("{NOBODY}", agent="unix:///nowhere/agent.sock")
        first.start_span("m").end()
        first.shutdown(0.5)
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        tracer = infertrace.Tracer("{receiver.endpoint}")
        tracer.start_span("m").end()
        print(tracer.flush({{}}), tracer.shutdown(0))
    """
    agent = new_agent()
    done = run_program(backend, body.format(2))
    assert done.stdout == "False False\n", done.stderr
    assert "Permission denied" in done.stderr
    agent.kill()
    new_agent("--socket-mode", "666")
    done = run_program(backend, body.format(60))
    assert done.stdout == "True True\n", done.stderr
    assert len(receiver.spans) == 1


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_directory_that_others_write_to(
    new_agent: Any, new_tracer: Any, receiver: Receiver, caplog: Any, mode: int
) -> None:
    """Whoever can put a socket there would get all spans and tokens."""
    new_agent()
    path = Path(os.environ["INFERTRACE_AGENT"].removeprefix("unix://"))
    path.parent.chmod(mode)
    tracer = new_tracer(receiver.endpoint)
    tracer.start_span("m").end()
    assert not tracer.flush(1)
    assert "expected a directory that only its owner may write to" in caplog.text
    path.parent.chmod(0o755)
    assert tracer.flush(60)


def test_one_at_a_time(new_agent: Any, tmp_path: Path) -> None:
    spool = str(tmp_path / "spool")
    agent = new_agent("--spool-dir", spool)
    with pytest.raises(AssertionError, match="another agent uses it"):
        new_agent()
    with pytest.raises(AssertionError, match=r"--spool-dir: .* another agent uses it"):
        new_agent("--spool-dir", spool)
    agent.kill()
    new_agent("--spool-dir", spool)


def test_one_that_hangs_keeps_its_place(
    backend: Any, new_agent: Any, new_tracer: Any, receiver: Receiver, monkeypatch: Any
) -> None:
    """A tracer waits for it, and removes nothing that is not its own."""
    from infertrace.exporting import host_sender

    monkeypatch.setattr(host_sender, "_START_TIMEOUT_S", 0.3)
    agent = new_agent()
    os.kill(agent.pid, signal.SIGSTOP)
    try:
        tracer = new_tracer(receiver.endpoint)
        tracer.start_span("m").end()
        assert not tracer.flush(2)
        assert Path(agent.url.removeprefix("unix://")).is_socket()
    finally:
        os.kill(agent.pid, signal.SIGCONT)
    assert tracer.flush(60)
    assert sender_of(tracer) == agent.pid


def test_what_is_no_socket(new_tracer: Any, tmp_path: Path, caplog: Any) -> None:
    path = tmp_path / "agent.sock"
    path.write_text("")
    tracer = new_tracer(NOBODY, agent=f"unix://{path}")
    tracer.start_span("m").end()
    assert not tracer.flush(1)
    assert "expected a socket" in caplog.text


def test_own_and_none_use_no_agent(
    backend: Any, new_tracer: Any, receiver: Receiver, tmp_path: Path
) -> None:
    for choice in ("own", "none"):
        tracer = new_tracer(
            receiver.endpoint, agent=f"unix://{tmp_path}/a.sock", sender_process=choice
        )
        tracer.start_span("m").end()
        assert tracer.flush(60)


def test_an_agent_that_has_no_room_left(
    new_agent: Any, new_tracer: Any, receiver: Receiver, tmp_path: Path
) -> None:
    """A directory that cannot be written to: it is held in memory, and said once."""
    spool = tmp_path / "spool"
    agent = new_agent("--spool-dir", str(spool))
    for path in spool.iterdir():
        path.unlink()
    spool.rmdir()
    tracer = new_tracer(NOBODY)
    tracer.start_span("m").end()
    assert tracer.shutdown(60)
    assert tracer.stats()["handed_over"] == 1
    wait_until(lambda: "nothing can be written to" in (tmp_path / "agent.log").read_text())
    assert not has_ended(agent.pid)


def test_a_stranger_does_not_end_it(new_agent: Any, new_tracer: Any, receiver: Receiver) -> None:
    new_agent()
    path = os.environ["INFERTRACE_AGENT"].removeprefix("unix://")
    for said in (b"", b"GET / HTTP/1.1\r\n\r\n" * 9, b"\xff" * 200, b"\0" * 31):
        with socket.socket(socket.AF_UNIX) as stranger, contextlib.suppress(OSError):
            stranger.connect(path)
            stranger.sendall(said)
    tracer = new_tracer(receiver.endpoint)
    tracer.start_span("m").end()
    assert tracer.flush(60)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a namespace of processes")
def test_in_another_namespace_of_processes(
    backend: Any, new_agent: Any, receiver: Receiver, tmp_path: Path
) -> None:
    """As in a container: it has other numbers for the processes that it serves, and is number 1."""
    agent = new_agent(wrapper=("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"))
    body = f"""
        import os, signal, subprocess, sys
        ending = os.environ["ENDING"]
        child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
        tracer = infertrace.Tracer("{receiver.endpoint}", export_interval_s=0.02)
        for number in range({SPANS}):
            tracer.start_span("m", tags={{"number": str(number)}}).end()
        assert tracer.flush(60)
        assert tracer._exporter.sender_pid == 1
        tracer._exporter._connection.disconnect()
        tracer.start_span("m", tags={{"number": "99"}}).end()
        assert tracer.flush(60)
        assert child.wait() == 7
        print("done", flush=True)
        tracer.start_span("m", tags={{"number": "100"}}).end()
        if ending == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
    """
    assert run_program(backend, body, ENDING="").stdout == "done\n"
    wait_until(lambda: any(request.final for request in receiver.requests))
    assert numbers(receiver) == list(range(101))
    if backend.NAME == "native":
        receiver.requests.clear()
        killed = run_program(backend, body, ENDING="SIGKILL")
        assert killed.returncode == -signal.SIGKILL
        wait_until(lambda: any(request.final for request in receiver.requests))
        assert numbers(receiver) == list(range(101))
    agent.kill()


def test_one_that_has_no_descriptors_left(
    new_agent: Any, new_tracer: Any, receiver: Receiver
) -> None:
    """Whoever finds no room waits until others have gone; nobody starts a sender instead."""
    new_agent(wrapper=("bash", "-c", 'ulimit -n 80; exec "$@"', "bash"))
    waiting = [new_tracer(receiver.endpoint) for _ in range(70)]
    for number, tracer in enumerate(waiting):
        tracer.start_span("m", tags={"number": str(number)}).end()
    assert not all(tracer.flush(1) for tracer in waiting)
    while waiting:
        done = [tracer for tracer in waiting if tracer.flush(0.2)]
        for tracer in done:
            assert tracer.shutdown(60)
            assert tracer.stats()["delivered"] == 1
        waiting = [tracer for tracer in waiting if tracer not in done]
    assert numbers(receiver) == list(range(70))
