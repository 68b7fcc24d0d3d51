"""Tests of libraries on torch, which takes gigabytes: ../test_large_libraries.py runs them."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

collect_ignore_glob = [] if find_spec("torch") else ["test_*"]


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny language model."""
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    script = Path(__file__).parents[2] / "tiny_llama.py"
    subprocess.run([sys.executable, script, folder], check=True, capture_output=True)
    return folder
