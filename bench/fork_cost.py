"""What does a tracer add to os.fork?

The work: a process with four threads that record a span (or do nothing) every half millisecond,
and a collector that takes connections and never answers, forks; the child leaves at once. Timed is
the call of os.fork in the parent, the median of each round; rounds alternate with the same process
without a tracer.
"""

from __future__ import annotations

import os
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bench import contenders
from bench.contenders import Contender
from bench.harness import Answer, differences, run_part, run_rounds, verdict
from bench.loops import loop_of
from bench.markdown import table, with_spread
from bench.receiver import Addresses

THREADS, SPAN_INTERVAL_S = 4, 0.0005
FORKS, FAST_FORKS = 200, 20
ROUNDS, FAST_ROUNDS = 5, 1
BUDGET_MS = 1.0
NOTHING = "no tracer"
CONTENDERS: dict[str, Callable[[], Contender]] = {
    NOTHING: Contender,
    "infertrace native": contenders.native,
    "infertrace pure": contenders.pure,
}


def run(name: str, forks: int) -> float:
    """Median milliseconds of one os.fork, in this process."""
    contender = CONTENDERS[name]()
    record = loop_of("pass" if name == NOTHING else contenders.recorded(type(contender)))
    done = threading.Event()

    def work() -> None:
        while not done.wait(SPAN_INTERVAL_S):
            record(contender.tracer, 1)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    times = []
    for _ in range(forks):
        time.sleep(0.002)
        before = time.perf_counter()
        child = os.fork()
        if not child:
            os._exit(0)
        times.append(time.perf_counter() - before)
        os.waitpid(child, 0)
    done.set()
    for thread in threads:
        thread.join()
    return statistics.median(times) * 1e3


def measure(folder: Path, fast: bool) -> Answer:
    rounds, forks = (FAST_ROUNDS, FAST_FORKS) if fast else (ROUNDS, FORKS)
    with socket.create_server(("127.0.0.1", 0)) as hung:
        address = f"127.0.0.1:{hung.getsockname()[1]}"
        addresses = Addresses(address, address)

        def part(name: str) -> dict[str, float]:
            value = run_part("bench.fork_cost", name, forks, addresses=addresses, quiet=True)
            return {"fork, ms": value}

        results = run_rounds([*CONTENDERS], rounds, part)
    times = {name: values["fork, ms"] for name, values in results.items()}
    tables = table(
        ["", "one os.fork, ms (rounds)"],
        [[name, with_spread(values, digits=2)] for name, values in times.items()],
    )
    verdicts = [
        verdict(
            f"added to os.fork, {name}",
            differences(values, times[NOTHING]),
            "ms",
            at_most=BUDGET_MS,
        )
        for name, values in times.items()
        if name != NOTHING
    ]
    return Answer({"rounds": rounds, "forks": forks, "milliseconds": times}, tables, verdicts)


if __name__ == "__main__":
    print(run(sys.argv[1], int(sys.argv[2])), flush=True)
    os._exit(0)  # a normal exit would wait for the hanging collector
