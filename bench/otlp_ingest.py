"""How many spans a second of OTLP does one sender get into a collector, each of them durable?

The work: spans of four attributes, 8,192 to a request, encoded beforehand by the protobuf runtime,
with new ids in each request; one process sends them from four threads, into an empty store of
DuckDB. The clock stops when the last one is acknowledged. A run in which the collector's account
lacks one span fails. Beside it, the OpenTelemetry Collector writes the same to a file, as protobuf.
"Receiver" is its processor time until then, and until it has nothing left to do: infertrace
acknowledges what is in its journal, and DuckDB follows. Reads /proc, so it needs Linux.

The second table: spans that the OpenTelemetry SDK records as fast as they go, through its batch
processor and its OTLP exporter over gRPC, none dropped, and what the receiver has of them when the
last is acknowledged, and when it has nothing left to do.
"""

from __future__ import annotations

import json
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench import contenders, rival_receivers, sender
from bench.harness import Answer, ratios, run_part, run_rounds, verdict
from bench.loops import loop_of
from bench.markdown import median_and_spread, table
from bench.otlp_load import PROTOCOLS
from bench.receiver import Addresses

OWN, COLLECTOR, PHOENIX = "infertrace, DuckDB", "OpenTelemetry Collector, a file", "Arize Phoenix"
RIVALS = {COLLECTOR: "otelcol", PHOENIX: "phoenix"}
SDK = "OpenTelemetry SDK"
SPANS = dict(zip(PROTOCOLS, (2_000_000, 2_000_000, 600_000), strict=True))
BUDGETS_SPANS_PER_S = dict(zip(PROTOCOLS, (400_000, 300_000, 60_000), strict=True))
SDK_SPANS = {OWN: 100_000, PHOENIX: 10_000}
FAST_SHARE = 10
# A receiver that takes less of a processor than this for so long has nothing left to do.
IDLE_S, IDLE_SHARE = 2.0, 0.05
SETTLE_TIMEOUT_S = 300
BURST, MAX_PENDING, PAUSE_S = 1_000, 1_000, 0.001


class Row(NamedTuple):
    """By which protocol, or from which SDK, spans go into which receiver."""

    source: str
    receiver: str


LOADS = {f"{it}: {who}": Row(it, who) for it in PROTOCOLS for who in (OWN, COLLECTOR)}
SDKS = {f"{SDK}: {who}": Row(SDK, who) for who in SDK_SPANS}
ROWS = LOADS | SDKS


class Target(NamedTuple):
    """A running receiver: HOST:PORT of both protocols, and how many spans it has."""

    grpc: str
    http: str
    pid: int
    stored: Callable[[], int]


def record(receiver: int, spans: int) -> dict[str, float]:
    """One run of the OpenTelemetry SDK, in this process."""
    contender = contenders.OpenTelemetry(sending=True)
    loop = loop_of(contenders.recorded(contenders.OpenTelemetry))
    ours, theirs, start = time.process_time(), sender.cpu_s([receiver]), time.perf_counter()
    for recorded in range(BURST, spans + 1, BURST):
        loop(contender.tracer, BURST)
        # Its queue holds 2,048 spans, and drops any beyond that.
        while recorded - contender.delivered() > MAX_PENDING:
            time.sleep(PAUSE_S)
    contender.settle()
    if contender.delivered() != spans:
        raise RuntimeError(f"{spans} were recorded, {contender.delivered()} acknowledged")
    return {
        "sent": spans,
        "timed": spans,
        "seconds": time.perf_counter() - start,
        "sender_s": time.process_time() - ours,
        "receiver_before_s": theirs,
        "receiver_after_s": sender.cpu_s([receiver]),
    }


def _measure_once(name: str, spans: int) -> dict[str, float]:
    row = ROWS[name]
    with tempfile.TemporaryDirectory() as folder, _receiving(row.receiver, Path(folder)) as target:
        addresses = Addresses(target.grpc, target.http)
        if row.source == SDK:
            part = run_part("bench.otlp_ingest", target.pid, spans, addresses=addresses)
        else:
            arguments = (row.source, target.grpc, target.http, target.pid, spans)
            part = run_part("bench.otlp_load", *arguments, addresses=addresses)
        at_once = target.stored()
        idle_s = _settled_cpu_s(target.pid)
        found = {"recorded": part["sent"], "stored at once": at_once, "stored": target.stored()}
        peak_mib = sender.peak_kib([target.pid]) / 1024
    if row.receiver != PHOENIX and found["stored"] != part["sent"]:
        raise RuntimeError(f"{name}: not every span is stored: {found}")
    micro = 1e6 / part["timed"]
    return {
        **found,
        "spans/s": part["timed"] / part["seconds"],
        "sender": part["sender_s"] * micro,
        "receiver": (part["receiver_after_s"] - part["receiver_before_s"]) * micro,
        "receiver, all": (idle_s - part["receiver_before_s"]) * micro,
        "receiver MiB": peak_mib,
    }


