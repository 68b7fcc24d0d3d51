"""A traced program in its own process, with its sender, spools and ports."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infertrace import backend as backends

NOBODY = "127.0.0.1:1"
TIMEOUT_S = 120


def program(body: str, first: str = "") -> list[str]:
    """first: the code before the import of infertrace."""
    return [sys.executable, "-c", f"{first}\nimport infertrace\n{textwrap.dedent(body)}"]


def environment(backend: Any) -> dict[str, str]:
    return {**os.environ, backends.VARIABLE: backend.NAME}


def run_program(
    backend: Any, body: str, first: str = "", **environ: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        program(body, first),
        env=environment(backend) | environ,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


def start_program(backend: Any, body: str, **streams: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        program(body), env=environment(backend), stdout=subprocess.PIPE, text=True, **streams
    )


def drain(directory: Path, endpoint: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "infertrace", "spool", "drain"),
            *("--spool-dir", str(directory), "--endpoint", endpoint),
        ],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


def spools(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.spool"))


def sender_of(tracer: Any) -> int:
    """The process that sends for this tracer, which has sent something."""
    pid: int | None = tracer._exporter.sender_pid
    assert pid is not None
    return pid


def has_ended(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"  # an orphan that nobody reaps


def wait_until(happened: Callable[[], bool], patience_s: float = 60.0) -> None:
    end = time.monotonic() + patience_s
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)
