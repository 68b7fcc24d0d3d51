"""How many spans a second does one producer get into one collector, every one of them durable?

The work: spans recorded as fast as the collector takes them, over gRPC, into an empty store:
DuckDB, or a PostgreSQL server on this machine that syncs every commit, with native partitions and,
where it is installed, with TimescaleDB. The clock stops when the last one is acknowledged. A run
in which one span is missing from the collector's ledger fails. "Producer" is the traced process,
"sender" its gRPC process; the server of PostgreSQL is in no column. Reads /proc, so it needs Linux.

The rivals: spans of the same content, recorded by the OpenTelemetry SDK as fast as they go,
through its batch processor and its OTLP exporter over gRPC, none dropped; the clock stops when the
last one is acknowledged. They go to a process that acknowledges and keeps nothing (as do those of
infertrace in the row above), and to receivers that others make: rotel, here without a place to
send them on to, the OpenTelemetry Collector, writing a file, and Arize Phoenix, on its SQLite.
What these have stored when they acknowledge is a matter of `otlp_ingest`.
"""

from __future__ import annotations

import functools
import json
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import contenders, rival_receivers, sender
from bench.environment import REPOSITORY
from bench.harness import Answer, run_part, run_rounds, verdict
from bench.loops import Loop, loop_of
from bench.markdown import median_and_spread, table
from bench.receiver import Addresses, running_receiver

BUDGET_SPANS_PER_S = 500_000
SPANS, FAST_SPANS = 6_000_000, 200_000
WARM_UP_SPANS = 50_000
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
OWN = "with blocks, DuckDB"


@dataclass(frozen=True)
class Row:
    """A producer and a receiver; `share` is the share of the spans that this row records."""

    contender: Callable[[], contenders.Contender]
    loop: Loop
    receiver: str
    share: float = 1.0
    burst: int = 8_192
    max_pending: int = 60_000  # spans in the producer's buffer, which must drop none


LOOP: Loop = loop_of(BLOCK)
BATCHES: Loop = loop_of(BATCH, setup=COLUMNS, head=f"for _ in range(count // {BATCH_SPANS}):")


def _opentelemetry(receiver: str, share: float = 1 / 60) -> Row:
    # Its queue holds 2,048 spans by default, and drops any beyond that.
    loop = loop_of(contenders.recorded(contenders.OpenTelemetry))
    contender = functools.partial(contenders.OpenTelemetry, sending=True)
    return Row(contender, loop, receiver, share, burst=1_000, max_pending=1_000)


ROWS = {
    OWN: Row(contenders.native, LOOP, "duckdb"),
    f"record_batch of {BATCH_SPANS}, DuckDB": Row(contenders.native, BATCHES, "duckdb"),
    "with blocks, PostgreSQL": Row(contenders.native, LOOP, "postgresql", 1 / 6),
    "with blocks, TimescaleDB": Row(contenders.native, LOOP, "timescaledb", 1 / 6),
    "with blocks, nothing kept": Row(contenders.native, LOOP, "nothing kept"),
    "OpenTelemetry SDK, nothing kept": _opentelemetry("nothing kept"),
    "OpenTelemetry SDK, rotel": _opentelemetry("rotel"),
    "OpenTelemetry SDK, OpenTelemetry Collector": _opentelemetry("otelcol"),
    "OpenTelemetry SDK, Arize Phoenix": _opentelemetry("phoenix", 1 / 600),
}
STORES = ("duckdb", "postgresql", "timescaledb")


def run(name: str, spans: int, http: str, receiver: int) -> dict[str, float]:
    """One run, in this process, into a receiver with that HTTP address and process id."""
    row = ROWS[name]
    contender = row.contender()
    recorded = 0

    def record(count: int) -> None:
        nonlocal recorded
        end = recorded + count
        while recorded < end:
            row.loop(contender.tracer, row.burst)
            recorded += row.burst
            while recorded - contender.delivered() > row.max_pending:
                time.sleep(PAUSE_S)
        contender.settle()

    record(int(WARM_UP_SPANS * row.share))
    ours, others = time.process_time(), sender.senders()
    theirs, receivers = sender.cpu_s(others), sender.cpu_s([receiver])
    start, before = time.perf_counter(), recorded
    record(spans)
    elapsed = time.perf_counter() - start
    millions = (recorded - before) / 1e6
    results = {
        "spans/s": millions * 1e6 / elapsed,
        "producer": (time.process_time() - ours) / millions,
        "sender": (sender.cpu_s(others) - theirs) / millions,
        "receiver": (sender.cpu_s([receiver]) - receivers) / millions,
        "receiver MiB": sender.peak_kib([receiver]) / 1024,
    }
    if contender.delivered() != recorded:
        raise RuntimeError(f"{recorded} were recorded, {contender.delivered()} acknowledged")
    if row.receiver in STORES:
        contender.tracer.shutdown(30)
        with urllib.request.urlopen(f"http://{http}/ledger") as answer:
            (account,) = json.load(answer)["producers"]
        if not account["complete"] or account["stored"] != recorded:
            raise RuntimeError(f"not every span is stored: {account}, {recorded} were recorded")
    return results


