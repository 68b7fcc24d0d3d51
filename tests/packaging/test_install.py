"""What `pip install .` gives: compiled with a compiler, pure without, an error where required."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NO_COMPILER = {"CC": "/bin/false", "CXX": "/bin/false"}


def build(out: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("INFERTRACE_")}
    return subprocess.run(
        # Without isolation: the build requirements are in the `test` extra, so that each
        # build does not install them again.
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            out,
            ROOT,
        ],
        env={**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}", **environ},
        capture_output=True,
        text=True,
        timeout=280,
    )


def contents(out: Path) -> tuple[str, list[str]]:
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return wheel.name, archive.namelist()


def assert_complete(names: list[str]) -> None:
    assert "infertrace/py.typed" in names
    assert "infertrace/generated/span_pb2.pyi" in names
    assert "infertrace/recording/native.pyi" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.endswith((".pyx", ".pxi", ".h", ".c", ".proto"))]
    tops = {name.split("/")[0] for name in names}
    assert len(tops) == 2, tops  # the package and its dist-info


def test_with_a_compiler(tmp_path: Path) -> None:
    outcome = build(tmp_path, INFERTRACE_REQUIRE_NATIVE="1")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    name, names = contents(tmp_path)
    assert not name.endswith("-none-any.whl")
    assert [n for n in names if n.startswith("infertrace/recording/native.") and ".so" in n]
    assert_complete(names)


def test_without_a_compiler(tmp_path: Path) -> None:
    outcome = build(tmp_path, **NO_COMPILER)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    name, names = contents(tmp_path)
    assert name.endswith("-py3-none-any.whl")
    assert_complete(names)

    # The wheel alone: -S runs no .pth file, so an editable installation is out of reach too.
    target = tmp_path / "site"
    with zipfile.ZipFile(tmp_path / name) as archive:
        archive.extractall(target)
    code = """
import infertrace
tracer = infertrace.Tracer("localhost:1", resource_interval_s=0)
with tracer.start_span("m", batch_size=1): pass
assert tracer.stats()["produced"] == 1
tracer.shutdown(0)
print(infertrace.BACKEND, infertrace.__file__)
"""
    path = os.pathsep.join([str(target), sysconfig.get_path("platlib")])
    ran = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.stdout.split() == ["pure", str(target / "infertrace" / "__init__.py")], ran.stderr


@pytest.mark.parametrize("value", ["1", "true"])
def test_without_a_compiler_where_one_is_required(tmp_path: Path, value: str) -> None:
    outcome = build(tmp_path, **NO_COMPILER, INFERTRACE_REQUIRE_NATIVE=value)
    assert outcome.returncode != 0
    assert not list(tmp_path.glob("*.whl"))
