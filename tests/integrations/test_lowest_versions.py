"""The other tests here, with the lowest version of each library that the table claims."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infertrace.integrations.catalog import INTEGRATIONS

HERE = Path(__file__).parent
# What goes with them, and has no version of its own in the table.
COMPANIONS = (
    "fastapi==0.115.2",
    "opentelemetry-distro==0.55b0",
    "opentelemetry-exporter-otlp-proto-common=={opentelemetry-api}",
    "opentelemetry-instrumentation-fastapi==0.55b0",
    "opentelemetry-instrumentation-grpc==0.55b0",
    "opentelemetry-instrumentation-httpx==0.55b0",
    "opentelemetry-sdk=={opentelemetry-api}",
)
# In test_real_vllm.py and test_large_libraries.py.
ELSEWHERE = ("vllm", "transformers", "sentence-transformers", "llama-cpp")
LEFT_OUT = (Path(__file__).name, "test_servers.py")


def full(version: str) -> str:
    return ".".join([*version.split("."), "0", "0"][:3])


@pytest.mark.nightly
def test_the_lowest_versions(tmp_path: Path) -> None:
    lowest = {
        library.distribution: full(library.lowest)
        for integration in INTEGRATIONS.values()
        for library in integration.libraries
        if library.distribution and integration.name not in ELSEWHERE
    }
    pins = [f"{name}=={version}" for name, version in lowest.items()]
    pins += [companion.format(**lowest) for companion in COMPANIONS]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--target", str(tmp_path), *pins],
        check=True,
        capture_output=True,
    )
    left_out = [f"--deselect={HERE / name}" for name in LEFT_OUT]
    # ddtrace has its own way to load a module, and is here for the bench only.
    outcome = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:ddtrace", str(HERE), *left_out],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert outcome.returncode == 0, outcome.stdout
