"""How a question is measured: in its own processes, in rounds, beside its rivals.

A round measures every row once, so that what else the machine does meets them alike. A
ratio is taken within a round; what counts is the median over the rounds. A burst during which
the machine was slower than it can be is repeated (`full_speed.py`).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyperf
from bench import full_speed
from bench.contenders import Contender
from bench.environment import REPOSITORY
from bench.loops import Loop
from bench.receiver import Addresses

SPANS_PER_BURST = 1000  # fits into OpenTelemetry's default queue of 2048 spans
BURSTS_PER_VALUE = 10
# pyperf stores no value that is not positive; noise can make a difference negative.
SMALLEST_DIFFERENCE_S = 1e-10

# The caller's own tracing settings would change the measurement, and without written bytecode
# every process would compile what it imports.
UNWANTED_VARIABLES = ("INFERTRACE_", "OTEL_", "DD_", "PYTHONDONTWRITEBYTECODE")


@dataclass(frozen=True)
class Row:
    """One line of a table: what is timed, and what it is.

    With a baseline, the value is what `loop` takes longer than `baseline`: bursts of both
    alternate in one process, and the median of their differences counts.
    """

    name: str
    work: str
    contender: Callable[[], Contender]
    loop: Loop
    baseline: Loop | None = None
    burst: int = SPANS_PER_BURST
    bursts: int = BURSTS_PER_VALUE


@dataclass(frozen=True)
class Answer:
    """The answer to a question: as data, as Markdown, and which budgets hold."""

    data: dict[str, Any]
    tables: str
    verdicts: list[dict[str, Any]] = field(default_factory=list)


def time_rows(module: str, rows: Sequence[Row]) -> None:
    """The pyperf script that a question runs as: one process for each row.

    Between two bursts, untimed, everything recorded is delivered, so that no buffer fills
    and no span is dropped: a row that loses one fails.
    """
    runner = pyperf.Runner(processes=1, values=10, warmups=2, loops=1, program_args=("-m", module))
    for row in rows:
        runner.bench_time_func(row.name, _timed(row), inner_loops=row.burst * row.bursts)


def _timed(row: Row) -> Callable[[int], float]:
    contender: Contender | None = None

    def time(loops: int) -> float:
        nonlocal contender
        if contender is None:  # only in the process that runs this row
            contender = row.contender()
        bursts = [_burst(row, contender) for _ in range(loops * row.bursts)]
        if row.baseline is None:
            return sum(bursts)
        difference = max(statistics.median(bursts), row.burst * SMALLEST_DIFFERENCE_S)
        return difference * len(bursts)

    return time


def _burst(row: Row, contender: Contender) -> float:
    seconds = _at_full_speed(row.loop, row, contender)
    if row.baseline is not None:
        seconds -= _at_full_speed(row.baseline, row, contender)
    return seconds


def _at_full_speed(loop: Loop, row: Row, contender: Contender) -> float:
    return full_speed.timed(lambda: loop(contender.tracer, row.burst), contender.settle)


def measure_rows(
    module: str,
    rows: Sequence[Row],
    folder: Path,
    *,
    rounds: int,
    values: int,
    addresses: Addresses,
) -> dict[str, list[float]]:
    """Seconds for each repetition, by row: the median of each round.

    Every single value goes to a file of pyperf's in `folder`.
    """
    suites = [_run_round(module, folder, values, addresses) for _ in range(rounds)]
    medians = {
        row.name: [suite.get_benchmark(row.name).median() for suite in suites] for row in rows
    }
    first, *others = suites
    for suite in others:
        for benchmark in suite.get_benchmarks():
            first.get_benchmark(benchmark.get_name()).add_runs(benchmark)
    first.dump(str(folder / f"{module.rpartition('.')[2]}.pyperf.json"), replace=True)
    return medians


def _run_round(
    module: str, folder: Path, values: int, addresses: Addresses
) -> pyperf.BenchmarkSuite:
    output = folder / "round.json"
    output.unlink(missing_ok=True)
    options = ["--copy-env", "--quiet", "--values", str(values), "--output", str(output)]
    with _sender_of_its_own() as where:
        subprocess.run(
            [sys.executable, "-m", module, *options],
            cwd=REPOSITORY,
            env=variables(addresses) | where | full_speed.variables(),
            stdout=subprocess.DEVNULL,
            check=True,
        )
    suite = pyperf.BenchmarkSuite.load(str(output))
    output.unlink()
    return suite


def run_part(module: str, *arguments: object, addresses: Addresses, quiet: bool = False) -> Any:
    """The JSON that the module prints when run in its own process.

    Quiet where its tracers are expected to complain.
    """
    with _sender_of_its_own() as where:
        done = subprocess.run(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=REPOSITORY,
            env=variables(addresses) | where,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if quiet else None,
            check=True,
        )
    return json.loads(done.stdout)


@contextmanager
def _sender_of_its_own() -> Iterator[dict[str, str]]:
    """Variables of a measuring process whose sender has served nobody before."""
    with tempfile.TemporaryDirectory(prefix="it-") as directory:  # short: the path of a socket
        yield {"XDG_RUNTIME_DIR": directory}


def run_rounds(
    names: Sequence[str], rounds: int, part: Callable[[str], dict[str, float]]
) -> dict[str, dict[str, list[float]]]:
    """The measurements of `part` for each name: measure → one value per round.

    Every other round goes backwards, or the first would always be first.
    """
    results: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    for turn in range(rounds):
        for name in names if turn % 2 == 0 else reversed(names):
            for measure, value in part(name).items():
                results[name].setdefault(measure, []).append(value)
    return results


def variables(addresses: Addresses | None = None) -> dict[str, str]:
    """The environment of a measuring process: the receiver's addresses, no other settings."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(UNWANTED_VARIABLES)}
    if addresses is None:
        return inherited
    return {
        **inherited,
        "INFERTRACE_ENDPOINT": addresses.grpc,
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{addresses.grpc}",
        "DD_TRACE_AGENT_URL": f"http://{addresses.http}",
        "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
        "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    }


def ratios(numerators: Iterable[float], denominators: Iterable[float]) -> list[float]:
    """Round by round."""
    return [a / b for a, b in zip(numerators, denominators, strict=True)]


def differences(ones: Iterable[float], others: Iterable[float]) -> list[float]:
    """Round by round."""
    return [a - b for a, b in zip(ones, others, strict=True)]


def verdict(
    what: str,
    measured: list[float],
    unit: str,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
    of: str = "",
) -> dict[str, Any]:
    """Whether the median of the rounds keeps a budget, and how much room it leaves.

    The room is a share of the budget, negative where it is missed.
    """
    median = statistics.median(measured)
    limit = at_most if at_most is not None else at_least
    assert limit is not None
    room = (limit - median if at_most is not None else median - limit) / (limit or 1)
    return {
        "what": what,
        "budget": f"at {'most' if at_most is not None else 'least'} {limit:g} {unit} {of}".rstrip(),
        "measured": median,
        "unit": unit,
        "rounds": measured,
        "room": room,
        "holds": room >= 0,
    }
