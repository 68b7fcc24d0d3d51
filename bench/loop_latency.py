"""What does tracing add to the steps of a loop, while its spans are being exported?

The work: back-to-back steps of 200 µs that hold the GIL, one span around each, for two and
a half seconds from when the tracer is made, so that connecting is in them. Each contender
sends to a process on the same machine: infertrace and OpenTelemetry (batch processor, OTLP)
over gRPC, ddtrace over HTTP to a stand-in for its agent. Percentiles are of one run, their
ratios of one round. "Untraced, again" is the untraced loop once more: what it differs by is
noise.
"""

from __future__ import annotations

import json
import statistics
import sys
from array import array
from bisect import bisect
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from time import perf_counter_ns
from zlib import crc32

from bench import contenders
from bench.contenders import Contender
from bench.harness import Answer, ratios, run_part, run_rounds, verdict
from bench.loops import loop_of
from bench.markdown import table, with_spread
from bench.receiver import running_receiver

STEP_US = 200
RUN_S, FAST_RUN_S = 2.5, 1.0
ROUNDS, FAST_ROUNDS = 7, 2
FIRST_SECOND_NS = 1_000_000_000
# Checksums of blocks too small for zlib to release the GIL: C code between bytecodes, like the
# steps of a model server, and equally fast in every process, unlike bytecode alone.
BLOCK = bytes(1024)
CALIBRATIONS = 200

UNTRACED, AGAIN, NATIVE, PURE = (
    "untraced",
    "untraced, again",
    "infertrace native",
    "infertrace pure",
)
CONTENDERS: dict[str, Callable[[], Contender]] = {
    UNTRACED: Contender,
    NATIVE: contenders.native,
    "infertrace pure": contenders.pure,
    "OpenTelemetry SDK": lambda: contenders.OpenTelemetry(sending=True),
    "ddtrace": contenders.Datadog,
    AGAIN: Contender,
}
PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
WORK = "for _ in range(blocks):\n    checksum = crc32(block, checksum)"


def step_blocks() -> int:
    """How many blocks take a step's time on this machine; every run does that many."""
    loop = loop_of(
        "checksum = crc32(block, checksum)", setup="checksum = 0", crc32=crc32, block=BLOCK
    )
    block_s = min(loop(None, 1000) for _ in range(CALIBRATIONS)) / 1000
    return round(STEP_US * 1e-6 / block_s)


def run(name: str, blocks: int, seconds: float) -> dict[str, float]:
    """One run, in this process: percentiles of its steps, microseconds."""
    contender = CONTENDERS[name]()
    traced = "" if contender.tracer is None else contenders.recorded(type(contender)) + "\n    "
    work = WORK.replace("\n", "\n    ") if traced else WORK
    steps = array("q", bytes(8 * int(2 * seconds / (STEP_US * 1e-6))))
    loop = loop_of(
        f"before = now()\n{traced}{work}\nsteps[step] = now() - before",
        setup="checksum = 0\nend = now() + duration_ns",
        head="for step in range(count):\n        if now() >= end:\n            break",
        now=perf_counter_ns,
        crc32=crc32,
        block=BLOCK,
        blocks=blocks,
        steps=steps,
        duration_ns=int(seconds * 1e9),
    )
    loop(contender.tracer, len(steps))
    taken = [step for step in steps if step]
    contender.settle()
    if not taken:
        raise RuntimeError("no step was timed")
    ordered = sorted(taken)
    results = {key: ordered[int(len(ordered) * share)] / 1e3 for key, share in PERCENTILES.items()}
    first_second = bisect([*accumulate(taken)], FIRST_SECOND_NS)
    return {**results, "worst of the first second": max(taken[: first_second + 1]) / 1e3}


def measure(folder: Path, fast: bool) -> Answer:
    rounds, seconds = (FAST_ROUNDS, FAST_RUN_S) if fast else (ROUNDS, RUN_S)
    blocks = step_blocks()
    with running_receiver() as addresses:
        results = run_rounds(
            [*CONTENDERS],
            rounds,
            lambda name: run_part("bench.loop_latency", name, blocks, seconds, addresses=addresses),
        )
    added = {
        name: {
            key: [100 * (ratio - 1) for ratio in ratios(values, results[UNTRACED][key])]
            for key, values in percentiles.items()
        }
        for name, percentiles in results.items()
    }
    keys = [*results[UNTRACED]]
    tables = table(
        ["", *(f"{key}, µs (rounds)" for key in keys)],
        [
            [
                name,
                *(with_spread(results[name][key], digits=0) for key in keys),
            ]
            for name in CONTENDERS
        ],
    )
    tables += "\n" + table(
        ["over untraced", *(f"{key} (rounds)" for key in PERCENTILES)],
        [
            [
                name,
                *(with_spread(added[name][key], digits=1, unit=" %") for key in PERCENTILES),
            ]
            for name in CONTENDERS
            if name != UNTRACED
        ],
    )
    verdicts = []
    for key, limit in (("p50", 1), ("p99.9", 3)):
        noise = f"added (untraced, again: {statistics.median(added[AGAIN][key]):+.1f} %)"
        what = f"200 µs loop, {key}, native"
        verdicts.append(verdict(what, added[NATIVE][key], "%", at_most=limit, of=noise))
    data = {"rounds": rounds, "run_s": seconds, "microseconds": results, "percent_added": added}
    return Answer(data, tables, verdicts)


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))))
