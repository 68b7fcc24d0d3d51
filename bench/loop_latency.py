"""What does tracing add to the steps of a loop, while its spans are being exported?

The work: back-to-back steps of 200 µs that hold the GIL, one span around each, for five seconds
from when the tracer is made, so that connecting is in them. Each contender sends to a process on
the same machine: infertrace and OpenTelemetry (batch processor, OTLP) over gRPC, ddtrace over HTTP
to a stand-in for its agent. Percentiles are of one run, their ratios of one round; "95 %" is the
interval of the median of these, by resampling the rounds. "Untraced, again" is the untraced loop
once more: what it differs by is noise. The untraced loops and ours are run in more rounds than the
rivals, until that interval of the noise lies within 2 % at p99.9, and in 32 at most.
"""

from __future__ import annotations

import json
import random
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
RUN_S, FAST_RUN_S = 5.0, 1.0
# So many at a time: an even number, since every other round goes backwards.
ROUNDS, FAST_ROUNDS = 8, 2
MAX_ROUNDS = 32
NOISE_WITHIN_PERCENT = 2.0
RESAMPLES = 2000
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
    PURE: contenders.pure,
    "OpenTelemetry SDK": lambda: contenders.OpenTelemetry(sending=True),
    "ddtrace": contenders.Datadog,
    AGAIN: Contender,
}
COMPARED = (UNTRACED, NATIVE, PURE, AGAIN)
PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
# By contender and measure, a value for each of its rounds.
Results = dict[str, dict[str, list[float]]]
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


def median_interval(values: list[float]) -> tuple[float, float]:
    """Where the median lies in 95 of 100 cases, by the bootstrap."""
    chance = random.Random(0)
    medians = sorted(
        statistics.median(chance.choices(values, k=len(values))) for _ in range(RESAMPLES)
    )
    return medians[RESAMPLES * 25 // 1000], medians[RESAMPLES * 975 // 1000]


def percent_added(results: Results, name: str, key: str) -> list[float]:
    """Over the untraced loop, by round; the rounds of a rival are the first ones."""
    measured = results[name][key]
    untraced = results[UNTRACED][key][: len(measured)]
    return [100 * (ratio - 1) for ratio in ratios(measured, untraced)]


def measure_enough(part: Callable[[str], dict[str, float]], rounds: int, limit: int) -> Results:
    """All contenders, and then those that the budgets compare until the noise is small."""
    results = run_rounds([*CONTENDERS], rounds, part)
    while len(results[UNTRACED]["p50"]) < limit:
        noise = median_interval(percent_added(results, AGAIN, "p99.9"))
        if max(map(abs, noise)) <= NOISE_WITHIN_PERCENT:
            break
        for name, measures in run_rounds(COMPARED, rounds, part).items():
            for key, values in measures.items():
                results[name][key] += values
    return results


def measure(folder: Path, fast: bool) -> Answer:
    rounds, limit, seconds = (
        (FAST_ROUNDS, FAST_ROUNDS, FAST_RUN_S) if fast else (ROUNDS, MAX_ROUNDS, RUN_S)
    )
    blocks = step_blocks()
    with running_receiver() as addresses:
        results = measure_enough(
            lambda name: run_part("bench.loop_latency", name, blocks, seconds, addresses=addresses),
            rounds,
            limit,
        )
    added = {
        name: {key: percent_added(results, name, key) for key in PERCENTILES} for name in CONTENDERS
    }
    keys = [*results[UNTRACED]]
    tables = table(
        ["", "rounds", *(f"{key}, µs (rounds)" for key in keys)],
        [
            [
                name,
                str(len(results[name]["p50"])),
                *(with_spread(results[name][key], digits=0) for key in keys),
            ]
            for name in CONTENDERS
        ],
    )
    tables += "\n" + table(
        ["over untraced", *(f"{key} (95 %)" for key in PERCENTILES)],
        [
            [name, *(_with_interval(added[name][key]) for key in PERCENTILES)]
            for name in CONTENDERS
            if name != UNTRACED
        ],
    )
    verdicts = []
    for key, name, limit_percent in (
        ("p50", NATIVE, 1),
        ("p99.9", NATIVE, 3),
        ("p99.9", PURE, 25),
    ):
        noise = f"added (untraced, again: {_with_interval(added[AGAIN][key])})"
        what = f"200 µs loop, {key}, {name.rpartition(' ')[2]}"
        verdicts.append(verdict(what, added[name][key], "%", at_most=limit_percent, of=noise))
    data = {"run_s": seconds, "microseconds": results, "percent_added": added}
    return Answer(data, tables, verdicts)


def _with_interval(values: list[float]) -> str:
    low, high = median_interval(values)
    return f"{statistics.median(values):,.1f} % ({low:,.1f} to {high:,.1f})"


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))))
