"""What does an agent take beside 32 traced processes, idle ones and ones that record?

The work: `infertrace agent` runs in a process of its own, and 32 traced processes send through it.
Idle processes have recorded one span each; busy ones record 10,000 spans a second in all. The
agent's processor time is measured over ten seconds, as a share of one core, and its memory as its
proportional share (PSS). "All" is the memory of the agent and the 32 processes, less that of as
many interpreters that do nothing. "Lost" spans are those that the 32 made and nobody acknowledged.
The package is a copy of its files, as a wheel installs them. Reads /proc, so it needs Linux.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.harness import Answer
    from bench.sender_budgets import Processes

WORKERS, FAST_WORKERS = 32, 4
SPANS_PER_S = 10_000
BURST_INTERVAL_S = 0.02
STEADY_S = 3.0  # from a worker's start until it is measured
MEASURED_S, FAST_MEASURED_S = 10.0, 1.0
ROUNDS, FAST_ROUNDS = 3, 1
AGENT_MIB, WORKER_MIB, CORE_PERCENT = 50.0, 10.0, 1.0
AGENT, ALL, CORE, LOST = "agent, MiB", "all, MiB", "agent, % of a core", "lost"
IDLE, BUSY = "idle", f"{SPANS_PER_S:,} spans/s"


def work(agent: str, spans_per_s: float) -> None:
    """A traced process; says when it has begun, and at its end what it made and what arrived."""
    import select

    import infertrace

    tracer = infertrace.Tracer(service_name="bench", agent=agent)
    tracer.start_span("gpt-4").end()
    tracer.flush(60)
    print("begun", flush=True)
    start, made = time.monotonic(), 0
    while not select.select([sys.stdin], [], [], BURST_INTERVAL_S if spans_per_s else None)[0]:
        for _ in range(int((time.monotonic() - start) * spans_per_s) - made):
            made += 1
            with tracer.start_span("gpt-4") as span:
                span.set_batch_size(8)
                span.set_tokens(input=24, output=100)
    tracer.flush(60)
    stats = tracer.stats()
    print(json.dumps([stats["produced"], stats["delivered"]]), flush=True)


@contextmanager
def running_agent(processes: Processes, folder: Path) -> Iterator[tuple[str, int]]:
    """Its address and its process id."""
    url = f"unix://{folder / 'agent.sock'}"
    agent = processes.start("-m", "infertrace", "agent", "--socket", url)
    try:
        assert agent.stdout is not None
        if "listening" not in agent.stdout.readline():
            raise RuntimeError("the agent did not start")
        yield url, agent.pid
    finally:
        agent.terminate()
        agent.communicate()


def load(
    processes: Processes, folder: Path, workers: int, spans_per_s: float, seconds: float
) -> dict[str, float]:
    from bench.sender import cpu_s
    from bench.sender_budgets import pss_mib

    with ExitStack() as stack:
        url, pid = stack.enter_context(running_agent(processes, folder))
        bare = _started(processes, stack, "-c", "print(flush=True); input()")
        each = spans_per_s / workers
        started = [_started(processes, stack, __file__, url, each) for _ in range(workers)]
        time.sleep(STEADY_S)
        before_s = cpu_s([pid])
        time.sleep(seconds)
        used_s = cpu_s([pid]) - before_s
        agent_mib = pss_mib(pid)
        workers_mib = sum(pss_mib(worker.pid) for worker in started)
        found = {
            AGENT: agent_mib,
            ALL: agent_mib + workers_mib - workers * pss_mib(bare.pid),
            CORE: 100 * used_s / seconds,
        }
        ends = [worker.communicate("\n")[0] for worker in started]
    made, arrived = (sum(column) for column in zip(*map(json.loads, ends), strict=True))
    return {**found, LOST: float(made - arrived)}


def _started(processes: Processes, stack: ExitStack, *arguments: object) -> subprocess.Popen[str]:
    """A process that has said its first line; killed at the end if it goes on."""
    process = stack.enter_context(processes.start(*arguments))
    stack.callback(process.kill)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def measure(folder: Path, fast: bool) -> Answer:
    from bench.harness import Answer, run_rounds, verdict
    from bench.import_cost import install
    from bench.markdown import table, with_spread
    from bench.receiver import running_receiver
    from bench.sender_budgets import BACKENDS, Processes

    workers, seconds, rounds = (
        (FAST_WORKERS, FAST_MEASURED_S, FAST_ROUNDS) if fast else (WORKERS, MEASURED_S, ROUNDS)
    )
    rates = {IDLE: 0, BUSY: SPANS_PER_S}
    names = {f"infertrace {backend}, {of}": (backend, of) for backend in BACKENDS for of in rates}
    with tempfile.TemporaryDirectory() as name, running_receiver() as addresses:
        installed = Path(name)
        install(installed)

        def part(row: str) -> dict[str, float]:
            backend, of = names[row]
            with tempfile.TemporaryDirectory(prefix="it-") as directory:
                processes = Processes(installed, backend, addresses.grpc, Path(directory))
                return load(processes, Path(directory), workers, rates[of], seconds)

        results = run_rounds([*names], rounds, part)
    keys = (AGENT, ALL, CORE, LOST)
    tables = table(
        ["", *keys],
        [
            [row, *(with_spread(results[row][key], digits=1 + (key == CORE)) for key in keys)]
            for row in names
        ],
    )
    budgets = (
        (AGENT, "memory of an agent", "MiB", AGENT_MIB),
        (
            ALL,
            f"memory of an agent and {workers} traced processes",
            "MiB",
            AGENT_MIB + workers * WORKER_MIB,
        ),
        (CORE, "processor time of an agent", "% of a core", CORE_PERCENT),
        (LOST, "spans lost beside an agent", "spans", 0.0),
    )
    verdicts = [
        verdict(f"{what}, {row.removeprefix('infertrace ')}", results[row][key], unit, at_most=most)
        for key, what, unit, most in budgets
        for row in names
    ]
    return Answer({"rounds": rounds, "workers": workers, "results": results}, tables, verdicts)


if __name__ == "__main__":
    work(sys.argv[1], float(sys.argv[2]))
