"""How much memory does the SDK take, exporting and through an outage?

The work: 20,000 recorded spans a second (batch size and tokens set), to a receiver in another
process, or to a port where nobody listens. "Peak" and "at the end" are resident memory over
that of an interpreter that imports nothing; growth is over the second half of the run. Reads
/proc, so it needs Linux.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench import contenders
from bench.contenders import Contender
from bench.harness import Answer, environment, loop_of, run_part, run_rounds, verdict
from bench.markdown import table, with_spread
from bench.receiver import Addresses, running_receiver

SPANS_PER_BURST, BURST_INTERVAL_S = 1000, 0.05
RUN_S, FAST_RUN_S = 8.0, 2.0
BUDGET_MIB = 40
NATIVE = "infertrace native"
CONTENDERS: dict[str, Callable[[], Contender]] = {
    NATIVE: contenders.native,
    "infertrace pure": contenders.pure,
    "OpenTelemetry SDK": lambda: contenders.OpenTelemetry(sending=True),
}
EXPORTING, OUTAGE = "exporting", "outage"
BARE = "print(open('/proc/self/status').read())"


def resident_kib(status: str, field: str) -> int:
    (line,) = (line for line in status.splitlines() if line.startswith(field))
    return int(line.split()[1])


def own_status() -> str:
    return Path("/proc/self/status").read_text()


def run(name: str, seconds: float) -> dict[str, float]:
    """One run, in this process: resident memory in KiB."""
    contender = CONTENDERS[name]()
    record = loop_of(contenders.recorded(type(contender)))
    bursts = round(seconds / BURST_INTERVAL_S)
    start = time.monotonic()
    for burst in range(bursts):
        record(contender.tracer, SPANS_PER_BURST)
        if burst == bursts // 2:
            half_way = resident_kib(own_status(), "VmRSS")
        time.sleep(max(0.0, start + (burst + 1) * BURST_INTERVAL_S - time.monotonic()))
    status = own_status()
    end = resident_kib(status, "VmRSS")
    return {"peak": resident_kib(status, "VmHWM"), "at the end": end, "growth": end - half_way}


def measure(folder: Path, fast: bool) -> Answer:
    rounds, seconds = (1, FAST_RUN_S) if fast else (2, RUN_S)
    bare = subprocess.run(
        [sys.executable, "-c", BARE], env=environment(), capture_output=True, text=True, check=True
    ).stdout
    bare_kib = resident_kib(bare, "VmHWM")
    keys = {
        f"{name}, {state}": (name, state) for name in CONTENDERS for state in (EXPORTING, OUTAGE)
    }

    def part(key: str) -> dict[str, float]:
        name, state = keys[key]
        target = addresses if state == EXPORTING else nobody
        kib = run_part("bench.memory", name, seconds, addresses=target)
        over = {field: kib[field] - bare_kib for field in ("peak", "at the end")}
        return {field: value / 1024 for field, value in {**over, "growth": kib["growth"]}.items()}

    with running_receiver() as addresses, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and not listening: connections are refused
        refused = f"127.0.0.1:{taken.getsockname()[1]}"
        nobody = Addresses(refused, refused)
        found = run_rounds([*keys], rounds, part)
    tables = table(
        ["", "", "peak, MiB (rounds)", "at the end, MiB (rounds)", "growth, MiB (rounds)"],
        [
            [name, state, *(with_spread(values, digits=1) for values in found[key].values())]
            for key, (name, state) in keys.items()
        ],
    )
    verdicts = [
        verdict(
            f"memory, native, {state}",
            found[f"{NATIVE}, {state}"]["peak"],
            "MiB",
            at_most=BUDGET_MIB,
            of="over a bare interpreter",
        )
        for state in (EXPORTING, OUTAGE)
    ]
    data = {"rounds": rounds, "run_s": seconds, "bare_mib": bare_kib / 1024, "mebibytes": found}
    return Answer(data, tables, verdicts)


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], float(sys.argv[2]))))
