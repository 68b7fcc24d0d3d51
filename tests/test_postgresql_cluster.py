"""A server that the tests start does not outlive them, however they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import sys
from postgresql_cluster import Cluster
cluster = Cluster()
print(cluster._folder, flush=True)
sys.stdin.read()
cluster.close()
"""
DEADLINE_S = 60


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL, None])
def test_a_server_ends_with_the_process_that_started_it(ending: int | None) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    server = int((folder / "data" / "postmaster.pid").read_text().split()[0])
    if ending is not None:
        process.send_signal(ending)
    process.communicate()
    deadline = time.monotonic() + DEADLINE_S
    while folder.exists() or Path(f"/proc/{server}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
