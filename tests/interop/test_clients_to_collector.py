"""Exporters of other languages send OTLP to a collector: all is stored, the account is exact."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import peer_programs
from collector_process import CollectorProcess
from lasting_address import lasting_address

NODE_PROGRAM: Final = Path(__file__).parent / "node" / "send.mjs"
NODE_PACKAGES: Final = (  # of the last ones that Node 20 runs
    "@opentelemetry/exporter-trace-otlp-http@0.223.0",
    "@opentelemetry/resources@2.12.1",
    "@opentelemetry/sdk-trace-base@2.12.1",
)
NODE_SPANS: Final = 3_000
# Its queue holds 2,048 spans, and drops any beyond that.
WORKERS, TRACES, CHILDREN = 2, 200, 3


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[CollectorProcess]:
    store = f"duckdb:///{tmp_path / 'spans.duckdb'}"
    found = CollectorProcess(store, otlp_http=lasting_address())
    yield found
    found.kill()


def assert_all_stored(collector: CollectorProcess, count: int) -> dict[str, Any]:
    """In the account of its only sender, and in the store."""
    (account,) = collector.producers()
    counters = ("received", "stored", "duplicates", "rejected")
    assert tuple(account[name] for name in counters) == (count, count, 0, 0), account
    assert not account["numbered"]
    assert len(collector.spans()) == count
    return account


def test_node_sends_json(collector: CollectorProcess, tmp_path: Path) -> None:
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            stop = pytest.fail if os.environ.get("CI") else pytest.skip
            stop(f"{tool} is not on PATH: install Node 20 or newer to test with its exporter")
    shutil.copy(NODE_PROGRAM, tmp_path)
    (tmp_path / "package.json").write_text("{}")
    install = ["npm", "install", "--silent", "--no-audit", "--no-fund", *NODE_PACKAGES]
    subprocess.run(install, cwd=tmp_path, check=True, timeout=170)
    done = subprocess.run(
        ["node", NODE_PROGRAM.name, f"http://{collector.otlp_http}/v1/traces", str(NODE_SPANS)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    account = assert_all_stored(collector, NODE_SPANS)
    assert account["service_name"] == "node-app"
    tokens = {span_id: number for number, span_id in enumerate(json.loads(done.stdout))}
    for span in collector.spans(model="gpt-4"):
        assert span["input_tokens"] == tokens.pop(span["span_id"])
        assert span["output_tokens"] == 100
    assert not tokens


@pytest.mark.nightly
@pytest.mark.timeout(1800)  # it may build the program
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_telemetrygen(collector: CollectorProcess, protocol: str) -> None:
    address = collector.endpoint if protocol == "grpc" else collector.otlp_http
    done = subprocess.run(
        [
            *(peer_programs.telemetrygen(), "traces", "--otlp-insecure"),
            *("--otlp-endpoint", address, *(["--otlp-http"] if protocol == "http" else [])),
            *("--workers", str(WORKERS), "--traces", str(TRACES), "--rate", "0"),
            *("--child-spans", str(CHILDREN), "--span-links", "1", "--status-code", "Error"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert_all_stored(collector, WORKERS * TRACES * (1 + CHILDREN))
