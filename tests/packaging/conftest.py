"""The sdist of this checkout, and what is built from it; or the files of a release."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NO_COMPILER = {"CC": "/bin/false", "CXX": "/bin/false"}

Build = Callable[..., "subprocess.CompletedProcess[str]"]


def run(command: list[str | Path], **environ: str) -> subprocess.CompletedProcess[str]:
    outer = {key: value for key, value in os.environ.items() if not key.startswith("INFERTRACE_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{outer['PATH']}"
    return subprocess.run(
        command,
        env={**outer, "PATH": path, **environ},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    code = "import sys; from scikit_build_core.build import build_sdist; build_sdist(sys.argv[1])"
    outcome = run([sys.executable, "-c", code, out])
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    (found,) = out.iterdir()
    return found


@pytest.fixture(scope="session")
def build(sdist: Path) -> Build:
    """Build a wheel from the sdist into a folder, with these variables set."""

    def build(out: Path, **environ: str) -> subprocess.CompletedProcess[str]:
        pip: list[str | Path] = [sys.executable, "-m", "pip", "wheel", "--no-deps"]
        # Without isolation: the build requirements are in the `test` extra, so that each
        # build does not install them again.
        return run([*pip, "--no-build-isolation", "-w", out, sdist], **environ)

    return build


@pytest.fixture(scope="session")
def compiled_wheel(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(build, tmp_path_factory.mktemp("compiled"), INFERTRACE_REQUIRE_NATIVE="1")


@pytest.fixture(scope="session")
def pure_wheel(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(build, tmp_path_factory.mktemp("pure"), **NO_COMPILER)


def built(build: Build, out: Path, **environ: str) -> Path:
    outcome = build(out, **environ)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def release(request: pytest.FixtureRequest) -> list[Path]:
    """The files of a release: those in INFERTRACE_DISTRIBUTIONS, or some that this builds."""
    if folder := os.environ.get("INFERTRACE_DISTRIBUTIONS"):
        return sorted(Path(folder).iterdir())
    return [request.getfixturevalue(name) for name in ("sdist", "compiled_wheel", "pure_wheel")]
