"""The application of docs/servers.md, as its servers run it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from grpc_receiver import Receiver
from lasting_address import lasting_address
from traced_program import TIMEOUT_S, environment, wait_until

PAGE = (Path(__file__).parents[2] / "docs" / "servers.md").read_text()
(APP,) = re.findall(r"^```python\n(import asyncio.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
UNTRACED = re.sub(
    r"^import infertrace\n|^infertrace.*\n|^tracer = .*\n|^@tracer.*\n|^ *infertrace\.current.*\n",
    "",
    APP,
    flags=re.MULTILINE,
)
SERVERS = {
    "uvicorn": "uvicorn app:app --workers 2 --port {port}",
    "gunicorn": "gunicorn app:app -k uvicorn.workers.UvicornWorker -w 2 -b 127.0.0.1:{port}",
}
REQUESTS = 8
WORDS = "why is the sky blue"


@pytest.fixture
def port() -> int:
    return int(lasting_address().rpartition(":")[2])


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def start(command: list[str], folder: Path, app: str, **environ: str) -> subprocess.Popen[str]:
    (folder / "app.py").write_text(app)
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={**os.environ, "INFERTRACE_EXPORT_INTERVAL_S": "3600", **environ},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ask_and_end(process: subprocess.Popen[str], port: int) -> str:
    """Asks some questions, ends the server; returns what it said."""
    wait_until(lambda: listens(port) or process.poll() is not None)
    url = f"http://127.0.0.1:{port}/chat"
    with ThreadPoolExecutor(4) as clients:

        def ask(number: int) -> str:
            return httpx.post(url, params={"prompt": WORDS}, timeout=TIMEOUT_S).text

        assert set(clients.map(ask, range(REQUESTS))) == {WORDS + " "}
    process.send_signal(signal.SIGTERM)
    return process.communicate(timeout=TIMEOUT_S)[1]


@pytest.mark.parametrize("server", SERVERS)
def test_the_application_of_the_page(
    backend: Any,
    receiver: Receiver,
    tmp_path: Path,
    started: list[subprocess.Popen[str]],
    port: int,
    server: str,
) -> None:
    command = SERVERS[server].format(port=port).split()
    environ = environment(backend) | {"INFERTRACE_ENDPOINT": receiver.endpoint}
    started.append(start(command, tmp_path, APP, **environ))
    ask_and_end(started[0], port)
    wait_until(lambda: len(receiver.spans) == 3 * REQUESTS)
    spans = {span.span_id: span for span in receiver.spans}
    requests = [span for span in spans.values() if not span.parent_span_id]
    assert len(requests) == REQUESTS
    for request in requests:
        assert (request.operation_name, request.status) == ("POST /chat", "OK")
        assert request.inference.input_tokens == request.inference.output_tokens == 5
        assert request.inference.time_to_first_token_ms > 0
        inside = {
            span.operation_name: span
            for span in spans.values()
            if span.parent_span_id == request.span_id
        }
        assert set(inside) == {"tokenize", "generate"}
        generate = inside["generate"]
        assert generate.inference.output_tokens == 5
        ends = [s.start_time_unix_nano + s.duration_nanos for s in (request, generate)]
        assert ends[0] >= ends[1]


def test_without_a_changed_line(
    backend: Any,
    receiver: Receiver,
    tmp_path: Path,
    started: list[subprocess.Popen[str]],
    port: int,
) -> None:
    assert "trace" not in UNTRACED
    command = ["infertrace", "run", "--", sys.executable, "-m"]
    command += SERVERS["uvicorn"].format(port=port).split()
    environ = environment(backend) | {"INFERTRACE_ENDPOINT": receiver.endpoint}
    started.append(start(command, tmp_path, UNTRACED, **environ))
    said = ask_and_end(started[0], port)
    wait_until(lambda: len(receiver.spans) == REQUESTS)
    assert {span.operation_name for span in receiver.spans} == {"POST /chat"}
    counts = re.findall(r"uvicorn .*; (\d+) spans, (\d+) delivered$", said, re.MULTILINE)
    assert sum(int(delivered) for _, delivered in counts) == REQUESTS, said