def _measure_once(name: str, spans: int) -> dict[str, float]:
    row = ROWS[name]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        addresses, receiver = stack.enter_context(_receiving(row.receiver, Path(folder)))
        arguments = (name, int(spans * row.share), addresses.http, receiver)
        results: dict[str, float] = run_part("bench.ingest", *arguments, addresses=addresses)
        return results


@contextmanager
def _receiving(receiver: str, folder: Path) -> Iterator[tuple[Addresses, int]]:
    """Its addresses and its process id."""
    if receiver in rival_receivers.NAMES:
        with rival_receivers.running_rival(receiver, folder) as rival:
            yield Addresses(rival.grpc, ""), rival.pid
    elif receiver == "nothing kept":
        others = sender.children()
        with running_receiver() as addresses:
            (pid,) = set(sender.children()) - set(others)
            yield addresses, pid
    else:
        with _store(receiver, folder) as url, _collector(url) as collector:
            yield Addresses(collector.grpc, collector.http), collector.pid


@contextmanager
def _store(kind: str, folder: Path) -> Iterator[str]:
    if kind == "duckdb":
        yield f"duckdb:///{folder}/spans.duckdb"
        return
    cluster = _postgresql_cluster().Cluster(kind, fsync="on")
    try:
        yield cluster.new_database()
    finally:
        cluster.close()


@contextmanager
def _collector(url: str) -> Iterator[Any]:
    from infertrace.commands.collector_process import CollectorProcess

    collector = CollectorProcess("127.0.0.1:0", "127.0.0.1:0", url)
    if not collector.start():
        raise RuntimeError("the collector did not start")
    try:
        yield collector
    finally:
        collector.stop()


def _postgresql_cluster() -> Any:
    """The server that the tests start, but one that syncs every commit."""
    sys.path.append(str(REPOSITORY / "tests"))
    import postgresql_cluster

    return postgresql_cluster


def _missing() -> dict[str, str]:
    """The rows whose receiver is not available here, and why."""
    reasons = rival_receivers.missing()
    if "timescaledb" not in _postgresql_cluster().kinds():
        reasons["timescaledb"] = "the PostgreSQL here has no such extension"
    return {name: reasons[row.receiver] for name, row in ROWS.items() if row.receiver in reasons}


def measure(folder: Path, fast: bool) -> Answer:
    rounds, spans = (1, FAST_SPANS) if fast else (3, SPANS)
    missing = _missing()
    rows = [name for name in ROWS if name not in missing]
    results = run_rounds(rows, rounds, lambda name: _measure_once(name, spans))
    cells = [("spans/s", 0), ("producer", 2), ("sender", 2), ("receiver", 2)]
    tables = table(
        ["", "spans/s", "rounds"]
        + [cell for who, _ in cells[1:] for cell in (f"{who}, CPU-s per million", "rounds")]
        + ["receiver, peak MiB"],
        [
            [
                name,
                *(cell for what, digits in cells for cell in _cell(results[name][what], digits)),
                _cell(results[name]["receiver MiB"], 0)[0],
            ]
            for name in rows
        ],
    )
    for name, reason in missing.items():
        tables += f"\nNot installed, so not measured: {name} ({reason}).\n"
    measured = results[OWN]["spans/s"]
    verdicts = [verdict("durable spans a second", measured, "spans/s", at_least=BUDGET_SPANS_PER_S)]
    data = {"rounds": rounds, "spans": spans, "found": results, "missing": missing}
    return Answer(data, tables, verdicts)


def _cell(values: list[float], digits: int) -> list[str]:
    return median_and_spread(values, digits=digits)


if __name__ == "__main__":
    arguments: list[Any] = sys.argv[1:]
    print(json.dumps(run(arguments[0], int(arguments[1]), arguments[2], int(arguments[3]))))
