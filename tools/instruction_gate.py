"""Counts the instructions of each hot operation and compares them with the committed figures.

    python tools/instruction_gate.py             # exits 1 and names what got slower
    python tools/instruction_gate.py --update    # records the counts of this toolchain

Instruction counts of valgrind's callgrind are repeatable; times are not. A count belongs to one
build of the interpreter, one compiler and one machine: each toolchain has its own record in
instruction_counts.json. The gate measures the infertrace that this interpreter imports.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from instruction_workloads import INTERPRETER, ITERATIONS, MARKER, OPERATIONS

from infertrace.recording import native

HERE = Path(__file__).resolve().parent
RECORD = HERE / "instruction_counts.json"
WORKLOADS = HERE / "instruction_workloads.py"

TOLERANCE = 0.03  # share of the recorded count
# The reference runs no code of ours: beyond this share, the interpreter is another one.
INTERPRETER_TOLERANCE = 0.02
TIMEOUT_S = 120

UPDATE = "record them with: python tools/instruction_gate.py --update"


def toolchain() -> str:
    """The toolchain: everything besides the source that the counts depend on."""
    # The compiler that built the extension, which it names in it; today's `cc` may be another.
    signatures = re.findall(
        rb"GCC: \([^)]*\) [\d.]+|clang version [\d.]+", Path(native.__file__).read_bytes()
    )
    compilers = sorted({signature.decode() for signature in signatures}) or ["unknown compiler"]
    interpreter = f"{platform.python_implementation()} {platform.python_version()}"
    return ", ".join(
        [f"{interpreter} ({platform.python_compiler()})", *compilers, platform.machine()]
    )


def count_iterations(name: str) -> float:
    """Instructions of one iteration of an operation's loop."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        sys.exit("valgrind is not on PATH: install it to count instructions")
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            [
                valgrind,
                "--tool=callgrind",
                # Dumps the counts so far, and restarts from 0.
                f"--dump-before={MARKER}",
                f"--callgrind-out-file={scratch}/counts",
                *(sys.executable, WORKLOADS, name),
            ],
            # Drop the caller's other variables: hash seeds and settings would change the counts.
            env={"PATH": os.environ["PATH"], "PYTHONHASHSEED": "0", "PYTHONPATH": str(HERE)},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            sys.exit(f"{name!r} exited {done.returncode} under valgrind:\n{done.stderr}")
        between_marks = Path(scratch, "counts.2").read_text()
    total = re.search(r"^totals: (\d+)$", between_marks, re.MULTILINE)
    assert total is not None, between_marks[:1000]
    return int(total[1]) / ITERATIONS


def measure(names: Collection[str]) -> dict[str, int]:
    """Instructions of one call of each of these operations."""
    contained = {beyond for name in names if (beyond := OPERATIONS[name].beyond) is not None}
    needed = [*names, *sorted(contained - {*names})]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        iterations = dict(zip(needed, pool.map(count_iterations, needed), strict=True))
    return {
        name: round(
            (iterations[name] - iterations.get(OPERATIONS[name].beyond or "", 0))
            / OPERATIONS[name].calls
        )
        for name in names
    }


def compare(counts: Mapping[str, int], recorded: Mapping[str, int]) -> tuple[list[str], list[str]]:
    """The table of the counts, and why the gate fails, if it does."""
    table, failures = [], []
    for name in dict.fromkeys([*counts, *recorded]):
        count, before = counts.get(name), recorded.get(name)
        if count is None:
            failures.append(f"{name}: recorded, but no longer measured; {UPDATE}")
            continue
        if before is None:
            table.append(f"{name:26}{count:8}")
            failures.append(f"{name}: no count is recorded; {UPDATE}")
            continue
        change = (count - before) / before
        table.append(f"{name:26}{count:8}{before:10}{change:+9.1%}")
        if name == INTERPRETER and abs(change) > INTERPRETER_TOLERANCE:
            failures.append(f"{name}: {change:+.1%}, so this is another interpreter; {UPDATE}")
        elif change > TOLERANCE:
            failures.append(f"{name}: {before} -> {count} instructions, {change:+.1%}")
        elif change < -TOLERANCE:
            table[-1] += "  cheaper: keep it so with --update"
    return table, failures


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--update", action="store_true", help="record the counts, do not compare")
    parser.add_argument("--record", type=Path, default=RECORD, help="the file of the counts")
    parser.add_argument("operations", nargs="*", help="only these; default all")
    options = parser.parse_args(arguments)
    names = options.operations or list(OPERATIONS)

    records = json.loads(options.record.read_text()) if options.record.exists() else {}
    key = toolchain()
    if not options.update and key not in records:
        print(f"no counts are recorded for {key}; {UPDATE}", file=sys.stderr)
        return 1
    counts = measure(names)
    if options.update:
        records[key] = {**records.get(key, {}), **counts} if options.operations else counts
        options.record.write_text(json.dumps(records, indent=2) + "\n")
        print(f"{options.record}: recorded {len(counts)} operations for {key}")
        return 0
    recorded = records[key]
    if options.operations:
        recorded = {name: recorded[name] for name in names if name in recorded}
    table, failures = compare(counts, recorded)
    print(
        key,
        f"{'instructions per call':26}{'now':>8}{'recorded':>10}{'change':>9}",
        *table,
        sep="\n",
    )
    for failure in failures:
        print(f"instruction gate: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
