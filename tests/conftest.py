"""What every test shares: the two backends, a recorder, a receiver on a real socket."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import infertrace
from backend_recording import Recording, assert_closed, available_backends
from grpc_receiver import Receiver
from infertrace import backend as backends
from postgresql_cluster import DESCRIPTIONS, Cluster, kinds
from tcp_proxy import TcpProxy


def pytest_report_header() -> str:
    return f"PostgreSQL: {' and '.join(DESCRIPTIONS[kind] for kind in kinds())}"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--nightly", action="store_true", help="the fault suite in full: hours, not minutes"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "nightly: runs with --nightly only")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("nightly"):
        config.hook.pytest_deselected(items=[i for i in items if i.get_closest_marker("nightly")])
        items[:] = [i for i in items if not i.get_closest_marker("nightly")]


@pytest.fixture(scope="session")
def nightly(request: pytest.FixtureRequest) -> bool:
    """Whether to kill, fork and fuzz as often as a night allows."""
    return bool(request.config.getoption("nightly"))


@pytest.fixture(params=available_backends())
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the test once on each backend."""
    module = backends.select(request.param)
    monkeypatch.setattr(backends, "selected", module)
    return module


@pytest.fixture
def recording(backend: Any) -> Recording:
    return Recording(backend)


@pytest.fixture
def new_recording(backend: Any) -> Callable[..., Recording]:
    return lambda **sizes: Recording(backend, **sizes)


@pytest.fixture
def new_receiver() -> Iterator[Callable[..., Receiver]]:
    started: list[Receiver] = []

    def make(address: str | None = None) -> Receiver:
        started.append(Receiver(address))
        return started[-1]

    yield make
    for receiver in started:
        receiver.stop()


@pytest.fixture
def receiver(new_receiver: Callable[..., Receiver]) -> Receiver:
    return new_receiver()


@pytest.fixture
def proxy(receiver: Receiver) -> Iterator[TcpProxy]:
    """Between a tracer and the receiver."""
    proxy = TcpProxy(receiver.port)
    yield proxy
    proxy.stop()


@pytest.fixture
def new_tracer(backend: Any) -> Iterator[Callable[..., infertrace.Tracer]]:
    """Make tracers on the backend of the test; after it their ledgers must be closed."""
    made: list[infertrace.Tracer] = []

    def make(endpoint: str, **settings: Any) -> infertrace.Tracer:
        settings = {
            "service_name": "tests",
            "resource_interval_s": 0,
            "export_interval_s": 0.05,
            **settings,
        }
        made.append(infertrace.Tracer(endpoint, **settings))
        return made[-1]

    yield make
    for tracer in made:
        assert_closed(tracer.stats())
        tracer.shutdown(0)
        assert_closed(tracer.stats())


@pytest.fixture
def tracer(new_tracer: Callable[..., infertrace.Tracer], receiver: Receiver) -> infertrace.Tracer:
    return new_tracer(receiver.endpoint)


@pytest.fixture(scope="session")
def cluster_of() -> Iterator[Callable[[str], Cluster]]:
    """The server of a kind, started when it is first asked for."""
    started: dict[str, Cluster] = {}

    def cluster(kind: str) -> Cluster:
        if kind not in started:
            started[kind] = Cluster(kind)
        return started[kind]

    yield cluster
    for server in started.values():
        server.close()


@pytest.fixture(params=kinds())
def postgresql(request: pytest.FixtureRequest, cluster_of: Callable[[str], Cluster]) -> Cluster:
    """Run the test once on each kind of server that there is."""
    return cluster_of(request.param)


@pytest.fixture
def postgresql_url(postgresql: Cluster) -> str:
    """An empty database."""
    return postgresql.new_database()


@pytest.fixture
def new_store_url(tmp_path: Path, cluster_of: Callable[[str], Cluster]) -> Callable[[str], str]:
    """The URL of an empty store of a kind."""

    def new(kind: str) -> str:
        if kind == "memory":
            return "memory:"
        if kind == "duckdb":
            return f"duckdb:///{tmp_path / 'spans.duckdb'}"
        return cluster_of(kind).new_database()

    return new


@pytest.fixture(params=["memory", "duckdb", *kinds()])
def store_url(request: pytest.FixtureRequest, new_store_url: Callable[[str], str]) -> str:
    """Run the test once on each store."""
    return new_store_url(request.param)


@pytest.fixture(scope="session")
def fake_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A libnvidia-ml.so.1 for the real pynvml: put its folder on LD_LIBRARY_PATH."""
    library = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    compiler = os.environ.get("CC", "cc")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", library, Path(__file__).with_name("fake_nvml.c")],
        check=True,
    )
    return library
