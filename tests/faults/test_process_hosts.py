"""What starts and ends processes for others, with a tracer in each: exact counts at a collector."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from collector_process import CollectorProcess
from lasting_address import lasting_address
from process_hosts import assert_exact, host_environment, python, run_host, write
from traced_program import TIMEOUT_S, has_ended, wait_until

WORKERS = 8
REQUESTS = 200

POOL = """
    import multiprocessing, sys
    from concurrent.futures import ProcessPoolExecutor
    import infertrace
    tracer = infertrace.Tracer(sys.argv[1])

    def work(number):
        with tracer.start_span("m", tags={"number": str(number)}):
            pass

    if __name__ == "__main__":
        context = multiprocessing.get_context(sys.argv[2])
        with ProcessPoolExecutor(8, mp_context=context) as pool:
            list(pool.map(work, range(2000)))
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_process_pool_executor(
    backend: Any, collector: CollectorProcess, tmp_path: Path, method: str
) -> None:
    script = write(tmp_path, "pool.py", POOL)
    run_host(python(script, collector.endpoint, method), tmp_path, host_environment(backend))
    assert_exact(collector, 2000)


ASGI = """
    import os
    from infertrace import Tracer
    tracer = Tracer(os.environ["ENDPOINT"])
    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        with tracer.start_span("m"):
            body = str(os.getpid()).encode()
        await send({"type": "http.response.start", "status": 200,
                    "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": body})
"""
WSGI = """
    import os
    from infertrace import Tracer
    tracer = Tracer(os.environ["ENDPOINT"])
    def app(environ, start_response):
        with tracer.start_span("m"):
            body = str(os.getpid()).encode()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [body]
"""
SERVERS = {
    "gunicorn": f"gunicorn wsgi:app -b 127.0.0.1:{{port}} -w {WORKERS}",
    "gunicorn, preload": f"gunicorn wsgi:app -b 127.0.0.1:{{port}} -w {WORKERS} --preload",
    "uvicorn": f"uvicorn asgi:app --lifespan off --port {{port}} --workers {WORKERS // 2}",
}


class Asking:
    """Clients that ask a server all the time; how many were answered, and by whom."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.answered = 0
        self.pids: set[int] = set()
        self._lock = threading.Lock()

    def ask(self, count: int) -> None:
        clients = [threading.Thread(target=self._ask, args=(count // 4,)) for _ in range(4)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()

    def _ask(self, count: int) -> None:
        for _ in range(count):
            with urllib.request.urlopen(self._url, timeout=TIMEOUT_S) as answer:
                pid = int(answer.read())
            with self._lock:
                self.answered += 1
                self.pids.add(pid)


@pytest.mark.parametrize("server", SERVERS)
def test_servers_that_fork_reload_and_end(
    backend: Any, collector: CollectorProcess, tmp_path: Path, server: str
) -> None:
    """By their defaults; SIGHUP has others take the place of all workers."""
    port = int(lasting_address().rpartition(":")[2])
    write(tmp_path, "wsgi.py", WSGI)
    write(tmp_path, "asgi.py", ASGI)
    module, *arguments = SERVERS[server].format(port=port).split()
    process = subprocess.Popen(
        python("-m", module, *arguments),
        cwd=tmp_path,
        env=host_environment(backend, ENDPOINT=collector.endpoint, PYTHONPATH=str(tmp_path)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    asking = Asking(f"http://127.0.0.1:{port}/")
    try:
        wait_until(lambda: listens(asking))
        asking.ask(REQUESTS)
        old = set(asking.pids)
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: all(has_ended(pid) for pid in old))
        wait_until(lambda: listens(asking))
        asking.ask(REQUESTS)
        assert not old & (asking.pids - old)
        process.send_signal(signal.SIGTERM)
        process.wait(TIMEOUT_S)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert_exact(collector, asking.answered, len(asking.pids))


def listens(asking: Asking) -> bool:
    try:
        asking._ask(1)
    except OSError:
        return False
    return True


LEAVING = """
    import os, signal, sys
    import infertrace
    tracer = infertrace.Tracer(sys.argv[1])
    for number in range(99):
        tracer.start_span("m", tags={"number": str(number)}).end()
    for child in range(4):
        if not os.fork():
            for number in range(99):
                tracer.start_span("m", tags={"number": str(number)}).end()
            sys.exit()
    for child in range(4):
        os.wait()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a namespace of processes")
def test_process_number_1(backend: Any, collector: CollectorProcess, tmp_path: Path) -> None:
    """As in a container without an init: all that it has started ends with it, its sender too."""
    script = write(tmp_path, "first.py", "import os\nassert os.getpid() == 1\n")
    script.write_text(script.read_text() + write(tmp_path, "rest.py", LEAVING).read_text())
    namespace = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    run_host([*namespace, *python(script, collector.endpoint)], tmp_path, host_environment(backend))
    assert_exact(collector, 5 * 99, 5)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a namespace of processes")
def test_process_number_1_counts_what_ends_with_it(backend: Any, tmp_path: Path, hung: str) -> None:
    """Nobody is left who could hold it."""
    script = write(
        tmp_path,
        "first.py",
        """
        import json, sys
        import infertrace
        tracer = infertrace.Tracer(sys.argv[1])
        for number in range(99):
            tracer.start_span("m").end()
        print(json.dumps([tracer.shutdown(1), tracer.stats()["dropped"]]))
        """,
    )
    namespace = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    done = run_host([*namespace, *python(script, hung)], tmp_path, host_environment(backend))
    assert done.stdout == '[false, {"shutdown": 99}]\n'
