"""`infertrace demo` as a newcomer runs it, and with its collector killed in the middle."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from backend_recording import available_backends
from lasting_address import lasting_address

TIMEOUT_S = 120


@pytest.fixture
def ports() -> list[str]:
    return ["--grpc", lasting_address(), "--http", lasting_address()]


@pytest.fixture
def start_demo() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **environ: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "infertrace", "demo", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **environ},
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=TIMEOUT_S)


def line_with(process: subprocess.Popen[str], pattern: str) -> re.Match[str]:
    """The next line of the demo's output that matches the pattern."""
    watchdog = threading.Timer(TIMEOUT_S, process.kill)
    watchdog.start()
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if match := re.search(pattern, line):
            watchdog.cancel()
            return match
    watchdog.cancel()
    raise AssertionError(f"no line with {pattern!r} in {''.join(seen)}")


def numbers(match: re.Match[str]) -> list[int]:
    return [int(group) for group in match.groups()]


def get(address: str, path: str) -> Any:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=30) as answer:
        return json.load(answer)


@pytest.mark.parametrize("backend", available_backends())
def test_it_ends_with_spans_on_screen_and_over_http(
    start_demo: Any, ports: list[str], backend: str
) -> None:
    demo = start_demo("--duration", "2", *ports, INFERTRACE_BACKEND=backend)
    count = int(line_with(demo, r"^gpt-4 +(\d+) ")[1])
    (produced, delivered, pending, dropped) = numbers(
        line_with(
            demo,
            r"Ledger here: (\d+) produced = (\d+) delivered \+ (\d+) pending \+ (\d+) dropped",
        )
    )
    assert produced == delivered > count > 0
    assert pending == dropped == 0
    stored, of, percent = numbers(line_with(demo, r"(\d+) of (\d+) stored, (\d+)% complete"))
    assert (stored, of, percent) == (produced, produced, 100)
    slowest = line_with(demo, r"^\(trace ([0-9a-f]{32})\)")[1]
    summary = line_with(demo, r"^It took .*")[0]
    http = line_with(demo, r"curl 'http://([\d.:]+)/spans\?model=gpt-4")[1]
    page = line_with(demo, r"  (http://[\d.:]+/\?view=explore\S+)$")[1]
    with urllib.request.urlopen(page, timeout=30) as shown:
        assert b"app.js" in shown.read()
    requests = get(http, "/spans?model=gpt-4&operation=inference&limit=10000")
    assert len(requests) == count
    for span in requests:
        assert span["model_name"] == "gpt-4"
        assert span["input_tokens"] >= 1
        assert span["duration_ms"] > 0
        assert span["status"] in ("OK", "ERROR")
        assert span["output_tokens"] >= 1
        assert 0 <= span["scheduled_after_ms"] <= span["time_to_first_token_ms"]
        assert span["time_to_first_token_ms"] <= span["duration_ms"]
        assert 1 <= span["step_count"] <= span["last_step"] - span["first_step"] + 1
    (served,) = (span for span in requests if span["trace_id"] == slowest)
    for span in requests:
        if span["duration_ms"] > served["duration_ms"]:
            early = get(http, f"/traces/{span['trace_id']}/why")
            assert early["baseline"]["request_count"] < 10
    stages = {
        span["pipeline_stage"] for span in get(http, f"/traces/{slowest}")["spans"]
        if "pipeline_stage" in span
    }  # fmt: skip
    assert "preprocessing" in stages
    steps = get(http, "/steps?model=gpt-4&since=1h")
    assert steps["step_count"] == len(steps["steps"]) > 0
    for step in steps["steps"]:
        assert 1 <= step["batch_size"] <= 24
        assert step["prefill_tokens"] + step["decode_tokens"] >= 1
    members = get(http, f"/steps/gpt-4/{served['last_step']}/members")["members"]
    assert served["request_id"] in {member["request_id"] for member in members}
    answer = get(http, f"/traces/{slowest}/why")
    assert answer["request_id"] == served["request_id"]
    assert answer["summary"] == summary
    assert answer["baseline"]["request_count"] >= 10
    demo.send_signal(signal.SIGINT)
    line_with(demo, "^Stopping")
    demo.send_signal(signal.SIGINT)  # of someone who does not want to wait
    assert demo.wait(TIMEOUT_S) == 0


def test_an_outage_loses_nothing(start_demo: Any, ports: list[str]) -> None:
    demo = start_demo("--once", "--duration", "4", "--outage", "1", *ports)
    assert int(line_with(demo, r"(\d+) pending  collector down")[1]) > 0
    produced, delivered = numbers(line_with(demo, r"(\d+) produced = (\d+) delivered"))
    assert produced == delivered
    stored, of = numbers(line_with(demo, r"(\d+) of (\d+) stored"))
    assert stored == of == produced
    assert demo.wait(TIMEOUT_S) == 0


def test_a_killed_collector_loses_nothing_and_stops_nothing(
    start_demo: Any, ports: list[str]
) -> None:
    demo = start_demo("--once", "--duration", "6", *ports)
    pid = int(line_with(demo, r"Collector \(process (\d+)\)")[1])
    (before,) = numbers(line_with(demo, r"(\d+) spans .* collector up"))
    os.kill(pid, signal.SIGKILL)
    (during, _) = numbers(line_with(demo, r"(\d+) spans .* ([1-9]\d*) pending  collector down"))
    assert during > before
    (later, _) = numbers(line_with(demo, r"(\d+) spans .* ([1-9]\d*) pending  collector down"))
    assert later > during  # the loop goes on
    produced, delivered = numbers(line_with(demo, r"(\d+) produced = (\d+) delivered"))
    assert produced == delivered > later
    stored, of = numbers(line_with(demo, r"(\d+) of (\d+) stored"))
    assert stored == of == produced
    assert demo.wait(TIMEOUT_S) == 0


@pytest.mark.parametrize("option", ["--grpc", "--http"])
def test_a_port_already_taken(start_demo: Any, ports: list[str], option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        demo = start_demo("--once", *ports, option, address)
        _, complaint = demo.communicate(timeout=TIMEOUT_S)
    assert demo.returncode == 2
    assert address in complaint
    assert option in complaint
    assert "Traceback" not in complaint


@pytest.mark.parametrize("value", ["-1", "abc", "nan"])
def test_a_bad_duration(start_demo: Any, value: str) -> None:
    demo = start_demo("--duration", value)
    _, complaint = demo.communicate(timeout=TIMEOUT_S)
    assert demo.returncode == 2
    assert "--duration" in complaint
