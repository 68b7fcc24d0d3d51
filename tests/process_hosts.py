"""Programs that run a tracer in processes of their own making, and what a collector has of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from collector_process import CollectorProcess
from infertrace import backend as backends
from traced_program import environment, wait_until

PATIENCE_S = 300.0
SERVICE = "host-of-processes"


def host_environment(backend: Any, **environ: str) -> dict[str, str]:
    """Of a host that ends its processes by a signal: the compiled backend loses nothing by that,
    the pure one has to be told."""
    more = {"INFERTRACE_FLUSH_ON_SIGTERM": "true"} if backend.NAME == "pure" else {}
    return environment(backend) | {"INFERTRACE_SERVICE_NAME": SERVICE} | more | environ


def run_host(
    command: Sequence[str | Path], folder: Path, env: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run it in its own session, and nothing of it after that."""
    with subprocess.Popen(
        [str(part) for part in command],
        cwd=folder,
        env=env | {"PYTHONPATH": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            out, log = process.communicate(timeout=PATIENCE_S)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 0, log
    return subprocess.CompletedProcess(command, 0, out, log)


def write(folder: Path, name: str, body: str) -> Path:
    path = folder / name
    path.write_text(textwrap.dedent(body))
    return path


def python(*arguments: str | Path) -> list[str | Path]:
    return [sys.executable, *arguments]


def assert_exact(collector: CollectorProcess, spans: int, producers: int | None = None) -> None:
    """Assert that all arrived, each once, and that each process says the same.

    producers: how many have recorded something, where that is known.
    """

    def accounts() -> list[dict[str, Any]]:
        # Tests beside this one may try a port that was theirs.
        return [it for it in collector.producers() if it["service_name"] == SERVICE]

    wait_until(lambda: sum(account["stored"] for account in accounts()) >= spans, PATIENCE_S)
    wait_until(lambda: all(account["state"] == "finished" for account in accounts()), PATIENCE_S)
    found = collector.spans(service=SERVICE)
    assert len(found) == len({span["span_id"] for span in found}) == spans
    for account in accounts():
        assert account["stored"] == account["produced"], account
        assert account["dropped"] == {}
        assert account["gaps"] == []
    if producers is not None:
        assert sum(1 for account in accounts() if account["produced"]) == producers


def is_native() -> bool:
    return backends.selected.NAME == "native"
