"""A real collector in its own process, a hanging endpoint, and how often to kill."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from collector_process import CollectorProcess
from common_senders import common_senders
from spoken_protocol import PROTOCOLS, Spoken


@pytest.fixture(params=["shared sender", "this process"])
def sender(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the test with gRPC in a shared sender, and again with gRPC in this one."""
    monkeypatch.setenv(
        "INFERTRACE_SENDER_PROCESS", "shared" if request.param == "shared sender" else "none"
    )
    return str(request.param)


@pytest.fixture(autouse=True)
def fresh_senders(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Faults of one test's sender are not the next one's."""
    with common_senders(monkeypatch) as directory:
        yield directory


@pytest.fixture
def hung() -> Iterator[str]:
    """An endpoint that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def new_collector(tmp_path: Path) -> Iterator[Callable[..., CollectorProcess]]:
    """Starts collectors on one embedded store."""
    started: list[CollectorProcess] = []

    def start(grpc_address: str | None = None, **options: Any) -> CollectorProcess:
        store = f"duckdb:///{tmp_path / 'spans.duckdb'}"
        started.append(CollectorProcess(store, grpc_address, **options))
        return started[-1]

    yield start
    for collector in started:
        collector.kill()


@pytest.fixture(
    params=[
        pytest.param(name, marks=[pytest.mark.nightly] if name == "otlp/http" else [])
        for name in PROTOCOLS
    ]
)
def spoken(request: pytest.FixtureRequest) -> Spoken:
    """Each protocol that a collector takes."""
    return Spoken(request.param)


@pytest.fixture
def collector(new_collector: Callable[..., CollectorProcess]) -> CollectorProcess:
    return new_collector()


@pytest.fixture(scope="module")
def shared_collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CollectorProcess]:
    """One for all tests of a module."""
    store = tmp_path_factory.mktemp("store") / "spans.duckdb"
    collector = CollectorProcess(f"duckdb:///{store}")
    yield collector
    collector.kill()
