"""No operation of the compiled backend keeps or loses a reference, or memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("count_references.py")
TIMES_EACH, TIMES_EACH_NIGHTLY = 4_000, 17_000
SPANS, SPANS_NIGHTLY = 235_000, 1_000_000
TIMEOUT_S = 1_200  # a minute, where nothing else runs
REFERENCE_SLACK = 10


@pytest.mark.timeout(TIMEOUT_S + 20)
def test_counts_are_level_after_many_spans(nightly: bool) -> None:
    pytest.importorskip("infertrace.recording.native")
    times_each = TIMES_EACH_NIGHTLY if nightly else TIMES_EACH
    # The counting and the interpreter keep some memory. One byte per span would be `times_each`.
    slack = {"bytes": times_each // 2}
    done = subprocess.run(
        [sys.executable, "-X", "dev", SCRIPT, str(times_each)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["spans"] >= (SPANS_NIGHTLY if nightly else SPANS)
    changed = {
        kind: {
            name: change
            for name, change in counts.items()
            if abs(change) > slack.get(name, REFERENCE_SLACK)
        }
        for kind, counts in outcome["grown"].items()
    }
    planted = changed.pop("planted")
    assert {"references to recorder", "bytes"} <= planted.keys()
    assert {kind: counts for kind, counts in changed.items() if counts} == {}
