"""A program that PyInstaller freezes keeps the compiled backend, and delivers."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from grpc_receiver import Receiver

PROGRAM = """
import sys
import infertrace
tracer = infertrace.Tracer(sys.argv[1], resource_interval_s=0)
with tracer.start_span("frozen"):
    pass
print(infertrace.BACKEND, tracer.shutdown(30), tracer.stats()["delivered"])
"""
COLLECTOR = """
from infertrace.collector.ingest import decoder_choice
from infertrace.collector.server import Collector
from infertrace.collector.store import id_filters
with Collector("127.0.0.1:0", "127.0.0.1:0", "memory:"):
    print(decoder_choice.selected.NAME, type(id_filters.new_duplicate_filter(1)).__module__)
"""


@pytest.fixture(scope="module")
def site(compiled_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel alone: PyInstaller does not see through an editable installation."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(compiled_wheel) as archive:
        archive.extractall(folder)
    return folder


def frozen(program: str, site: Path, folder: Path) -> Path:
    (folder / "program.py").write_text(program)
    command = ["--noconfirm", "--log-level=ERROR", "--paths", str(site), "program.py"]
    done = subprocess.run(
        [sys.executable, "-m", "PyInstaller", *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "dist" / "program" / "program"


def run(*command: str | Path) -> str:
    environ = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("INFERTRACE_", "PYTHON"))
    }
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_traced_program(site: Path, tmp_path: Path, receiver: Receiver) -> None:
    assert run(frozen(PROGRAM, site, tmp_path), receiver.endpoint) == "native True 1"
    assert [span.inference.model_name for span in receiver.spans] == ["frozen"]


def test_a_collector(site: Path, tmp_path: Path) -> None:
    said = run(frozen(COLLECTOR, site, tmp_path))
    assert said == "native infertrace.collector.store.native_id_filters"
