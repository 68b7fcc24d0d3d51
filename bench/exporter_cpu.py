"""How much processor time does exporting a span take from the process that is traced?

The work: recorded spans (batch size and tokens set) in bursts that end when all of them are
delivered to a gRPC receiver in another process. "Exporter" is the processor time of its
thread; "all background" is that of every thread but the recording one, gRPC's included.
Connecting is not counted.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bench import contenders
from bench.contenders import Contender
from bench.harness import Answer, run_part, run_rounds, verdict
from bench.loops import loop_of
from bench.markdown import median_and_spread, table
from bench.receiver import running_receiver

NATIVE = "infertrace native"
BUDGET_US = 0.15
POLL_S = 0.0005
DELIVERY_TIMEOUT_S = 60
# The burst of infertrace fits into its buffer; OpenTelemetry's is its batch.
CONTENDERS: dict[str, tuple[Callable[[], Contender], int, int]] = {
    # name: contender, spans in a burst, bursts
    NATIVE: (contenders.native, 20_000, 25),
    "infertrace pure": (contenders.pure, 8_000, 12),
    "OpenTelemetry SDK": (lambda: contenders.OpenTelemetry(sending=True), 512, 40),
}
FAST_SHARE = 5


def run(name: str, bursts: int) -> dict[str, float]:
    """One run, in this process: microseconds of processor time per span."""
    make, burst, _ = CONTENDERS[name]
    contender = make()
    loop = loop_of(contenders.recorded(type(contender)))

    def record_and_wait() -> None:
        expected = contender.delivered() + burst
        loop(contender.tracer, burst)
        # Not a flush: OpenTelemetry's would export on this thread.
        deadline = time.monotonic() + DELIVERY_TIMEOUT_S
        while contender.delivered() < expected:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{contender.delivered()} of {expected} spans delivered")
            time.sleep(POLL_S)

    record_and_wait()
    (exporter,) = (
        thread
        for thread in threading.enumerate()
        if thread.name.startswith(("infertrace-exporter", "OtelBatchSpan"))
    )
    assert exporter.ident is not None
    clock = time.pthread_getcpuclockid(exporter.ident)

    def times() -> tuple[float, float]:
        return time.clock_gettime(clock), time.process_time() - time.thread_time()

    before = times()
    for _ in range(bursts):
        record_and_wait()
    own, background = (b - a for a, b in zip(before, times(), strict=True))
    spans = burst * bursts
    return {"exporter": own / spans * 1e6, "all background": background / spans * 1e6}


def measure(folder: Path, fast: bool) -> Answer:
    rounds = 1 if fast else 5
    bursts = {
        name: most // (FAST_SHARE if fast else 1) for name, (_, _, most) in CONTENDERS.items()
    }
    with running_receiver() as addresses:
        found = run_rounds(
            [*CONTENDERS],
            rounds,
            lambda name: run_part("bench.exporter_cpu", name, bursts[name], addresses=addresses),
        )
    tables = table(
        ["", "spans", "exporter, µs per span", "rounds", "all background, µs per span", "rounds"],
        [
            [
                name,
                f"{burst * bursts[name]:,}",
                *median_and_spread(found[name]["exporter"]),
                *median_and_spread(found[name]["all background"]),
            ]
            for name, (_, burst, _) in CONTENDERS.items()
        ],
    )
    verdicts = [
        verdict(
            "exporter's CPU per span, native", found[NATIVE]["exporter"], "µs", at_most=BUDGET_US
        )
    ]
    return Answer({"rounds": rounds, "microseconds": found}, tables, verdicts)


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], int(sys.argv[2]))))
