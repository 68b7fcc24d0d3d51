"""Third-party programs that speak OTLP: a test installs each on first use, in its own folder.

`rotel` and `arize-phoenix` come from PyPI; Jaeger, telemetrygen and the OpenTelemetry Collector are
built of their Go modules. All of them together take two gigabytes, and minutes, once.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parents[1] / "build" / "rivals"
INSTALL_TIMEOUT_S: Final = 3600
OTELCOL_VERSION: Final = "v0.165.0"
JAEGER_VERSION: Final = "v1.76.0"
TELEMETRYGEN_VERSION: Final = "v0.161.0"

_CORE: Final = "go.opentelemetry.io/collector"
_CONTRIB: Final = "github.com/open-telemetry/opentelemetry-collector-contrib"
_JAEGER: Final = "github.com/jaegertracing/jaeger"
_MANIFEST: Final = f"""
dist: {{name: otelcol, output_path: out, module: example.invalid/otelcol}}
receivers: [{{gomod: {_CORE}/receiver/otlpreceiver {OTELCOL_VERSION}}}]
exporters: [{{gomod: {_CONTRIB}/exporter/fileexporter {OTELCOL_VERSION}}}]
"""


class NotInstalled(Exception):
    """It is not here and cannot be had; the text says why."""


def rotel() -> Path:
    """Its program, which wants the shared library of the Python that installed it."""
    if not (FOLDER / "rotel" / "lib").exists():
        _pip("rotel")
    (program,) = (FOLDER / "rotel" / "lib").glob("python*/site-packages/rotel/rotel-agent")
    return program


def phoenix() -> Path:
    """Its program."""
    program = FOLDER / "arize-phoenix" / "bin" / "phoenix"
    if not program.exists():
        _pip("arize-phoenix")
    return program


def otelcol() -> Path:
    """Its program."""
    folder = FOLDER / f"otelcol-{OTELCOL_VERSION}"
    program = folder / "out" / "otelcol"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "manifest.yaml").write_text(_MANIFEST)
        _go(folder, "install", f"{_CORE}/cmd/builder@{OTELCOL_VERSION}")
        only_sources = [str(folder / "builder"), "--config", "manifest.yaml", "--skip-compilation"]
        # It writes the sources, and fails where a module cannot be had that only tests import.
        with suppress(NotInstalled):
            install(only_sources, folder)
        _go(folder / "out", "mod", "tidy", "-e")
        _go(folder / "out", "build", "-o", program.name, ".")
    return program


def jaeger() -> Path:
    """Its program with everything in one."""
    folder = FOLDER / f"jaeger-{JAEGER_VERSION}"
    program = folder / "jaeger"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        found = json.loads(_go(folder, "mod", "download", "-json", f"{_JAEGER}@{JAEGER_VERSION}"))
        # In place, for its go.mod has directives that `go install` refuses elsewhere.
        source = folder / "source"
        shutil.copytree(found["Dir"], source, dirs_exist_ok=True, copy_function=shutil.copyfile)
        for path in (source, *source.rglob("*")):
            path.chmod(path.stat().st_mode | 0o200)
        _go(source, "build", "-o", str(program), "./cmd/all-in-one")
        shutil.rmtree(source)
    return program


def telemetrygen() -> Path:
    """Its program."""
    folder = FOLDER / f"telemetrygen-{TELEMETRYGEN_VERSION}"
    if not (folder / "telemetrygen").exists():
        folder.mkdir(parents=True, exist_ok=True)
        _go(folder, "install", f"{_CONTRIB}/cmd/telemetrygen@{TELEMETRYGEN_VERSION}")
    return folder / "telemetrygen"


def _pip(package: str) -> None:
    folder = FOLDER / package
    install([sys.executable, "-m", "venv", str(folder)], FOLDER.parent)
    try:
        install([str(folder / "bin" / "pip"), "install", "--quiet", package], folder)
    except NotInstalled:
        shutil.rmtree(folder)
        raise


def _go(folder: Path, *arguments: str) -> str:
    if shutil.which("go") is None:
        raise NotInstalled("no Go")
    return install(["go", *arguments], folder, GOBIN=str(folder))


def install(command: Sequence[str], folder: Path, **variables: str) -> str:
    """Run it; returns what it printed. Raises NotInstalled."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            timeout=INSTALL_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError) as error:
        lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise NotInstalled(lines[-1].strip()[:200] if lines else "no reason given") from error
    return done.stdout
