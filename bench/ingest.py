"""How many spans a second does one producer get into one collector, every one of them durable?

The work: spans recorded as fast as the collector takes them, over gRPC, into an empty store:
DuckDB, or a PostgreSQL server on this machine that syncs every commit. The clock stops when the
last one is acknowledged. A run in which one span is missing from the
collector's ledger fails. "Producer" is the traced process, "sender" its gRPC process; the
server of PostgreSQL is in no column. Reads /proc, so it needs Linux.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import contenders, sender
from bench.environment import REPOSITORY
from bench.harness import Answer, run_part, run_rounds, verdict
from bench.loops import Loop, loop_of
from bench.markdown import median_and_spread, table
from bench.receiver import Addresses

BUDGET_SPANS_PER_S = 500_000
SPANS, FAST_SPANS = 6_000_000, 200_000
WARM_UP_SPANS = 50_000
BURST = 8_192
MAX_PENDING = 60_000  # spans in the producer's buffer, of which none may be dropped
PAUSE_S = 0.001
BATCH_SPANS = 256

BLOCK = contenders.recorded(contenders.Infertrace)
BATCH = """tracer.record_batch(
    'gpt-4', start_ns=start, duration_ns=duration, batch_size=size, input_tokens=input,
    output_tokens=output
)"""
COLUMNS = f"""import numpy, time
start = numpy.full({BATCH_SPANS}, time.time_ns())
duration = numpy.full({BATCH_SPANS}, 41_000_000)
size, input = numpy.full({BATCH_SPANS}, 8), numpy.full({BATCH_SPANS}, 24)
output = numpy.full({BATCH_SPANS}, 100)"""
LOOP: Loop = loop_of(BLOCK)
BATCHES: Loop = loop_of(BATCH, setup=COLUMNS, head=f"for _ in range(count // {BATCH_SPANS}):")
OWN = "with blocks, DuckDB"
ROWS: dict[str, tuple[Loop, str, float]] = {  # loop, store, share of the spans
    OWN: (LOOP, "duckdb", 1.0),
    f"record_batch of {BATCH_SPANS}, DuckDB": (BATCHES, "duckdb", 1.0),
    "with blocks, PostgreSQL": (LOOP, "postgresql", 1 / 6),
}


def run(name: str, spans: int, http: str, collector: int) -> dict[str, float]:
    """One run, in this process, into a collector with that HTTP address and process id."""
    contender = contenders.native()
    tracer, loop = contender.tracer, ROWS[name][0]
    loop(tracer, WARM_UP_SPANS)
    contender.settle()
    ours, others = time.process_time(), sender.children()
    theirs, collectors = sender.cpu_s(others), sender.cpu_s([collector])
    start = time.perf_counter()
    recorded = 0
    while recorded < spans:
        loop(tracer, BURST)
        recorded += BURST
        while tracer.stats()["pending"] > MAX_PENDING:
            time.sleep(PAUSE_S)
    contender.settle()
    elapsed = time.perf_counter() - start
    millions = recorded / 1e6
    found = {
        "spans/s": recorded / elapsed,
        "producer": (time.process_time() - ours) / millions,
        "sender": (sender.cpu_s(others) - theirs) / millions,
        "collector": (sender.cpu_s([collector]) - collectors) / millions,
        "collector MiB": sender.peak_kib([collector]) / 1024,
    }
    tracer.shutdown(30)
    stats = tracer.stats()
    with urllib.request.urlopen(f"http://{http}/ledger") as answer:
        (account,) = json.load(answer)["producers"]
    if not account["complete"] or account["stored"] != stats["produced"]:
        raise RuntimeError(f"not every span is stored: {account}, {stats}")
    return found


def _measure_once(name: str, spans: int) -> dict[str, float]:
    _, store, share = ROWS[name]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        if store == "duckdb":
            url = f"duckdb:///{folder}/spans.duckdb"
        else:
            # The server that the tests start, here with its syncs.
            sys.path.append(str(REPOSITORY / "tests"))
            from postgresql_cluster import Cluster

            cluster = Cluster(fsync="on")
            stack.callback(cluster.close)
            url = cluster.new_database()
        return _run_against(url, name, int(spans * share))


def _run_against(url: str, name: str, spans: int) -> dict[str, float]:
    from infertrace.commands.collector_process import CollectorProcess

    collector = CollectorProcess("127.0.0.1:0", "127.0.0.1:0", url)
    if not collector.start():
        raise RuntimeError("the collector did not start")
    try:
        addresses = Addresses(collector.grpc, collector.http)
        arguments = (name, spans, collector.http, collector.pid)
        found: dict[str, float] = run_part("bench.ingest", *arguments, addresses=addresses)
        return found
    finally:
        collector.stop()


def measure(folder: Path, fast: bool) -> Answer:
    rounds, spans = (1, FAST_SPANS) if fast else (3, SPANS)
    found = run_rounds([*ROWS], rounds, lambda name: _measure_once(name, spans))
    cells = [("spans/s", 0), ("producer", 2), ("sender", 2), ("collector", 2)]
    tables = table(
        ["", "spans/s", "rounds"]
        + [cell for who, _ in cells[1:] for cell in (f"{who}, CPU-s per million", "rounds")]
        + ["collector, peak MiB"],
        [
            [
                name,
                *(cell for what, digits in cells for cell in _cell(found[name][what], digits)),
                _cell(found[name]["collector MiB"], 0)[0],
            ]
            for name in ROWS
        ],
    )
    measured = found[OWN]["spans/s"]
    verdicts = [verdict("durable spans a second", measured, "spans/s", at_least=BUDGET_SPANS_PER_S)]
    return Answer({"rounds": rounds, "spans": spans, "found": found}, tables, verdicts)


def _cell(values: list[float], digits: int) -> list[str]:
    return median_and_spread(values, digits=digits)


if __name__ == "__main__":
    arguments: list[Any] = sys.argv[1:]
    print(json.dumps(run(arguments[0], int(arguments[1]), arguments[2], int(arguments[3]))))
