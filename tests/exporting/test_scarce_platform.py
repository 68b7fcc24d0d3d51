"""Where there are no threads, or no grpcio: recording works, and what cannot be done is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from backend_recording import assert_closed
from grpc_receiver import Receiver

NO_THREADS = """
    import threading
    def refuse(thread):
        raise RuntimeError("can't start new thread")
    start, threading.Thread.start = threading.Thread.start, refuse
"""


def run(backend: Any, preamble: str, program: str, *arguments: str | Path) -> Any:
    """What it prints as JSON, and what it writes to stderr."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(preamble) + textwrap.dedent(program), *arguments],
        env={**os.environ, "INFERTRACE_BACKEND": backend.NAME},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def test_without_threads_flush_and_shutdown_deliver(
    backend: Any, sender: str, receiver: Receiver
) -> None:
    program = """
        import json, sys, infertrace
        tracer = infertrace.Tracer(sys.argv[1], max_batch_bytes=4096)
        for _ in range(1000):
            tracer.start_span("m").end()
        before, flushed = tracer.stats(), tracer.flush(30)
        tracer.start_span("m").end()
        print(json.dumps([before, flushed, tracer.shutdown(30), tracer.stats()]))
    """
    (before, flushed, closed, after), _ = run(backend, NO_THREADS, program, receiver.endpoint)
    assert before["pending"] == 1000
    assert flushed
    assert closed
    assert after["delivered"] == len(receiver.spans) == 1001
    assert_closed(after)
    assert [request.batch_sequence for request in receiver.requests] == list(
        range(1, len(receiver.requests) + 1)
    )
    assert receiver.requests[-1].final


def test_without_threads_flush_keeps_its_deadline_and_the_spans(
    backend: Any, sender: str, receiver: Receiver
) -> None:
    program = """
        import json, sys, time, infertrace
        tracer = infertrace.Tracer("127.0.0.1:1")
        tracer.start_span("m").end()
        results = [tracer.flush(0.3), tracer.flush(0.3), tracer.stats()]
        tracer.configure(endpoint=sys.argv[1])
        results.append(tracer.flush(30))
        tracer.start_span("m").end()
        threading.Thread.start = start
        results += [tracer.flush(30), tracer.stats()]
        tracer.shutdown()
        print(json.dumps(results))
    """
    results, _ = run(backend, NO_THREADS, program, receiver.endpoint)
    first, second, stuck, rescued, threaded, after = results
    assert (first, second, rescued, threaded) == (False, False, True, True)
    assert (stuck["pending"], after["delivered"]) == (1, 2)
    assert len(receiver.spans) == 2
    assert [request.batch_sequence for request in receiver.requests] == [1, 2, 3]


def test_without_grpcio(backend: Any, sender: str, tmp_path: Path) -> None:
    program = """
        import json, sys, infertrace
        tracer = infertrace.Tracer("localhost:4317")
        tracer.start_span("m").end()
        results = [tracer.flush(0.5), tracer.stats()]
        tracer.configure(endpoint=f"file://{sys.argv[1]}/spans")
        results += [tracer.flush(30), tracer.stats()]
        print(json.dumps(results))
    """
    missing = "import sys; sys.modules.update(dict.fromkeys(['grpc', 'google.protobuf', 'pynvml']))"
    results, said = run(backend, missing, program, tmp_path)
    flushed, stuck, rescued, after = results
    assert (flushed, stuck["pending"], stuck["dropped"]) == (False, 1, {})
    assert (rescued, after["delivered"]) == (True, 1)
    assert said.count("grpcio is not installed here; endpoint='file:///PATH'") == 1
