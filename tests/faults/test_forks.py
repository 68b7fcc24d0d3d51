"""Forked children have their own ledger, sender and spool, and never hang."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend_recording import assert_closed
from collector_process import CollectorProcess
from grpc_receiver import Receiver
from lasting_address import lasting_address
from traced_program import (
    NOBODY,
    drain,
    environment,
    program,
    run_program,
    sender_of,
    spools,
    start_program,
    wait_until,
)


def test_a_child_process_has_a_ledger_and_spans_of_its_own(
    new_tracer: Any, new_receiver: Callable[..., Receiver]
) -> None:
    """Forked before gRPC has connected, as a preloading server forks its workers."""
    endpoint = lasting_address()
    tracer = new_tracer(endpoint, export_interval_s=3600)  # it sends nothing before the fork
    for _ in range(5):
        tracer.start_span("m", "parent").end()
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                tracer.start_span("m", "child").end()
                mine = tracer.stats()
                delivered = tracer.flush(30)
                status = 0 if mine["produced"] == 1 and delivered else 1
            finally:
                os._exit(status)
        children.append(child)
    receiver = new_receiver(endpoint)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert tracer.stats()["pending"] == 5
    assert tracer.flush(30)
    names = sorted(span.operation_name for span in receiver.spans)
    assert names == ["child"] * 3 + ["parent"] * 5
    assert len({request.producer_id for request in receiver.requests if request.spans}) == 4


def test_a_fork_while_a_thread_of_ours_loads_a_module(backend: Any) -> None:
    """The child can import it, and finds all of it."""
    body = f"""
        import os, signal, sys, threading, time

        os.environ["LD_LIBRARY_PATH"] = "/nowhere"  # so that it looks for a GPU by itself
        is_loading = threading.Event()

        class SlowDisk:
            def find_spec(self, name, path=None, target=None):
                ours = threading.current_thread().name.startswith("infertrace")
                if name == "infertrace.nvml" and ours:
                    is_loading.set()
                    time.sleep(0.5)

        sys.meta_path.insert(0, SlowDisk())
        tracer = infertrace.Tracer("{NOBODY}")
        tracer.start_span("m").end()
        assert is_loading.wait(30)
        child = os.fork()
        if not child:
            signal.alarm(30)
            from infertrace import nvml
            nvml.load
            os._exit(0)
        print(os.waitpid(child, 0)[1])
        tracer.shutdown(0)
    """
    done = run_program(backend, body)
    assert done.stdout == "0\n", done.stderr


def test_a_killed_child_does_not_hang_the_parent(new_tracer: Any, receiver: Receiver) -> None:
    tracer = new_tracer(receiver.endpoint)
    tracer.start_span("m").end()
    assert tracer.flush(30)
    child = os.fork()
    if child == 0:
        tracer.start_span("m").end()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    tracer.start_span("m").end()
    assert tracer.flush(30)
    assert tracer.stats()["delivered"] == 2


def test_children_forked_from_a_live_connection(tracer: Any, receiver: Receiver) -> None:
    """They deliver by their own sender; the parent's goes on as if there had been no fork."""
    tracer.start_span("m", "parent").end()
    assert tracer.flush(30)
    pid = sender_of(tracer)
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
    assert sender_of(tracer) == pid
    wait_until(lambda: len(receiver.spans) == 34)
    assert len({request.producer_id for request in receiver.requests}) == 4
    names = [span.operation_name for span in receiver.spans]
    assert (names.count("parent"), names.count("child")) == (4, 30)
    assert len({span.span_id for span in receiver.spans}) == 34


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "os._exit(0)"])
def test_a_forked_child_has_a_spool_of_its_own(
    own_sender: None, backend: Any, receiver: Receiver, tmp_path: Path, end: str
) -> None:
    """Child and parent are killed; each leaves its own spans in a spool, once."""
    body = f"""
        import json, os, infertrace
        tracer = infertrace.Tracer("{NOBODY}", spool_dir={str(tmp_path)!r})
        for number in range(50):
            tracer.start_span("m", "parent").end()
        child = os.fork()
        if child == 0:
            for number in range(70):
                tracer.start_span("m", "child").end()
            {end}
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


WORKERS = """
import multiprocessing, sys
import infertrace

tracer = infertrace.Tracer(sys.argv[1], exit_timeout_s=60, export_interval_s=3600)

def work(number):
    for _ in range(20):
        with tracer.start_span("m", tags={"worker": str(number)}):
            pass

