"""How long does the writer stop a reader?

One million spans are stored. In each round, a reader asks for one trace after the other over a
connection that stays open, while a producer in another process records 300,000 spans a second: once
into this collector, once into another one beside it, which takes as much of the machine, but shares
nothing with the reader. What the longest answer takes longer in the first is the writer's doing.
"""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path

from bench.harness import Answer, differences, run_rounds, verdict
from bench.markdown import table, with_spread
from bench.query import Ask, asking, collecting, fill, producing

SPANS, FAST_SPANS = 1_000_000, 100_000
SPANS_PER_S = 300_000
ROUND_S, FAST_ROUND_S = 10.0, 1.0
ROUNDS = 7
BUDGET_MS = 50
HERE, ELSEWHERE = "into this collector", "into another one"


def ask_for(seconds: float, ask: Ask, traces: list[str]) -> dict[str, float]:
    """How long the answers took, in milliseconds."""
    draw = random.Random(20261123)
    taken = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        ask(f"/traces/{draw.choice(traces)}")
        taken.append((time.perf_counter() - start) * 1e3)
    taken.sort()
    return {
        "p50": taken[len(taken) // 2],
        "p99": taken[int(len(taken) * 0.99)],
        "longest": taken[-1],
    }


def measure(folder: Path, fast: bool) -> Answer:
    spans, seconds, rounds = (FAST_SPANS, FAST_ROUND_S, 1) if fast else (SPANS, ROUND_S, ROUNDS)
    rates: list[float] = []
    with tempfile.TemporaryDirectory() as where:
        path = Path(where) / "spans.duckdb"
        traces = fill(path, spans)
        with collecting(path) as here, collecting(Path(where) / "other.duckdb") as elsewhere:
            ask = asking(here.http)
            ask_for(FAST_ROUND_S, ask, traces)  # warm-up: the first answers are always slow

            def part(name: str) -> dict[str, float]:
                with producing(here if name == HERE else elsewhere, SPANS_PER_S, rates):
                    return ask_for(seconds, ask, traces)

            results = run_rounds([HERE, ELSEWHERE], rounds, part)
    tables = table(
        ["300,000 spans/s", *(f"{which}, ms" for which in results[HERE])],
        [
            [name, *(with_spread(values, digits=1) for values in results[name].values())]
            for name in results
        ],
    )
    tables += f"\nThe producer delivered {min(rates):,.0f} to {max(rates):,.0f} spans a second.\n"
    longer = differences(results[HERE]["longest"], results[ELSEWHERE]["longest"])
    return Answer(
        {"spans": spans, "ms": results, "spans_per_s": rates},
        tables,
        [verdict("what the longest answer takes longer", longer, "ms", at_most=BUDGET_MS)],
    )