def _settled_cpu_s(pid: int) -> float:
    """The processor time of a receiver once it has nothing left to do."""
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    used = sender.cpu_s([pid])
    while True:
        time.sleep(IDLE_S)
        now = sender.cpu_s([pid])
        if now - used < IDLE_S * IDLE_SHARE:
            return used
        if time.monotonic() > deadline:
            raise RuntimeError("the receiver does not come to rest")
        used = now


@contextmanager
def _receiving(receiver: str, folder: Path) -> Iterator[Target]:
    if receiver in RIVALS:
        with rival_receivers.running_rival(RIVALS[receiver], folder) as rival:
            yield Target(rival.grpc, rival.http, rival.pid, rival.span_count)
        return
    from infertrace.commands.collector_process import CollectorProcess

    store = f"duckdb:///{folder}/spans.duckdb"
    collector = CollectorProcess("127.0.0.1:0", "127.0.0.1:0", store, _free_address())
    if not collector.start():
        raise RuntimeError("the collector did not start")

    def stored() -> int:
        with urllib.request.urlopen(f"http://{collector.http}/ledger") as answer:
            return sum(account["stored"] for account in json.load(answer)["producers"])

    try:
        yield Target(collector.grpc, collector.otlp_http, collector.pid, stored)
    finally:
        collector.stop()


def _free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def measure(folder: Path, fast: bool) -> Answer:
    rounds, share = (1, FAST_SHARE) if fast else (3, 1)
    reasons = rival_receivers.missing(RIVALS.values())
    rows = {k: v for k, v in ROWS.items() if RIVALS.get(v.receiver) not in reasons}
    spans = {it: SPANS[rows[it].source] for it in rows if it in LOADS}
    spans |= {it: SDK_SPANS[rows[it].receiver] for it in rows if it in SDKS}
    results = run_rounds([*rows], rounds, lambda name: _measure_once(name, spans[name] // share))
    tables = _load_table([it for it in rows if it in LOADS], results)
    tables += "\n" + _stored_table([it for it in rows if it in SDKS], results)
    for name, reason in reasons.items():
        tables += f"\nNot installed, so not measured: {name} ({reason}).\n"
    verdicts = [
        verdict(
            f"OTLP over {it} in, durable spans a second",
            results[f"{it}: {OWN}"]["spans/s"],
            "spans/s",
            at_least=budget,
        )
        for it, budget in BUDGETS_SPANS_PER_S.items()
    ]
    if RIVALS[COLLECTOR] not in reasons:
        first = PROTOCOLS[0]
        ours, theirs = (results[f"{first}: {who}"]["receiver, all"] for who in (OWN, COLLECTOR))
        what = f"receiver's CPU per span, {first}, with all that follows"
        of = "the OpenTelemetry Collector's"
        verdicts.append(verdict(what, ratios(ours, theirs), "x", at_most=1, of=of))
    data = {"rounds": rounds, "spans": spans, "found": results, "missing": reasons}
    return Answer(data, tables, verdicts)


Results = dict[str, dict[str, list[float]]]


def _load_table(names: list[str], results: Results) -> str:
    columns = {"spans/s": 0, "sender": 2, "receiver": 2, "receiver, all": 2}
    header = ["", "spans/s", "rounds"]
    for who in ("sender", "receiver, until the last answer", "receiver, until it is idle"):
        header += [f"{who}, CPU-µs per span", "rounds"]
    return table(
        [*header, "receiver, peak MiB"],
        [
            [
                name,
                *(
                    cell
                    for column, digits in columns.items()
                    for cell in median_and_spread(results[name][column], digits=digits)
                ),
                median_and_spread(results[name]["receiver MiB"], digits=0)[0],
            ]
            for name in names
        ],
    )


def _stored_table(names: list[str], results: Results) -> str:
    columns = ("recorded", "stored at once", "stored", "spans/s")
    header = ["", "recorded", "stored at the last answer", "stored once idle", "spans/s"]
    return table(
        [*header, "rounds", "receiver, until it is idle, CPU-µs per span", "rounds"],
        [
            [
                name,
                *(median_and_spread(results[name][it], digits=0)[0] for it in columns[:3]),
                *median_and_spread(results[name]["spans/s"], digits=0),
                *median_and_spread(results[name]["receiver, all"], digits=1),
            ]
            for name in names
        ],
    )


if __name__ == "__main__":
    print(json.dumps(record(int(sys.argv[1]), int(sys.argv[2]))))
