"""The real Ray Serve: its requests by our integration, and its own spans by our road."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from infertrace.collector.server import Collector
from lasting_address import lasting_address
from peer_programs import FOLDER, NotInstalled, install
from running_collector import Collector as Stored
from traced_program import wait_until

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1800)]  # it may install Ray

ROOT: Final = Path(__file__).parents[2]
VERSION: Final = "2.60.0"
START_TIMEOUT_S: Final = 300
STOP_TIMEOUT_S: Final = 60
TRACE: Final = "ab" * 16
CALLER: Final = "cd" * 8
TRACEPARENT: Final = f"00-{TRACE}-{CALLER}-01"
OWN_SPANS: Final = {
    "RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH": (
        "infertrace.integrations.opentelemetry_exporter:span_processors"
    ),
    "RAY_SERVE_TRACING_SAMPLING_RATIO": "1",
}

# It knows nothing of tracing.
APPLICATION: Final = """
import sys, time
import ray
from fastapi import FastAPI
from ray import serve

app = FastAPI()

@serve.deployment(ray_actor_options={"num_cpus": 0.1})
class Model:
    async def __call__(self, number: int) -> int:
        return number + 1

@serve.deployment(ray_actor_options={"num_cpus": 0.1})
@serve.ingress(app)
class Application:
    def __init__(self, model):
        self.model = model

    @app.get("/items/{item}")
    async def item(self, item: int) -> int:
        return await self.model.remote(item)

ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1")
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
serve.run(Application.bind(Model.bind()))
while True:
    time.sleep(1)
"""


def environment() -> Path:
    """The folder of its programs, with infertrace as it is now; half a gigabyte, on first use."""
    folder = FOLDER / f"ray-{VERSION}"
    pip = str(folder / "bin" / "pip")
    if not folder.exists():
        install([sys.executable, "-m", "venv", str(folder)], FOLDER.parent)
        try:
            # OpenTelemetry's SDK comes with Ray.
            install([pip, "install", "-q", f"ray[serve]=={VERSION}", str(ROOT)], folder)
        except NotInstalled:
            shutil.rmtree(folder)
            raise
    install([pip, "install", "-q", "--force-reinstall", "--no-deps", str(ROOT)], folder)
    return folder / "bin"


@pytest.fixture(scope="module")
def programs() -> Path:
    try:
        return environment()
    except NotInstalled as reason:
        pytest.fail(f"Ray {VERSION} cannot be installed here: {reason}")


@contextmanager
def serving(
    command: Sequence[str | Path], folder: Path, **variables: str
) -> Iterator[tuple[httpx.Client, Stored]]:
    """A client of the application, and what a collector has of it."""
    (folder / "app.py").write_text(APPLICATION)
    address, log = lasting_address(), folder / "ray.log"
    with (
        # Paths of Ray's sockets begin with it, and are long.
        tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as ray_folder,
        Collector("127.0.0.1:0", "127.0.0.1:0", "memory:") as collector,
        httpx.Client(base_url=f"http://{address}", timeout=60, trust_env=False) as client,
        log.open("w") as output,
    ):
        stored = Stored(collector.grpc_address, collector.http_address)
        process = subprocess.Popen(
            [*command, "app.py", address.rpartition(":")[2]],
            cwd=folder,
            env={**os.environ, "INFERTRACE_ENDPOINT": collector.grpc_address, **variables}
            | {"HOME": str(folder), "RAY_TMPDIR": ray_folder, "RAY_USAGE_STATS_ENABLED": "0"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

        def is_ready() -> bool:
            assert process.poll() is None, log.read_text()[-4_000:]
            try:
                return client.get("/items/0").status_code == httpx.codes.OK
            except httpx.TransportError:
                return False

        try:
            wait_until(is_ready, START_TIMEOUT_S)
            yield client, stored
        finally:
            stored.close()
            # As Ctrl-C does; the driver takes along what it has started.
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(STOP_TIMEOUT_S)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


def of_the_trace(stored: Stored) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = stored.get("/spans", trace_id=TRACE)
    return found


def around(stored: Stored, name: str) -> list[str]:
    """The names of a span and of those around it, and the id of the caller, which is elsewhere."""
    by_id = {span["span_id"]: span for span in of_the_trace(stored)}
    at = next((one for one, span in by_id.items() if span["operation_name"] == name), None)
    names = []
    while at in by_id:
        names.append(by_id[at]["operation_name"])
        at = by_id[at]["parent_span_id"]
    return [*names, str(at)]


@pytest.mark.parametrize("backend_name", ["native", "pure"])
def test_a_request_of_a_deployment_with_fastapi(
    backend_name: str, programs: Path, tmp_path: Path
) -> None:
    """docs/servers.md: `infertrace run -- python app.py`."""
    before = (programs / "infertrace", "run", "--include", "starlette", "--")
    with serving([*before, programs / "python"], tmp_path, INFERTRACE_BACKEND=backend_name) as (
        client,
        stored,
    ):
        answer = client.get("/items/41", headers={"traceparent": TRACEPARENT})
        assert answer.json() == 42
        wait_until(lambda: bool(of_the_trace(stored)))
        (span,) = of_the_trace(stored)
    assert (span["operation_name"], span["kind"]) == ("GET /items/{item}", "SERVER")
    assert (span["parent_span_id"], span["status"]) == (CALLER, "OK")
    assert span["attributes"]["http.response.status_code"] == httpx.codes.OK


@pytest.mark.parametrize("backend_name", ["native", "pure"])
def test_its_own_spans(backend_name: str, programs: Path, tmp_path: Path) -> None:
    """docs/integrations/opentelemetry.md: two variables, from the proxy through the replicas."""
    first, last = (f"replica_handle_request {name} __call__" for name in ("Application", "Model"))
    variables = {"INFERTRACE_BACKEND": backend_name, **OWN_SPANS}
    with serving([programs / "python"], tmp_path, **variables) as (client, stored):
        answer = client.get("/items/41", headers={"traceparent": TRACEPARENT})
        assert answer.json() == 42
        wait_until(lambda: {around(stored, name)[-1] for name in (first, last)} == {CALLER})
        of_the_first, of_the_last = (around(stored, name) for name in (first, last))
    assert of_the_first == [
        first,
        "route_to_replica Application __call__",
        "proxy_http_request Application GET /items/41",
        CALLER,
    ]
    # FastAPI, which traces by itself where there is a provider, reads the caller's header again.
    assert of_the_last == [
        last,
        "route_to_replica Model __call__",
        "fastapi.endpoint",
        "GET /items/{item}",
        CALLER,
    ]
