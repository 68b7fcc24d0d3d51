"""How much memory does the SDK take, exporting and through an outage?

The work: 30,000 recorded spans a second (batch size and tokens set), to a receiver in another
process, or to a port where nobody listens. "Peak" and "at the end" are resident memory over
that of an interpreter that does nothing; growth is over the last quarter of the run, when in
the outage infertrace's buffer is full. What the measuring script takes itself is in every row,
and alone in "nothing". The sender process is beside it, with all that its interpreter takes.
Reads /proc, so it needs Linux.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bench import contenders, sender
from bench.contenders import Contender
from bench.loops import loop_of

if TYPE_CHECKING:
    from bench.harness import Answer

SPANS_PER_BURST, BURST_INTERVAL_S = 1500, 0.05
RUN_S, FAST_RUN_S = 6.0, 2.0
BUDGET_MIB = 40
NOTHING, RIVAL = "nothing", "OpenTelemetry SDK"
OWN = NATIVE, PURE = "infertrace native", "infertrace pure"
CONTENDERS: dict[str, Callable[[], Contender]] = {
    NOTHING: Contender,
    NATIVE: contenders.native,
    PURE: contenders.pure,
    RIVAL: lambda: contenders.OpenTelemetry(sending=True),
}
EXPORTING, OUTAGE = "exporting", "outage"
STATUS = Path("/proc/self/status")


def resident_kib(status: str, field: str) -> int:
    (line,) = (line for line in status.splitlines() if line.startswith(field))
    return int(line.split()[1])


def run(name: str, seconds: float) -> list[int]:
    """One run, in this process: KiB at the peak, at the end, of growth, of the sender process."""
    contender = CONTENDERS[name]()
    record = loop_of("pass" if name == NOTHING else contenders.recorded(type(contender)))
    bursts = round(seconds / BURST_INTERVAL_S)
    start = time.monotonic()
    for burst in range(bursts):
        record(contender.tracer, SPANS_PER_BURST)
        if burst == bursts * 3 // 4:
            before_last_quarter = resident_kib(STATUS.read_text(), "VmRSS")
        time.sleep(max(0.0, start + (burst + 1) * BURST_INTERVAL_S - time.monotonic()))
    status = STATUS.read_text()
    end = resident_kib(status, "VmRSS")
    peak, growth = resident_kib(status, "VmHWM"), end - before_last_quarter
    return [peak, end, growth, sender.peak_kib(sender.senders())]


def measure(folder: Path, fast: bool) -> Answer:
    # Imported here, or the measurement would include what they import.
    import socket
    import subprocess
    from itertools import product

    from bench.harness import Answer, run_part, run_rounds, variables, verdict
    from bench.markdown import table, with_spread
    from bench.receiver import Addresses, running_receiver

    rounds, seconds = (1, FAST_RUN_S) if fast else (2, RUN_S)
    bare = subprocess.run(
        [sys.executable, "-c", f"print(open({str(STATUS)!r}).read())"],
        env=variables(),
        capture_output=True,
        text=True,
        check=True,
    )
    bare_kib = resident_kib(bare.stdout, "VmHWM")
    pairs = [(NOTHING, EXPORTING), *product((*OWN, RIVAL), (EXPORTING, OUTAGE))]
    keys = {f"{name}, {state}": (name, state) for name, state in pairs}

    def part(key: str) -> dict[str, float]:
        name, state = keys[key]
        target = addresses if state == EXPORTING else nobody
        peak, end, growth, apart = run_part(
            "bench.memory", name, seconds, addresses=target, quiet=True
        )
        kib = {
            "peak": peak - bare_kib,
            "at the end": end - bare_kib,
            "growth": growth,
            "sender process": apart,
        }
        return {field: value / 1024 for field, value in kib.items()}

    with running_receiver() as addresses, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # without listening, so connections are refused
        refused = f"127.0.0.1:{taken.getsockname()[1]}"
        nobody = Addresses(refused, refused)
        results = run_rounds([*keys], rounds, part)
    tables = table(
        ["MiB (rounds)", "", "peak", "at the end", "growth", "sender process, peak"],
        [
            [name, state, *(with_spread(values, digits=1) for values in results[key].values())]
            for key, (name, state) in keys.items()
        ],
    )
    verdicts = []
    for name, state in product(OWN, (EXPORTING, OUTAGE)):
        what = f"memory, {name.removeprefix('infertrace ')}, {state}"
        over = "over a bare interpreter"
        peaks, apart = (results[f"{name}, {state}"][key] for key in ("peak", "sender process"))
        both = [here + there for here, there in zip(peaks, apart, strict=True)]
        verdicts.append(verdict(what, peaks, "MiB", at_most=BUDGET_MIB, of=over))
        what += ", with all of the sender process"
        verdicts.append(verdict(what, both, "MiB", at_most=BUDGET_MIB, of=over))
    data = {"rounds": rounds, "run_s": seconds, "bare_mib": bare_kib / 1024, "mebibytes": results}
    return Answer(data, tables, verdicts)


if __name__ == "__main__":
    print(run(sys.argv[1], float(sys.argv[2])), flush=True)
    os._exit(0)  # a normal exit would wait for the absent collector
