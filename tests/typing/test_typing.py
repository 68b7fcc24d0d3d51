"""What a user's type checker reports on the installed package."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import infertrace

USAGE = Path(__file__).with_name("usage.py")
PACKAGES = Path(infertrace.__file__).parents[1]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the user's code and nothing but a user's settings."""
    shutil.copy(USAGE, tmp_path)
    return tmp_path


def check(project: Path, *command: str | Path, **environ: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=project,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_mypy(project: Path) -> None:
    # An editable installation is found by a hook, which a type checker does not run.
    editable = {} if PACKAGES.name == "site-packages" else {"MYPYPATH": str(PACKAGES)}
    settings = ["--config-file=", "--strict", "--follow-imports=silent", "--python-version=3.10"]
    check(project, "mypy", *settings, USAGE.name, **editable)


def test_pyright(project: Path) -> None:
    settings = {
        "extraPaths": [str(PACKAGES)],
        "pythonVersion": "3.10",
        "typeCheckingMode": "strict",
        "reportUnnecessaryTypeIgnoreComment": "error",
    }
    (project / "pyrightconfig.json").write_text(json.dumps(settings))
    check(project, "pyright", "--pythonpath", sys.executable)