if __name__ == "__main__":
    with tracer.start_span("m"):
        pass
    assert tracer.flush(60)
    context = multiprocessing.get_context(sys.argv[2])
    workers = [context.Process(target=work, args=(number,)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    with tracer.start_span("m"):
        pass
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_multiprocessing_deliver_at_their_end(
    backend: Any, receiver: Receiver, tmp_path: Path, method: str
) -> None:
    """They exit by os._exit, which skips atexit."""
    script = tmp_path / "server.py"
    script.write_text(WORKERS)
    done = subprocess.run(
        [sys.executable, str(script), receiver.endpoint, method],
        env=environment(backend),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    wait_until(lambda: sum(request.final for request in receiver.requests) == 4)
    workers = [span.tags["worker"] for span in receiver.spans if "worker" in span.tags]
    assert sorted(workers) == ["0"] * 20 + ["1"] * 20 + ["2"] * 20
    assert len(receiver.spans) == len({span.span_id for span in receiver.spans}) == 62
    goodbyes = [request for request in receiver.requests if request.final]
    assert sorted(request.produced_count for request in goodbyes) == [2, 20, 20, 20]


def test_a_parent_that_forks_and_exits(backend: Any, receiver: Receiver) -> None:
    """As a daemon does it: the child goes on, with its own sender."""
    done = run_program(
        backend,
        f"""
        import os, time
        tracer = infertrace.Tracer("{receiver.endpoint}", exit_timeout_s=30)
        with tracer.start_span("m", "parent"): pass
        assert tracer.flush(30)
        with tracer.start_span("m", "parent"): pass
        parent = os.getpid()
        if os.fork() == 0:
            while os.getppid() == parent:
                time.sleep(0.01)
            for _ in range(30):
                with tracer.start_span("m", "child"): pass
                time.sleep(0.01)
        """,
    )
    assert done.returncode == 0, done.stderr
    wait_until(lambda: sum(request.final for request in receiver.requests) == 2)
    names = [span.operation_name for span in receiver.spans]
    assert (names.count("parent"), names.count("child")) == (2, 30)
    assert len({request.producer_id for request in receiver.requests}) == 2


APPLICATION = """
import os
import infertrace

tracer = infertrace.Tracer(os.environ["ENDPOINT"], exit_timeout_s=30)
with tracer.start_span("m", "preload"):
    pass
assert tracer.flush(60)

def application(environ, start_response):
    with tracer.start_span("m", "request", tags={"pid": str(os.getpid())}):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(os.getpid()).encode()]
"""


def test_gunicorn_with_a_preloaded_application(
    backend: Any, collector: CollectorProcess, tmp_path: Path
) -> None:
    (tmp_path / "served.py").write_text(APPLICATION)
    address = lasting_address()
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "gunicorn", "--preload", "--workers", "2"),
            *("--bind", address, "--chdir", str(tmp_path), "served:application"),
        ],
        env={**environment(backend), "ENDPOINT": collector.endpoint},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        asked = 0
        pids: set[str] = set()

        def ask() -> bool:
            nonlocal asked
            try:
                answer = httpx.get(f"http://{address}/", trust_env=False, timeout=30)
            except httpx.TransportError:
                return False
            assert answer.status_code == 200
            asked += 1
            pids.add(answer.text)
            return len(pids) == 2 and asked >= 40

        wait_until(ask)
    finally:
        server.terminate()
        _, errors = server.communicate(timeout=60)
    assert server.returncode == 0, errors
    stored = collector.spans(operation="request")
    assert len(stored) == asked
    assert {span["tags"]["pid"] for span in stored} == pids
    assert len(collector.spans(operation="preload")) == 1
    for account in collector.producers():
        assert account["stored"] == account["produced"]


def test_forks_from_busy_threads_with_a_hung_collector(
    backend: Any, collector: CollectorProcess, nightly: bool
) -> None:
    """No child hangs or sends its parent's spans, and the parent loses none."""
    forks = 1_000 if nightly else 100
    running = start_program(
        backend,
        f"""
        import json, os, threading, time
        tracer = infertrace.Tracer("{collector.endpoint}", exit_timeout_s=60,
                                   export_interval_s=0.01, max_buffer_bytes=2**26)
        with tracer.start_span("m", "parent"): pass
        assert tracer.flush(60)
        print("ready", flush=True)
        input()
        done = threading.Event()
        def work():
            while not done.is_set():
                with tracer.start_span("m", "parent", tags={{"k": "v"}}) as span:
                    span.add_event("e")
                time.sleep(2e-4)
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range({forks}):
            child = os.fork()
            if child == 0:
                with tracer.start_span("m", "child"): pass
                mine = tracer.stats()
                alone = (mine["produced"], mine["pending"]) == (1, 1)
                if number % 50 == 0:
                    tracer.flush(0.01)
                os._exit(0 if alone else 1)
            assert os.waitpid(child, 0)[1] == 0
        done.set()
        for thread in threads:
            thread.join()
        print(json.dumps(tracer.stats()), flush=True)
        input()
        assert tracer.flush(120)
        assert tracer.shutdown(120)
        print(json.dumps(tracer.stats()), flush=True)
        """,
        stdin=subprocess.PIPE,
    )
    with running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        collector.send_signal(signal.SIGSTOP)
        print(file=running.stdin, flush=True)
        hung = json.loads(running.stdout.readline())
        assert_closed(hung)
        assert hung["pending"] == hung["produced"] - 1
        collector.send_signal(signal.SIGCONT)
        print(file=running.stdin, flush=True)
        after = json.loads(running.stdout.readline())
    assert after["delivered"] == after["produced"]
    stored = collector.spans(operation="parent")
    assert len(stored) == len({span["span_id"] for span in stored}) == after["produced"]
    accounts = collector.producers()
    assert max(account["stored"] for account in accounts) == after["produced"]
    assert all(account["stored"] in (0, 1, after["produced"]) for account in accounts)
