"""`infertrace replay`: a file of spans reaches the collector as if sent directly."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import infertrace
from infertrace.collector.server import Collector

SPANS = 500


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    started = Collector("127.0.0.1:0", "127.0.0.1:0", f"duckdb:///{tmp_path}/store.duckdb", None)
    started.start()
    yield started
    started.stop()


@pytest.fixture
def recorded(backend: Any, tmp_path: Path) -> Path:
    path = tmp_path / "spans"
    tracer = infertrace.Tracer(f"file://{path}", max_batch_bytes=8192, resource_interval_s=0)
    for number in range(SPANS):
        with tracer.start_span("gpt-4", batch_size=number % 8):
            pass
    assert tracer.shutdown()
    return path


def replay(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "infertrace", "replay", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def get(collector: Collector, path: str) -> Any:
    with urllib.request.urlopen(f"http://{collector.http_address}{path}") as answer:
        return json.load(answer)


def test_twice_is_as_once(collector: Collector, recorded: Path) -> None:
    for _ in range(2):
        done = replay(recorded, "--to", collector.grpc_address)
        assert done.returncode == 0, done.stderr
        assert f"0 not taken; {SPANS} spans accepted, 0 rejected" in done.stdout
        assert len(get(collector, "/spans?limit=10000")) == SPANS
    (producer,) = get(collector, "/ledger")["producers"]
    assert (producer["produced"], producer["stored"]) == (SPANS, SPANS)


def test_a_file_cut_short_is_sent_up_to_there(collector: Collector, recorded: Path) -> None:
    recorded.write_bytes(recorded.read_bytes()[:-1])
    done = replay(recorded, "--to", collector.grpc_address)
    assert done.returncode == 1
    assert done.stderr == f"infertrace replay: {recorded}: ends within a batch\n"
    assert len(get(collector, "/spans?limit=10000")) == SPANS  # the last one is the goodbye


def test_no_collector(recorded: Path) -> None:
    done = replay(recorded, "--to", "127.0.0.1:1", "--patience", "0")
    assert done.returncode == 1
    assert f"infertrace replay: {recorded}: batch 1: UNAVAILABLE" in done.stderr
    assert " 0 spans accepted" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/nowhere", "--to", "127.0.0.1:1"], "No such file or directory: '/nowhere'"),
        (["/nowhere", "--to", "nowhere"], "--to: expected HOST:PORT"),
        (["/nowhere", "--to", "file:///x"], "--to: expected a collector, got a file"),
    ],
)
def test_bad_arguments(arguments: list[str], message: str) -> None:
    done = replay(*arguments)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
