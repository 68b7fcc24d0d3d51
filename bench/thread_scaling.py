"""How do spans per second and the tail of one span change with the threads that record?

The work: recorded spans (batch size and tokens set) on 1, 2, 4 and 8 threads at full speed
with the exporter active; first untimed one by one, for the rate of all threads together, then
each between two clock reads, for the tail. Where recording outruns exporting the buffer
fills: "delivered" is the share of all these spans that was not dropped.
"""

from __future__ import annotations

import json
import sys
import threading
from array import array
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, perf_counter_ns

from bench import contenders
from bench.contenders import Contender
from bench.harness import Answer, run_part, run_rounds
from bench.loops import loop_of
from bench.markdown import table, with_spread
from bench.receiver import running_receiver

THREADS = (1, 2, 4, 8)
CONTENDERS: dict[str, tuple[Callable[[], Contender], int]] = {
    # name: contender, number of spans of all threads in each part
    "infertrace native": (contenders.native, 400_000),
    "infertrace pure": (contenders.pure, 80_000),
    "OpenTelemetry SDK": (lambda: contenders.OpenTelemetry(sending=True), 8_000),
}
WARM_UP_SPANS = 1000
FAST_SHARE = 4


def run(name: str, threads: int, spans: int) -> dict[str, float]:
    """One run, in this process."""
    contender = CONTENDERS[name][0]()
    record = contenders.recorded(type(contender))
    plain = loop_of(record)
    timed = loop_of(
        f"before = now()\n{record}\ntaken.append(now() - before)",
        setup="taken = array('q')\nall_taken.append(taken)",
        array=array,
        now=perf_counter_ns,
        all_taken=(all_taken := []),
    )
    plain(contender.tracer, WARM_UP_SPANS)
    contender.settle()
    delivered = -contender.delivered()
    seconds = _on_threads(threads, lambda: plain(contender.tracer, spans // threads))
    _on_threads(threads, lambda: timed(contender.tracer, spans // threads))
    contender.flush()
    delivered += contender.delivered()
    recorded = spans // threads * threads
    ordered = sorted(value for taken in all_taken for value in taken)
    return {
        "spans per second": recorded / seconds,
        "p50, µs": ordered[len(ordered) // 2] / 1e3,
        "p99.9, µs": ordered[int(len(ordered) * 0.999)] / 1e3,
        "delivered, %": 100 * delivered / (2 * recorded),
    }


def _on_threads(count: int, work: Callable[[], object]) -> float:
    barrier = threading.Barrier(count + 1)

    def wait_and_work() -> None:
        barrier.wait()
        work()

    workers = [threading.Thread(target=wait_and_work) for _ in range(count)]
    for worker in workers:
        worker.start()
    barrier.wait()
    start = perf_counter()
    for worker in workers:
        worker.join()
    return perf_counter() - start


def measure(folder: Path, fast: bool) -> Answer:
    rounds = 1 if fast else 3
    runs = {f"{name}, {count}": (name, count) for name in CONTENDERS for count in THREADS}

    def part(key: str) -> dict[str, float]:
        name, threads = runs[key]
        spans = CONTENDERS[name][1] // (FAST_SHARE if fast else 1)
        results: dict[str, float] = run_part(
            "bench.thread_scaling", name, threads, spans, addresses=addresses
        )
        return results

    with running_receiver() as addresses:
        results = run_rounds([*runs], rounds, part)
    measures = [*next(iter(results.values()))]
    tables = table(
        ["", "threads", *(f"{measure} (rounds)" for measure in measures)],
        [
            [
                name,
                str(count),
                *(
                    with_spread(results[key][measure], digits=2 if "µs" in measure else 0)
                    for measure in measures
                ),
            ]
            for key, (name, count) in runs.items()
        ],
    )
    return Answer({"rounds": rounds, "runs": results}, tables)


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
