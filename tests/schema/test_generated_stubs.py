"""The checked-in generated files match what the schemas generate now."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def test_stubs_are_fresh() -> None:
    if shutil.which("go") is None:
        stop = pytest.fail if os.environ.get("CI") else pytest.skip
        stop("go is not on PATH: install Go 1.24 or newer to check the generated stubs")
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "generate.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
