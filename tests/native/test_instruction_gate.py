"""The instruction gate fails on what got slower, and on what it cannot compare."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
OPERATION = "bare span"

# One more call in each span, such as a careless change adds.
SLOWER = """
from instruction_workloads import Operation, count

def with_one_more_call(recorder, times):
    start_span = recorder.start_span
    for _ in range(times):
        with start_span("gpt-4") as span:
            span.set_batch_size(8)

count(Operation(with_one_more_call))
"""


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("infertrace.recording.native")
    monkeypatch.syspath_prepend(TOOLS)
    import instruction_gate

    return instruction_gate


@pytest.fixture
def valgrind() -> None:
    if shutil.which("valgrind") is None:
        stop = pytest.fail if os.environ.get("CI") else pytest.skip
        stop("valgrind is not on PATH: install it to count instructions")


@pytest.mark.usefixtures("valgrind")
def test_a_slower_span_fails(
    gate: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = str(tmp_path / "counts.json")
    assert gate.main(["--update", "--record", record, OPERATION]) == 0
    assert gate.main(["--record", record, OPERATION]) == 0

    slower = tmp_path / "slower.py"
    slower.write_text(SLOWER)
    monkeypatch.setattr(gate, "WORKLOADS", slower)
    assert gate.main(["--record", record, OPERATION]) == 1
    assert f"instruction gate: {OPERATION}:" in capsys.readouterr().err


def test_where_the_line_is(gate: Any) -> None:
    assert gate.compare({"a": 1030}, {"a": 1000})[1] == []
    assert gate.compare({"a": 1031, "b": 1000}, {"a": 1000, "b": 1000})[1] == [
        "a: 1000 -> 1031 instructions, +3.1%"
    ]


def test_what_got_cheaper_asks_for_an_update(gate: Any) -> None:
    (line,), failures = gate.compare({"a": 969}, {"a": 1000})
    assert failures == []
    assert "--update" in line


def test_what_is_on_one_side_only_fails(gate: Any) -> None:
    (new, gone) = gate.compare({"new": 1}, {"gone": 1})[1]
    assert new.startswith("new: no count is recorded")
    assert gone.startswith("gone: recorded, but no longer measured")


def test_another_interpreter_fails(gate: Any) -> None:
    (failure,) = gate.compare({gate.INTERPRETER: 970}, {gate.INTERPRETER: 1000})[1]
    assert "this is another interpreter" in failure


def test_an_unknown_toolchain_fails(
    gate: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "counts.json"
    record.write_text(json.dumps({"another toolchain": {OPERATION: 1}}))
    assert gate.main(["--record", str(record)]) == 1
    error = capsys.readouterr().err
    assert gate.toolchain() in error
    assert "--update" in error


def test_no_valgrind_fails(gate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="valgrind is not on PATH"):
        gate.measure([OPERATION])


def test_fields_at_start_cost_less_than_setters(gate: Any) -> None:
    for toolchain, counts in json.loads(gate.RECORD.read_text()).items():
        assert counts["five fields at start"] < counts["five setters"], toolchain
