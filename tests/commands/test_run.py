"""`infertrace run`: programs that do not mention tracing, and their children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from grpc_receiver import Receiver
from infertrace.commands.run import summary
from traced_program import TIMEOUT_S, environment, wait_until

pytestmark = pytest.mark.usefixtures("patient_exit")

APP = """
    from fastapi import FastAPI
    app = FastAPI()
    @app.get("/hello")
    def hello():
        return "hello"
    """
# Serves the application, and asks it.
SERVED = """
    import socket, threading, time
    import httpx, uvicorn
    from app import app
    def main():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
            thread = threading.Thread(target=server.run, args=([listener],))
            thread.start()
            while not server.started:
                time.sleep(0.01)
            print(httpx.get(f"http://127.0.0.1:{listener.getsockname()[1]}/hello").text)
            server.should_exit = True
            thread.join()
    if __name__ == "__main__":
        main()
    """
CHILDREN = {
    "itself": "import served; served.main()",
    "subprocess": "import subprocess, sys; subprocess.run([sys.executable, 'served.py'])",
    "shell": "import os, sys; os.system(f'{sys.executable} served.py')",
    "exec": "import os, sys; os.execv(sys.executable, [sys.executable, 'served.py'])",
    "fork": """
        import os, served
        if not os.fork():
            served.main()
        else:
            os.wait()
        """,
    "multiprocessing, fork": """
        import multiprocessing, served
        process = multiprocessing.get_context("fork").Process(target=served.main)
        process.start()
        process.join()
        """,
    "multiprocessing, spawn": """
        import multiprocessing
        if __name__ == "__main__":
            import served
            process = multiprocessing.get_context("spawn").Process(target=served.main)
            process.start()
            process.join()
        """,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(textwrap.dedent(APP))
    (tmp_path / "served.py").write_text(textwrap.dedent(SERVED))
    return tmp_path


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "infertrace", "run", *words]


def run(
    backend: Any, folder: Path, *words: str, **environ: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words),
        cwd=folder,
        env=environment(backend) | environ,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


@pytest.mark.parametrize("child", CHILDREN)
def test_a_program_and_its_children(
    backend: Any, receiver: Receiver, folder: Path, child: str
) -> None:
    (folder / "program.py").write_text(textwrap.dedent(CHILDREN[child]))
    outcome = run(
        backend, folder, "--", sys.executable, "program.py", INFERTRACE_ENDPOINT=receiver.endpoint
    )
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout == '"hello"\n'
    assert "starlette; 1 spans, 1 delivered\n" in outcome.stderr
    (span,) = receiver.spans
    assert span.operation_name == "GET /hello"


def test_the_names(backend: Any, receiver: Receiver, folder: Path) -> None:
    endpoint = {"INFERTRACE_ENDPOINT": receiver.endpoint}
    outcome = run(backend, folder, "--include", "openai", sys.executable, "served.py", **endpoint)
    assert outcome.stderr == (
        "infertrace: nothing was traced: no process has imported a library that can be\n"
    )
    outcome = run(backend, folder, "--include", "flask", sys.executable, "served.py")
    assert outcome.returncode == 2
    assert "--include: expected some of starlette" in outcome.stderr
    assert receiver.spans == []


def test_exit_codes(backend: Any, folder: Path) -> None:
    def code(*words: str) -> int:
        return run(backend, folder, *words).returncode

    assert code("--", sys.executable, "-c", "raise SystemExit(3)") == 3
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert code(sys.executable, "-c", kill) == 128 + signal.SIGKILL
    assert code("no-such-command") == 127
    assert code(str(folder)) == 126
    assert code() == 2


def test_the_next_sitecustomize_is_loaded(backend: Any, folder: Path) -> None:
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("print('customized')\n")
    program = "import sitecustomize; print(sitecustomize.__file__)"
    words = ("--", sys.executable, "-c", program)
    outcome = run(backend, folder, *words, PYTHONPATH=str(site))
    # Twice: `infertrace run` is a Python itself.
    assert outcome.stdout == f"customized\ncustomized\n{site / 'sitecustomize.py'}\n"
    (site / "sitecustomize.py").write_text("raise RuntimeError('broken')\n")
    outcome = run(backend, folder, "--", sys.executable, "-c", "print('on')", PYTHONPATH=str(site))
    assert outcome.stdout == "on\n"
    assert "RuntimeError: broken" in outcome.stderr


def test_sigterm_reaches_the_server_and_its_spans_the_receiver(
    backend: Any, receiver: Receiver, folder: Path
) -> None:
    program = """
        import threading, time, httpx, socket, uvicorn
        from app import app
        listener = socket.create_server(("127.0.0.1", 0))
        def ask():
            httpx.get(f"http://127.0.0.1:{listener.getsockname()[1]}/hello")
            open("asked", "w").close()
        threading.Timer(0, ask).start()
        uvicorn.Server(uvicorn.Config(app)).run([listener])
        """
    (folder / "program.py").write_text(textwrap.dedent(program))
    process = subprocess.Popen(
        command("--", sys.executable, "program.py"),
        cwd=folder,
        env=environment(backend)
        | {"INFERTRACE_ENDPOINT": receiver.endpoint, "INFERTRACE_EXPORT_INTERVAL_S": "3600"},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: (folder / "asked").exists())
    process.terminate()
    _, said = process.communicate(timeout=TIMEOUT_S)
    assert "starlette; 1 spans, 1 delivered" in said
    assert len(receiver.spans) == 1


def test_ctrl_c_still_says_what_was_traced(backend: Any, receiver: Receiver, folder: Path) -> None:
    program = """
        import served, time
        served.main()
        open("served", "w").close()
        time.sleep(600)
        """
    (folder / "program.py").write_text(textwrap.dedent(program))
    process = subprocess.Popen(
        command("--", sys.executable, "program.py"),
        cwd=folder,
        env=environment(backend) | {"INFERTRACE_ENDPOINT": receiver.endpoint},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_until(lambda: (folder / "served").exists())
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=TIMEOUT_S)
    assert "starlette; 1 spans, 1 delivered" in said
    assert process.returncode == 128 + signal.SIGINT


def test_what_is_said_of_what_was_lost() -> None:
    stats = {
        "produced": 9,
        "delivered": 3,
        "pending": 3,
        "handed_over": 1,
        "dropped": {"buffer_full": 3},
    }
    line = {"pid": 7, "program": "app.py", "traced": ["openai"], "used": [], "stats": stats}
    assert list(summary([line])) == [
        "app.py (7): no use of openai; 9 spans, 3 delivered, 3 dropped (buffer_full), 1 handed "
        "over, 2 pending"
    ]
