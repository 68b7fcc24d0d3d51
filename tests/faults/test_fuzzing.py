"""Bytes for each fuzz target: by hypothesis, and coverage-guided at night."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fuzz_targets

NIGHTLY_S = 300
MAX_BYTES = {"spool": 20_000, "span": 2_000, "otlp": 4_000, "otlp_json": 4_000, "envelope": 2_000}
PIECE = st.binary(max_size=40) | st.integers(0, 255).map(lambda number: bytes((number,)))
BYTES = st.lists(PIECE).map(b"".join)


@pytest.mark.parametrize("name", fuzz_targets.TARGETS)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=BYTES)
def test_any_bytes(name: str, data: bytes) -> None:
    fuzz_targets.TARGETS[name](data)


def test_a_whole_spool_is_read(tmp_path: Path) -> None:
    """The fuzzer's seeds are valid spools."""
    fuzz_targets.seeds(tmp_path)
    for path in tmp_path.iterdir():
        fuzz_targets.spool(path.read_bytes())


@pytest.mark.nightly
@pytest.mark.timeout(NIGHTLY_S * 2)
@pytest.mark.parametrize("name", fuzz_targets.TARGETS)
def test_coverage_guided(name: str, tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    fuzz_targets.seeds(tmp_path / "corpus", name)
    done = subprocess.run(
        [
            *(sys.executable, fuzz_targets.__file__, name, str(tmp_path / "corpus")),
            *(f"-max_total_time={NIGHTLY_S}", f"-max_len={MAX_BYTES[name]}", "-rss_limit_mb=2048"),
            f"-artifact_prefix={tmp_path}/",
        ],
        env={**os.environ, "PYTHONPATH": str(Path(fuzz_targets.__file__).parent)},
        capture_output=True,
        text=True,
        timeout=NIGHTLY_S * 1.5,
    )
    assert done.returncode == 0, done.stderr[-5_000:]
    assert "DONE" in done.stderr
