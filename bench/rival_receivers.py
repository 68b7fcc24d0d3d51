"""Receivers of OTLP that others make: installed on first use, each in its own folder.

`rotel` and `arize-phoenix` come from PyPI, the OpenTelemetry Collector is built of its Go modules
by its own builder. One that cannot be had is named, with the reason, in the answer.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.environment import REPOSITORY

FOLDER = REPOSITORY / "build" / "rivals"
INSTALL_TIMEOUT_S = 900
START_TIMEOUT_S = 120
# Of later ones, a module that they need was not to be had from the registry (2026-11).
OTELCOL_VERSION = "v0.120.0"

_CORE = "go.opentelemetry.io/collector"
_CONTRIB = "github.com/open-telemetry/opentelemetry-collector-contrib"
_MANIFEST = f"""
dist: {{name: otelcol, output_path: out, module: example.invalid/otelcol}}
receivers: [{{gomod: {_CORE}/receiver/otlpreceiver {OTELCOL_VERSION}}}]
exporters: [{{gomod: {_CONTRIB}/exporter/fileexporter {OTELCOL_VERSION}}}]
"""
_OTELCOL = """
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
exporters: {{file: {{path: {file}, format: proto}}}}
service:
  pipelines: {{traces: {{receivers: [otlp], exporters: [file]}}}}
  telemetry: {{metrics: {{level: none}}}}
"""


class NotInstalled(Exception):
    """It is not here and cannot be had; the text says why."""


def rotel() -> Path:
    """Its program."""
    found = FOLDER / "rotel" / "lib"
    if not found.exists():
        _pip("rotel")
    (program,) = found.glob("python*/site-packages/rotel/rotel-agent")
    return program


def phoenix() -> Path:
    """Its program."""
    program = FOLDER / "arize-phoenix" / "bin" / "phoenix"
    if not program.exists():
        _pip("arize-phoenix")
    return program


def otelcol() -> Path:
    """Its program."""
    folder = FOLDER / "otelcol"
    program = folder / "out" / "otelcol"
    if not program.exists():
        if shutil.which("go") is None:
            raise NotInstalled("no Go")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "manifest.yaml").write_text(_MANIFEST)
        builder = f"{_CORE}/cmd/builder@{OTELCOL_VERSION}"
        _install(["go", "install", builder], folder, GOBIN=str(folder))
        _install([str(folder / "builder"), "--config", "manifest.yaml"], folder)
    return program


def _pip(package: str) -> None:
    folder = FOLDER / package
    _install([sys.executable, "-m", "venv", str(folder)], REPOSITORY)
    try:
        _install([str(folder / "bin" / "pip"), "install", "--quiet", package], REPOSITORY)
    except NotInstalled:
        shutil.rmtree(folder)
        raise


def _install(command: Sequence[str], folder: Path, **variables: str) -> None:
    try:
        subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=True,
            timeout=INSTALL_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError) as error:
        lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise NotInstalled(lines[-1].strip()[:200] if lines else "no reason given") from error


@contextmanager
def running_rival(name: str, folder: Path) -> Iterator[tuple[str, int]]:
    """Its address for OTLP over gRPC, and its process id; `folder` is for what it keeps."""
    port, other = _free_ports(2)
    environ = dict(os.environ)
    if name == "rotel":
        command = [str(rotel()), "start", "--exporter", "blackhole"]
        command += ["--otlp-grpc-endpoint", f"127.0.0.1:{port}"]
        command += ["--otlp-http-endpoint", f"127.0.0.1:{other}"]
        command += ["--pid-file", str(folder / "pid"), "--log-file", str(folder / "log")]
    elif name == "otelcol":
        (folder / "otelcol.yaml").write_text(_OTELCOL.format(port=port, file=folder / "spans"))
        command = [str(otelcol()), "--config", str(folder / "otelcol.yaml")]
    else:
        command = [str(phoenix()), "serve"]
        environ |= {
            "PHOENIX_WORKING_DIR": str(folder),
            "PHOENIX_HOST": "127.0.0.1",
            "PHOENIX_PORT": str(other),
            "PHOENIX_GRPC_PORT": str(port),
            "PHOENIX_TELEMETRY_ENABLED": "false",
        }
    process = subprocess.Popen(
        command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(port, process)
        yield f"127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.wait()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{process.args!r} did not start") from None
            time.sleep(0.1)
