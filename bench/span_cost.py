"""What does one recorded span cost the thread that records it?

Each workload runs in a process of its own, all of them once per round, so that what else the
machine does meets them alike. Ratios are taken within a round; what counts is their median.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyperf
from bench import floor_extension, span_workloads
from bench.environment import REPOSITORY
from bench.markdown import table
from bench.receiver import running_receiver

FLOOR, SDK, NO_OP = "floor", "OpenTelemetry SDK", "OpenTelemetry no-op"


@dataclass(frozen=True)
class Budget:
    """How a row must compare with another of the same run."""

    row: str
    other: str
    at_most: float | None = None  # times the other
    at_least: float | None = None  # times less than the other

    @property
    def limit(self) -> str:
        if self.at_most is not None:
            return f"at most {self.at_most:g} x {self.other}"
        return f"at least {self.at_least:g} x less than {self.other}"

    def ratios(self, seconds: dict[str, list[float]]) -> list[float]:
        pairs = zip(seconds[self.row], seconds[self.other], strict=True)
        return [own / other if self.at_most is not None else other / own for own, other in pairs]

    def holds(self, ratio: float) -> bool:
        return ratio <= self.at_most if self.at_most is not None else ratio >= self.at_least


BUDGETS = (
    Budget("infertrace native", FLOOR, at_most=1.3),
    Budget("infertrace native", SDK, at_least=60),
    Budget("infertrace native", NO_OP, at_least=9),
    Budget("infertrace pure", SDK, at_least=12),
    Budget("infertrace off", FLOOR, at_most=0.8),
    Budget("infertrace unsampled", FLOOR, at_most=0.8),
)


def measure(folder: Path, fast: bool) -> tuple[dict[str, Any], str]:
    """The answer as data and as Markdown; leaves what pyperf measured in `folder`."""
    floor_extension.build()
    rounds, values = (2, 3) if fast else (5, 10)
    with running_receiver() as address:
        suites = [_run_round(folder, address, values) for _ in range(rounds)]
    _keep_all_runs(suites, folder / "span_cost.pyperf.json")
    seconds = {
        row.name: [suite.get_benchmark(row.name).median() for suite in suites]
        for row in span_workloads.ROWS
    }
    rows = {row.name: {"work": row.work, **_row(row.name, seconds)} for row in span_workloads.ROWS}
    budgets = [_verdict(budget, seconds) for budget in BUDGETS]
    answer = {"rounds": rounds, "values_per_round": values, "rows": rows, "budgets": budgets}
    return answer, _markdown(answer)


def _run_round(folder: Path, address: str, values: int) -> pyperf.BenchmarkSuite:
    output = folder / "round.json"
    output.unlink(missing_ok=True)
    # Settings of the caller's own tracing would change what is measured.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("INFERTRACE_", "OTEL_"))
    }
    options = ["--copy-env", "--quiet", "--values", str(values), "--output", str(output)]
    subprocess.run(
        [sys.executable, "-m", span_workloads.MODULE, *options],
        cwd=REPOSITORY,
        env={**environment, "INFERTRACE_ENDPOINT": address},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    suite = pyperf.BenchmarkSuite.load(str(output))
    output.unlink()
    return suite


def _keep_all_runs(suites: list[pyperf.BenchmarkSuite], path: Path) -> None:
    first, *others = suites
    for suite in others:
        for benchmark in suite.get_benchmarks():
            first.get_benchmark(benchmark.get_name()).add_runs(benchmark)
    first.dump(str(path), replace=True)


def _row(name: str, seconds: dict[str, list[float]]) -> dict[str, Any]:
    own = seconds[name]
    return {
        "seconds_per_span": statistics.median(own),
        "seconds_of_each_round": own,
        "times_floor": _median_ratio(own, seconds[FLOOR]),
        "times_less_than_sdk": _median_ratio(seconds[SDK], own),
        "times_less_than_no_op": _median_ratio(seconds[NO_OP], own),
    }


def _median_ratio(numerators: list[float], denominators: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def _verdict(budget: Budget, seconds: dict[str, list[float]]) -> dict[str, Any]:
    ratios = budget.ratios(seconds)
    ratio = statistics.median(ratios)
    return {
        "row": budget.row,
        "limit": budget.limit,
        "ratio": ratio,
        "ratio_of_each_round": ratios,
        "holds": budget.holds(ratio),
    }


def _markdown(answer: dict[str, Any]) -> str:
    rows = table(
        ["", "work", "µs per span", "rounds, µs", "x floor", "SDK ÷ it", "no-op ÷ it"],
        [
            [
                name,
                row["work"],
                f"{row['seconds_per_span'] * 1e6:.3f}",
                _span_of(row["seconds_of_each_round"], 1e6),
                f"{row['times_floor']:.2f}",
                f"{row['times_less_than_sdk']:.2f}",
                f"{row['times_less_than_no_op']:.2f}",
            ]
            for name, row in answer["rows"].items()
        ],
    )
    budgets = table(
        ["", "budget", "measured", "rounds", ""],
        [
            [
                budget["row"],
                budget["limit"],
                f"{budget['ratio']:.2f} x",
                _span_of(budget["ratio_of_each_round"]),
                "hold" if budget["holds"] else "**miss**",
            ]
            for budget in answer["budgets"]
        ],
    )
    title = (__doc__ or "").splitlines()[0]
    return (
        f"## {title}\n\n{rows}\nMedians of {answer['rounds']} interleaved rounds of "
        f"{answer['values_per_round']} values; a run that loses a span fails.\n\n{budgets}"
    )


def _span_of(values: list[float], scale: float = 1.0) -> str:
    return f"{min(values) * scale:.3f} to {max(values) * scale:.3f}"
