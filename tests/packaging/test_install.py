"""The result of a build: compiled with a compiler, pure without one, an error if required."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest


def test_with_a_compiler(compiled_wheel: Path) -> None:
    assert not compiled_wheel.name.endswith("-none-any.whl")


def test_without_a_compiler(pure_wheel: Path, tmp_path: Path) -> None:
    assert pure_wheel.name.endswith("-py3-none-any.whl")

    # The wheel alone: -S runs no .pth file, so an editable installation is out of reach too.
    target = tmp_path / "site"
    with zipfile.ZipFile(pure_wheel) as archive:
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
def test_without_a_compiler_where_one_is_required(
    build: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, value: str
) -> None:
    outcome = build(tmp_path, CC="/bin/false", CXX="/bin/false", INFERTRACE_REQUIRE_NATIVE=value)
    assert outcome.returncode != 0
    assert not list(tmp_path.glob("*.whl"))
