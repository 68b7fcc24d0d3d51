"""Where do the instructions of one recorded span go?

The work: `with start_span("gpt-4")`, set_batch_size, set_tokens, on a bare recorder, and the same
on the floor, under callgrind. Two lengths of the loop are subtracted, so that only its body
counts; functions are grouped by what they are for. Instructions are no nanoseconds: a clock
read takes more of these than its few instructions say.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from bench import floor_extension
from bench.harness import Answer
from bench.markdown import table

SHORT, LONG = 2_000, 12_000  # spans
SHARE_SHOWN = 0.01

# The purpose of a function by its name; the first match counts.
GROUPS = (
    (r"clock_gettime", "the clock"),
    (r"_Recorder_put$|_encode_span|_put_|wire_", "encoding into the buffer, and the ledger"),
    (r"_Recorder_begin$|native_start_span", "start_span: ids, parent, names"),
    (r"call_span|make_current|_enter|_leave|native_live", "entering and leaving"),
    (r"set_batch_size|set_tokens|put_count", "the two setters"),
    (r"tp_new|tp_dealloc|__pyx_pf_5floor|__pyx_pw_5floor", "the span object and its methods"),
    (r"ParseKeywords|_PyArg|keyword", "keyword arguments"),
    (r"memcpy|memmove|memset", "copying"),
    (r"_PyEval_EvalFrameDefault", "the interpreter's loop"),
    (r".*", "the interpreter's calls, look-ups and objects"),
)

LOOP = """
import sys
def run(tracer, spans):
    for _ in range(spans):
        with tracer.start_span("gpt-4") as span:
            span.set_batch_size(8)
            span.set_tokens(input=24, output=100)
"""
SUBJECTS = {
    "infertrace, native": """
from infertrace.recording import native
tracer = native.Recorder(max_buffer_bytes=1 << 26, max_batch_bytes=1 << 18, wake=int)
tracer.service_name = "bench"
""",
    "floor": """
from bench import floor_extension
tracer = floor_extension.load().Tracer()
""",
}


def functions(subject: str, spans: int) -> Counter[str]:
    """Instructions of each function, over the whole process."""
    with tempfile.TemporaryDirectory() as scratch:
        counts = Path(scratch, "counts")
        program = f"{SUBJECTS[subject]}\n{LOOP}\nrun(tracer, {spans})"
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={counts}"]
        subprocess.run(
            [*command, sys.executable, "-c", program],
            check=True,
            capture_output=True,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
        listing = subprocess.run(
            ["callgrind_annotate", "--threshold=100", counts],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    result: Counter[str] = Counter()
    for line in listing.splitlines():
        if match := re.match(r"\s*([\d,]+) \([ \d.]+%\)\s+(\S+:\S+)", line):
            result[match[2].partition(":")[2]] += int(match[1].replace(",", ""))
    return result


def grouped(subject: str) -> Counter[str]:
    """Instructions of one span, by purpose."""
    few, many = functions(subject, SHORT), functions(subject, LONG)
    result: Counter[str] = Counter()
    for name, count in many.items():
        group = next(group for pattern, group in GROUPS if re.search(pattern, name))
        result[group] += (count - few[name]) / (LONG - SHORT)
    return result


def measure(folder: Path, fast: bool) -> Answer:
    floor_extension.build()
    columns = {subject: grouped(subject) for subject in SUBJECTS}
    totals = {subject: sum(column.values()) for subject, column in columns.items()}
    order = [group for _, group in GROUPS]
    rows = [
        [group, *(f"{column[group]:,.0f}" for column in columns.values())]
        for group in order
        if any(column[group] > SHARE_SHOWN * max(totals.values()) for column in columns.values())
    ]
    rows.append(["all", *(f"{total:,.0f}" for total in totals.values())])
    result = {subject: dict(column) for subject, column in columns.items()}
    return Answer(data=result, tables=table(["instructions for", *columns], rows))
