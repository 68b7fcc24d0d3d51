"""`infertrace top`: once, as JSON, and in a terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from collector_client import Client
from infertrace.collector.server import Collector
from infertrace.commands.top import ledger_totals, sparkline
from infertrace.generated.span_pb2 import InferenceContext, Span

COMMAND = (sys.executable, "-m", "infertrace", "top")
TIMEOUT_S = 60


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector("127.0.0.1:0", "127.0.0.1:0", "memory:") as collector:
        client = Client(collector.grpc_address, collector.http_address)
        spans = [
            Span(
                trace_id=os.urandom(16),
                span_id=os.urandom(8),
                operation_name="inference",
                start_time_unix_nano=time.time_ns() - 10**9,
                duration_nanos=number * 10**8,
                status="OK",
                inference=InferenceContext(
                    model_name="m\x1b[31m[bold]x", request_id=f"r-{number}", input_tokens=7
                ),
            )
            for number in range(1, 31)
        ]
        client.send(*spans, producer_id=b"p" * 16, first_span_sequence=1, produced_count=32)
        yield collector
        client.close()


def once(collector: Collector, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "--http", collector.http_address, *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )


def test_once(collector: Collector) -> None:
    done = once(collector, "--once")
    assert (done.returncode, done.stderr) == (0, "")
    assert "32 produced = 30 stored + 2 pending + 0 dropped" in done.stdout
    assert "30 requests of 1 models" in done.stdout
    assert "1.52 s" in done.stdout  # 1.55 s, as its bucket tells it
    assert "r-30" in done.stdout
    assert "r-18 " not in done.stdout  # twelve fit
    # What a sender names is neither an escape sequence nor markup.
    assert "\x1b" not in done.stdout
    assert "[bold]x" in done.stdout


def test_json(collector: Collector) -> None:
    told: Any = json.loads(once(collector, "--json", "--window", "1h").stdout)
    (model,) = told["overview"]["models"]
    assert model["sample_count"] == 30
    assert len(told["tail"]["spans"]) == 12
    assert told["ledger"] == {"produced": 32, "stored": 30, "pending": 2, "dropped": 0}
    told = json.loads(once(collector, "--json", "--model", "other").stdout)
    assert told["overview"]["models"] == told["tail"]["spans"] == []


def test_what_is_wrong_is_one_line(collector: Collector) -> None:
    done = once(collector, "--once", "--window", "x")
    assert done.returncode == 1
    assert done.stderr.startswith("infertrace: window: expected a duration")
    done = once(collector, "--once", "--http", "127.0.0.1:9")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


def test_in_a_terminal_until_it_is_interrupted(collector: Collector) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "--http", collector.http_address],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "COLUMNS": "160", "LINES": "50", "TERM": "xterm"},
        start_new_session=True,
    )
    os.close(theirs)
    seen = b""
    deadline = time.monotonic() + TIMEOUT_S
    try:
        # Twice: it has been drawn again.
        while seen.count(b"produced") < 2 and time.monotonic() < deadline:
            if select.select([ours], [], [], 1.0)[0]:
                seen += os.read(ours, 65_536)
        assert seen.count(b"produced") >= 2
        process.send_signal(signal.SIGINT)
        while process.poll() is None and time.monotonic() < deadline:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    os.read(ours, 65_536)
                except OSError:  # the other end is closed
                    break
        assert process.wait(TIMEOUT_S) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_a_sparkline_shows_what_is_there() -> None:
    assert sparkline([0, 1, 1_000, 500]) == " ▁█▄"
    assert sparkline([]) == ""
    assert sparkline([0, 0]) == "  "


def test_the_sums_hold() -> None:
    numbered = {"numbered": True, "produced": 10, "stored": 4, "pending": 1}
    other = {"numbered": False, "produced": None, "stored": 9, "pending": None}
    assert ledger_totals([numbered, other]) == {
        "produced": 10, "stored": 4, "pending": 1, "dropped": 5,
    }  # fmt: skip
