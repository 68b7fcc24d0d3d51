"""What tests of the page share: its tools, a browser, and a collector with spans to look at."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from collector_client import Client, NewSpan
from infertrace.collector.server import Collector
from infertrace.generated.span_pb2 import Span
from page_spans import engine_spans

PAGE = Path(__file__).parents[2] / "page"
CHROMIUM = os.environ.get("INFERTRACE_CHROMIUM", "/usr/bin/chromium")
CHROMIUM_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def stop(reason: str) -> NoReturn:
    """Skip, but fail in CI, where everything is installed."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    raise AssertionError


@pytest.fixture(scope="session")
def page_tools(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Runs a command in a copy of page/ that has its dependencies; returns what it prints."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            stop(f"{tool} is not on PATH: install Node 20 or newer to test the page")
    folder = tmp_path_factory.mktemp("page") / "page"
    shutil.copytree(PAGE, folder, ignore=shutil.ignore_patterns("node_modules", "build"))

    def run(*command: str) -> str:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("npm", "ci", "--silent", "--no-audit", "--no-fund")
    return run


# Not for the session: as long as it is there, an event loop runs on this thread, and no test can
# start another.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium, or the one that INFERTRACE_CHROMIUM names."""
    from playwright.sync_api import sync_playwright

    if not Path(CHROMIUM).exists():
        stop(f"{CHROMIUM} is not there: install Chromium, or say where with INFERTRACE_CHROMIUM")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def seeded() -> Iterator[Client]:
    """A collector with the minute of an engine."""
    with Collector("127.0.0.1:0", "127.0.0.1:0", "memory:") as collector:
        client = Client(collector.grpc_address, collector.http_address)
        spans = engine_spans()
        for first in range(0, len(spans), 2_000):
            part = spans[first : first + 2_000]
            client.send(
                *part,
                producer_id=b"p" * 16,
                first_span_sequence=first + 1,
                produced_count=first + len(part),
            )
        yield client
        client.close()


@pytest.fixture
def new_span() -> NewSpan:
    """Makes valid spans that ended just now; fields can be set."""

    def make(**fields: Any) -> Span:
        span = Span(
            trace_id=os.urandom(16),
            span_id=os.urandom(8),
            service_name="server",
            operation_name="inference",
            start_time_unix_nano=time.time_ns() - 1_500_000,
            duration_nanos=1_500_000,
            status="OK",
        )
        span.inference.model_name = "gpt-4"
        span.MergeFrom(Span(**fields))
        return span

    return make
