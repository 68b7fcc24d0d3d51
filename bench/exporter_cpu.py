"""How much processor time does exporting a span take?

The work: recorded spans (batch size and tokens set) in bursts, each as soon as the one before
the last is delivered to a gRPC receiver in another process, until all of them are. "Traced
process" is the processor time of all its threads but the recording one, and "sender process"
that of infertrace's own. Connecting is not counted.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench import contenders, sender
from bench.contenders import Contender
from bench.harness import Answer, ratios, run_part, run_rounds, verdict
from bench.loops import loop_of
from bench.markdown import table, with_spread
from bench.receiver import running_receiver

NATIVE = "infertrace native"
NATIVE_OTLP = "infertrace native, OTLP"
RIVAL = "OpenTelemetry SDK"
BUDGET_US = 0.15
LEAST_RATIO = 40
POLL_S = 0.0005
DELIVERY_TIMEOUT_S = 60
# Two bursts of infertrace fit into its buffer; OpenTelemetry's is its batch.
CONTENDERS: dict[str, tuple[Callable[[], Contender], int, int]] = {
    # name: contender, spans in a burst, bursts
    NATIVE: (contenders.native, 20_000, 25),
    NATIVE_OTLP: (lambda: contenders.Infertrace("native", protocol="otlp/grpc"), 20_000, 25),
    "infertrace pure": (contenders.pure, 4_000, 25),
    RIVAL: (lambda: contenders.OpenTelemetry(sending=True), 512, 40),
}
FAST_SHARE = 5
KEYS = "traced process", "sender process", "both"


def run(name: str, bursts: int) -> dict[str, float]:
    """One run, in this process: microseconds of processor time per span."""
    make, burst, _ = CONTENDERS[name]
    contender = make()
    loop = loop_of(contenders.recorded(type(contender)))

    def wait_for(expected: int) -> None:
        # Not a flush: OpenTelemetry's would export on this thread.
        deadline = time.monotonic() + DELIVERY_TIMEOUT_S
        while contender.delivered() < expected:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{contender.delivered()} of {expected} spans delivered")
            time.sleep(POLL_S)

    loop(contender.tracer, burst)
    wait_for(burst)
    senders = sender.senders()

    def times() -> tuple[float, float]:
        return time.process_time() - time.thread_time(), sender.cpu_s(senders)

    before = times()
    for number in range(1, bursts + 1):
        loop(contender.tracer, burst)
        wait_for(number * burst)  # counting the first burst, one less than recorded so far
    wait_for((bursts + 1) * burst)
    here, there = ((b - a) / (burst * bursts) * 1e6 for a, b in zip(before, times(), strict=True))
    return {"traced process": here, "sender process": there, "both": here + there}


def measure(folder: Path, fast: bool) -> Answer:
    rounds = 1 if fast else 5
    bursts = {
        name: most // (FAST_SHARE if fast else 1) for name, (_, _, most) in CONTENDERS.items()
    }
    with running_receiver() as addresses:
        results = run_rounds(
            [*CONTENDERS],
            rounds,
            lambda name: run_part("bench.exporter_cpu", name, bursts[name], addresses=addresses),
        )
    tables = table(
        ["µs per span (rounds)", "spans", *KEYS],
        [
            [
                name,
                f"{burst * bursts[name]:,}",
                *(with_spread(results[name][key], digits=2) for key in KEYS),
            ]
            for name, (_, burst, _) in CONTENDERS.items()
        ],
    )
    verdicts = [
        verdict(f"exporter's CPU per span, native, {where}", values, "µs", at_most=BUDGET_US)
        for where, values in results[NATIVE].items()
        if where != "sender process"
    ]
    verdicts.append(
        verdict(
            "exporting by OTLP, OpenTelemetry's SDK over infertrace native",
            ratios(results[RIVAL]["both"], results[NATIVE_OTLP]["both"]),
            "times",
            at_least=LEAST_RATIO,
        )
    )
    return Answer({"rounds": rounds, "microseconds": results}, tables, verdicts)


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], int(sys.argv[2]))))
