"""What every test shares: the backend, a recorder, a receiver on a real socket."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

import infertrace
from backend_recording import Recording, assert_closed
from common_senders import common_senders
from grpc_receiver import Receiver
from infertrace import backend as backends
from postgresql_cluster import DESCRIPTIONS, Cluster, kinds
from tcp_proxy import TcpProxy

# A busy machine takes any time for an example.
hypothesis.settings.register_profile("infertrace", deadline=None)
hypothesis.settings.load_profile("infertrace")

# What `-m "not slow"` excludes, by file, folder or test in tests/, and why. A test that starts a
# PostgreSQL server is slow wherever it is.
SLOW = {
    "collector/diagnosis/test_planted_causes.py::"
    "test_the_page_has_the_matrix_and_the_matrix_is_right": "simulates hours of four engines",
    "collector/test_bounds.py": "measures memory under large requests",
    "collector/test_command.py": "kills collectors, and fills their disks",
    "collector/test_health.py::test_a_server_that_goes_away": "wants PostgreSQL",
    "collector/test_openapi.py": "asks every route with hundreds of drawn parameters",
    "collector/test_otlp_clients.py": "kills collectors, and starts others",
    "collector/test_overload.py": "hundreds of connections",
    "commands/test_agent.py": "starts agents",
    "commands/test_demo.py": "lets the demo run",
    "commands/test_doctor.py": "waits for endpoints that do not answer",
    "commands/test_run.py": "starts programs, and servers in their children",
    "commands/test_optimized.py": "starts a collector for each level of optimisation",
    "examples": "want a language model, and load it",
    "exporting/test_green_threads.py": "a process for each case, and outages",
    "exporting/test_scarce_platform.py": "processes without descriptors, threads or files",
    "exporting/test_sender_process.py": "kills processes, and starts others",
    "exporting/test_spool_delivery.py": "kills processes, and drains what they left",
    "faults": "outages, kills and forks: minutes",
    "integrations": "want the libraries that they trace, and start servers",
    "interop": "wants Go and Node",
    "native/test_instruction_gate.py": "wants valgrind",
    "page/test_browser.py": "wants Chromium",
    "page/test_perfetto.py": "wants Chromium",
    "page/test_build.py": "wants Node",
    "packaging": "builds wheels, freezes programs, wants Node",
    "schema/test_generated_stubs.py": "wants Go",
    "schema/test_new_field.py": "wants Go, and builds a package",
    "schema/test_runtime_range.py": "downloads other versions of protobuf",
    "collector/store/test_postgres_store.py": "wants PostgreSQL",
    "test_postgresql_cluster.py": "wants PostgreSQL",
}
TESTS = Path(__file__).parent


def is_slow(item: pytest.Item) -> bool:
    path = item.path.relative_to(TESTS)
    function = item.name.partition("[")[0]
    places = {path.as_posix(), *(folder.as_posix() for folder in path.parents)}
    places.add(f"{path.as_posix()}::{function}")
    fixtures = getattr(item, "fixturenames", ())
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    wants_server = "postgresql" in fixtures or any(
        isinstance(value, str) and value in DESCRIPTIONS for value in parameters
    )
    return wants_server or not places.isdisjoint(SLOW)


def is_repeated(item: pytest.Item) -> bool:
    """Whether it uses the fixture `backend`; a test with a parameter of that name runs on both."""
    callspec = getattr(item, "callspec", None)
    has_both = callspec is not None and "backend" in callspec.params
    return "backend" in getattr(item, "fixturenames", ()) and not has_both


def pytest_report_header() -> str:
    return f"PostgreSQL: {' and '.join(DESCRIPTIONS[kind] for kind in kinds())}"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--nightly", action="store_true", help="the fault suite in full: hours, not minutes"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "nightly: runs with --nightly only")
    config.addinivalue_line("markers", "backend: runs on both backends, each in its own process")
    config.addinivalue_line("markers", "slow: takes long, or needs more than a C compiler")
    for place in SLOW:
        if not (TESTS / place.partition("::")[0]).exists():
            raise pytest.UsageError(f"{__file__}: SLOW names {place}, which is not there")


# First: pytest's own hook deselects by the markers.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if is_slow(item):
            item.add_marker("slow")
        if is_repeated(item):
            item.add_marker("backend")
    if not config.getoption("nightly"):
        config.hook.pytest_deselected(items=[i for i in items if i.get_closest_marker("nightly")])
        items[:] = [i for i in items if not i.get_closest_marker("nightly")]


@pytest.fixture(scope="session")
def nightly(request: pytest.FixtureRequest) -> bool:
    """Whether to kill, fork and fuzz as often as a night allows."""
    return bool(request.config.getoption("nightly"))


@pytest.fixture
def backend() -> Any:
    """The backend of this process, for a test that `-m backend` repeats on the other one."""
    return backends.selected


@pytest.fixture(scope="session", autouse=True)
def sender_directory() -> Iterator[Path]:
    """Where the tests' processes find their common senders, which go when it is removed."""
    with pytest.MonkeyPatch.context() as patch, common_senders(patch) as directory:
        yield directory


@pytest.fixture
def own_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tracer starts a sender process that nobody else uses."""
    monkeypatch.setenv("INFERTRACE_SENDER_PROCESS", "own")


@pytest.fixture
def patient_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that ends at once waits for its sender, which a busy machine starts late.

    It hands nothing over: all has arrived when it has ended.
    """
    monkeypatch.setenv("INFERTRACE_SENDER_PROCESS", "own")
    monkeypatch.setenv("INFERTRACE_EXIT_TIMEOUT_S", "60")


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
    """A proxy between a tracer and the receiver."""
    proxy = TcpProxy(receiver.port)
    yield proxy
    proxy.stop()


@pytest.fixture
def new_tracer(backend: Any) -> Iterator[Callable[..., infertrace.Tracer]]:
    """Makes tracers on the backend of the test; checks after it that their ledgers close."""
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
def started_clusters() -> Iterator[dict[str, Cluster]]:
    """The servers by their kind."""
    started: dict[str, Cluster] = {}
    yield started
    for server in started.values():
        server.close()


@pytest.fixture
def cluster_of(started_clusters: dict[str, Cluster]) -> Iterator[Callable[[str], Cluster]]:
    """The server of a kind, started on first use; the test's databases go with the test."""

    def cluster(kind: str) -> Cluster:
        if kind not in started_clusters:
            started_clusters[kind] = Cluster(kind)
        return started_clusters[kind]

    yield cluster
    for server in started_clusters.values():
        server.drop_databases()


@pytest.fixture(params=kinds())
def postgresql(request: pytest.FixtureRequest, cluster_of: Callable[[str], Cluster]) -> Cluster:
    """Run the test once on each kind of server that is available."""
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
