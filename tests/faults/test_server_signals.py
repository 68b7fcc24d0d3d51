"""SIGTERM to real servers, with requests in flight: each is answered, and its span delivered."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grpc_receiver import Receiver
from lasting_address import lasting_address
from traced_program import TIMEOUT_S, environment, wait_until

REQUESTS = 4
# A request reports that it is in flight, and goes on until it learns that the signal was sent.
ASGI = """
    import asyncio, os, uuid
    from pathlib import Path
    from infertrace import Tracer
    tracer = Tracer(os.environ["ENDPOINT"], flush_on_sigterm=True, export_interval_s=3600,
                    exit_timeout_s=60)
    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        with tracer.start_span("m"):
            Path("in-flight", uuid.uuid4().hex).touch()
            while not Path("signalled").exists():
                await asyncio.sleep(0.02)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"answered"})
"""
WSGI = """
    import os, time, uuid
    from pathlib import Path
    from infertrace import Tracer
    tracer = Tracer(os.environ["ENDPOINT"], flush_on_sigterm=True, export_interval_s=3600,
                    exit_timeout_s=60)
    def app(environ, start_response):
        with tracer.start_span("m"):
            Path("in-flight", uuid.uuid4().hex).touch()
            while not Path("signalled").exists():
                time.sleep(0.02)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"answered"]
"""
# A worker of gunicorn with gevent that SIGTERM meets while it starts does not end, untraced too.
GUNICORN = """
    from pathlib import Path
    def post_worker_init(worker):
        Path("workers", str(worker.pid)).touch()
"""
GUNICORN_WORKERS = 2
SERVERS = {
    "uvicorn": "uvicorn asgi:app --lifespan off --port {port}",
    "uvicorn, workers": "uvicorn asgi:app --lifespan off --port {port} --workers 2",
    "uvicorn, reload": "uvicorn asgi:app --lifespan off --port {port} --reload",
    "gunicorn, threads": "gunicorn wsgi:app -b 127.0.0.1:{port} -w 2 --threads 4",
    "gunicorn, preload": "gunicorn wsgi:app -b 127.0.0.1:{port} -w 2 --threads 4 --preload",
    "gunicorn, gevent": "gunicorn wsgi:app -b 127.0.0.1:{port} -w 2 -k gevent",
    "gunicorn, gevent, preload": "gunicorn wsgi:app -b 127.0.0.1:{port} -w 2 -k gevent --preload",
    "gunicorn, uvicorn": (
        "gunicorn asgi:app -b 127.0.0.1:{port} -w 2 -k uvicorn.workers.UvicornWorker"
    ),
    "hypercorn": "hypercorn asgi:app -b 127.0.0.1:{port} -w 1",
    "hypercorn, workers": "hypercorn asgi:app -b 127.0.0.1:{port} -w 2",
    "hypercorn, reload": "hypercorn asgi:app -b 127.0.0.1:{port} --reload",
}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "asgi.py").write_text(textwrap.dedent(ASGI))
    (tmp_path / "wsgi.py").write_text(textwrap.dedent(WSGI))
    (tmp_path / "gunicorn.conf.py").write_text(textwrap.dedent(GUNICORN))
    (tmp_path / "in-flight").mkdir()
    (tmp_path / "workers").mkdir()
    yield tmp_path
    (tmp_path / "signalled").touch()  # lets requests end if the test has failed


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("server", SERVERS)
def test_requests_in_flight_at_sigterm(
    backend: Any, receiver: Receiver, folder: Path, server: str
) -> None:
    port = int(lasting_address().rpartition(":")[2])
    module, *arguments = SERVERS[server].format(port=port).split()
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env=environment(backend) | {"ENDPOINT": receiver.endpoint, "PYTHONPATH": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    answers: list[bytes] = []

    def ask() -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=TIMEOUT_S) as answer:
            answers.append(answer.read())

    try:
        wait_until(lambda: listens(port))
        if module == "gunicorn":
            wait_until(lambda: len(list((folder / "workers").iterdir())) == GUNICORN_WORKERS)
        clients = [threading.Thread(target=ask) for _ in range(REQUESTS)]
        for client in clients:
            client.start()
        wait_until(lambda: len(list((folder / "in-flight").iterdir())) == REQUESTS)
        process.send_signal(signal.SIGTERM)
        (folder / "signalled").touch()
        for client in clients:
            client.join()
        process.wait(TIMEOUT_S)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert answers == [b"answered"] * REQUESTS
    wait_until(lambda: len({span.span_id for span in receiver.spans}) == REQUESTS)
    # Each worker that delivered has said that it is complete.
    wait_until(
        lambda: (
            {request.producer_id for request in receiver.requests if request.spans}
            <= {request.producer_id for request in receiver.requests if request.final}
        )
    )
