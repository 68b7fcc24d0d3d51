"""A collector in its own process, and the examples that send to it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from running_collector import Collector

EXAMPLES = Path(__file__).parents[2] / "examples"
READY = re.compile(r"infertrace collector: gRPC on (\S+), HTTP on (\S+), store \S+\n")
DEADLINE_S = 240
BACKENDS = ["native", "pure"] if find_spec("infertrace.recording.native") else ["pure"]


@pytest.fixture(scope="module", params=BACKENDS)
def backend_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def collector(backend_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    store = tmp_path_factory.mktemp("store") / "spans.duckdb"
    command = [sys.executable, "-m", "infertrace", "collector", "--store", f"duckdb:///{store}"]
    process = subprocess.Popen(
        [*command, "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        ready = READY.fullmatch(line)
        assert ready, line
        client = Collector(ready[1], ready[2])
        yield client
        client.close()
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0


@pytest.fixture(scope="module")
def run_example(backend_name: str, collector: Collector) -> Callable[..., str]:
    """Runs an example against the collector and returns what it prints."""
    environment = {
        **os.environ,
        "INFERTRACE_BACKEND": backend_name,
        "INFERTRACE_ENDPOINT": collector.grpc_address,
        "INFERTRACE_SENDER_PROCESS": "own",  # all has arrived when it has ended
        "INFERTRACE_EXIT_TIMEOUT_S": "60",
    }

    def run(name: str, *arguments: str | int | Path) -> str:
        done = subprocess.run(
            [sys.executable, EXAMPLES / name, *map(str, arguments)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
