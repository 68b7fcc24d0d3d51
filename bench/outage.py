"""How many spans does an outage of the collector cost, and what does it do to the traced loop?

The work: 1,000 recorded spans a second, each around a step of some 100 µs, from five seconds
before an outage to five seconds after it. The collector stops, and another takes its port when
the outage is over. "Lost" are spans that arrived at neither; "miscounted" is by how much the
tracer's own count of lost spans is off, where it keeps one. "Worst step" is the longest one.
"Exit" is how long the process takes to end when the collector is gone again.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

from bench import contenders
from bench.contenders import Contender
from bench.counting_receiver import CountingReceiver
from bench.environment import REPOSITORY
from bench.harness import Answer, variables, verdict
from bench.loops import loop_of
from bench.markdown import table
from bench.receiver import Addresses

OUTAGES_S, FAST_OUTAGES_S = (5, 15, 60), (2,)
MARGIN_S = 5
SPANS_PER_BURST, BURST_INTERVAL_S = 10, 0.01
STEP_BLOCKS, BLOCK = 150, bytes(1024)
NATIVE, PURE, RIVAL = "infertrace native", "infertrace pure", "OpenTelemetry SDK"
CONTENDERS: dict[str, Callable[[], Contender]] = {
    NATIVE: contenders.native,
    PURE: contenders.pure,
    RIVAL: lambda: contenders.OpenTelemetry(sending=True),
}


def run(name: str, seconds: float) -> None:
    """The traced process: prints when it records, then its counts; ends with its input."""
    contender = CONTENDERS[name]()
    steps: list[int] = []
    block = contenders.recorded(type(contender)) + "\n    "
    work = "for _ in range(blocks):\n        checksum = crc32(data, checksum)"
    loop = loop_of(
        f"before = now()\n{block}{work}\nsteps.append(now() - before)",
        setup="checksum = 0",
        now=time.perf_counter_ns,
        blocks=STEP_BLOCKS,
        data=BLOCK,
        crc32=crc32,
        steps=steps,
    )
    print("ready", flush=True)
    start = time.monotonic()
    for burst in range(round(seconds / BURST_INTERVAL_S)):
        loop(contender.tracer, SPANS_PER_BURST)
        time.sleep(max(0.0, start + (burst + 1) * BURST_INTERVAL_S - time.monotonic()))
    contender.flush()
    print(json.dumps([len(steps), contender.lost(), max(steps) / 1e6]), flush=True)
    sys.stdin.readline()
    loop(contender.tracer, SPANS_PER_BURST)


def one_outage(name: str, outage_s: float, folder: Path) -> dict[str, Any]:
    first = CountingReceiver(folder / "first")
    address = f"127.0.0.1:{first.port}"
    traced = subprocess.Popen(
        [sys.executable, "-m", "bench.outage", name, str(2 * MARGIN_S + outage_s)],
        cwd=REPOSITORY,
        env=variables(Addresses(address, address)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert traced.stdout is not None
    assert traced.stdin is not None
    traced.stdout.readline()
    time.sleep(MARGIN_S)
    arrived = first.stop()
    time.sleep(outage_s)
    second = CountingReceiver(folder / "second", first.port)
    made, counted, worst_ms = json.loads(traced.stdout.readline())
    arrived |= second.stop()
    traced.stdin.write("\n")
    traced.stdin.flush()
    asked = time.monotonic()
    traced.wait()
    exit_s = time.monotonic() - asked
    lost = made - len(arrived)
    return {
        "made": made,
        "lost": lost,
        "miscounted": None if counted is None else abs(lost - counted),
        "worst step, ms": worst_ms,
        "exit, s": exit_s,
    }


def measure(folder: Path, fast: bool) -> Answer:
    outages = FAST_OUTAGES_S if fast else OUTAGES_S
    results = {
        f"{name}, {outage_s} s": one_outage(name, outage_s, folder)
        for outage_s in outages
        for name in CONTENDERS
    }
    keys = "made", "lost", "miscounted", "worst step, ms", "exit, s"

    def cell(value: float | None) -> str:
        if value is None:
            return "no count"
        return f"{value:,}" if isinstance(value, int) else f"{value:.1f}"

    tables = table(
        ["outage", *keys],
        [[key, *(cell(values[field]) for field in keys)] for key, values in results.items()],
    )
    verdicts = [
        verdict(
            f"spans lost or miscounted, {key}",
            [float(values["lost"] + values["miscounted"])],
            "spans",
            at_most=0,
        )
        for key, values in results.items()
        if not key.startswith(RIVAL)
    ]
    return Answer({"outages": results}, tables, verdicts)


if __name__ == "__main__":
    run(sys.argv[1], float(sys.argv[2]))
