"""How long does a collector take to answer, with ten million spans stored?

The spans are of one day, eight models and four to a trace. Each route is asked by one reader over
a connection that stays open: with nothing else to do, and while a producer in another process
records 50,000 spans a second. What varies from one request to the next (model, trace, page) is
drawn at random.
"""

from __future__ import annotations

import http.client
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import contenders
from bench.environment import REPOSITORY
from bench.harness import Answer, variables, verdict
from bench.ingest import BLOCK
from bench.loops import loop_of
from bench.markdown import table
from bench.receiver import Addresses

SPANS, FAST_SPANS = 10_000_000, 200_000
REQUESTS, FAST_REQUESTS = 1_000, 10  # a p99 is the tenth worst
SLOW_REQUESTS = 40  # to a route that reads every span
DAY_S = 86_400
INGEST_SPANS_PER_S, BURST_S = 50_000, 0.02
MODELS = tuple(f"model-{number}" for number in range(8))
IDLE, INGESTING = "nothing else", "50,000 spans/s coming in"
BUDGETS_MS = {
    "last 100 of a model": 20,
    "one trace": 20,
    "percentiles of an hour": 50,
    "heatmap of an hour": 50,
    "heatmap of a day": 500,
    "overview of a day": 200,
    "comparison of an hour": 200,
}
SLOW_ROUTES = ("all models, one day", "heatmap of a day", "overview of a day")

# Trace ids are random, as real ones are; a quarter of the spans is a root.
_FILL = """
    INSERT INTO spans BY NAME SELECT
        md5_number((i // 4)::VARCHAR)::UUID AS trace_id, hash(i) AS span_id,
        CASE WHEN i % 4 > 0 THEN hash(i - i % 4) END AS parent_span_id,
        'server-' || (i % 3) AS service_name,
        CASE WHEN i % 4 = 0 THEN 'request' ELSE 'inference' END AS operation_name,
        {start} + i * {step} + (random() * 1e8)::BIGINT AS start_time,
        (exp(random() * 6) * 1000000)::BIGINT AS duration_nanos,
        CASE WHEN random() < 0.01 THEN 'ERROR' ELSE 'OK' END AS status,
        'model-' || (hash(i // 4) % 8) AS model_name, 8 AS batch_size,
        (random() * 500)::INTEGER AS input_tokens, (random() * 500)::INTEGER AS output_tokens,
        (random() * 100)::FLOAT AS queue_wait_time_ms, random() * 100 AS gpu_utilization_percent
    FROM range({spans}) AS numbers(i)"""

Ask = Callable[[str], tuple[Any, str | None]]


def fill(path: Path, spans: int) -> list[str]:
    """Make a store; returns some of its trace ids."""
    import duckdb

    from infertrace.collector.store.duckdb.span_table import add_columns
    from infertrace.collector.store.duckdb.store import open_duckdb

    open_duckdb(str(path)).close()
    with duckdb.connect(str(path)) as connection:
        start, step = time.time_ns() - DAY_S * 10**9, DAY_S * 10**9 // spans
        add_columns(connection, re.findall(r"AS (\w+)", _FILL))
        connection.execute(_FILL.format(start=start, step=step, spans=spans))
        connection.execute("CHECKPOINT")
        rows = connection.execute("SELECT trace_id FROM spans USING SAMPLE 500 ROWS").fetchall()
    return [row[0].hex for row in rows]


def routes(traces: list[str], ask: Ask) -> dict[str, Callable[[], str]]:
    """The path of one request to each route."""
    draw = random.Random(20261122)
    # A cursor deep in the pages of each model.
    places = []
    for model in MODELS:
        _, link = ask(f"/spans?model={model}&limit=5000")
        if link is not None:
            places.append(link.split("<")[1].split(">")[0].replace("limit=5000", "limit=100"))

    def model() -> str:
        return draw.choice(MODELS)

    return {
        "last 100 of a model": lambda: f"/spans?model={model()}",
        "last 100 errors": lambda: "/spans?status=ERROR",
        "a later page of a model": lambda: draw.choice(places),
        "one trace": lambda: f"/traces/{draw.choice(traces)}",
        "percentiles of an hour": lambda: f"/models/{model()}/latency?window=1h",
        "the same, with a baseline": lambda: f"/models/{model()}/latency?window=5m&baseline=1h",
        "p95 of an hour by minutes": lambda: f"/models/{model()}/series?metric=p95_ms&step=1m",
        "all models, one day": lambda: "/models",
        "heatmap of an hour": lambda: f"/heatmap?window=1h&model={model()}",
        "heatmap of a day": lambda: "/heatmap?window=24h",
        "overview of an hour": lambda: "/overview?window=1h",
        "overview of a day": lambda: "/overview?window=24h",
        "comparison of an hour": lambda: "/compare?window=1h&select_min=300",
        "what arrived last": lambda: "/tail",
        "the ledger": lambda: "/ledger",
    }


def asking(address: str) -> Ask:
    """A reader with one connection."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)

    def ask(path: str) -> tuple[Any, str | None]:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {body[:200]!r}")
        return body, answer.headers.get("Link")

    return ask


def _time_routes(ask: Ask, traces: list[str], requests: int) -> dict[str, dict[str, float]]:
    results = {}
    for name, path in routes(traces, ask).items():
        count = min(requests, SLOW_REQUESTS) if name in SLOW_ROUTES else requests
        taken = []
        for _ in range(count):
            start = time.perf_counter()
            ask(path())
            taken.append((time.perf_counter() - start) * 1e3)
        taken.sort()
        results[name] = {"p50": taken[len(taken) // 2], "p99": taken[int(len(taken) * 0.99)]}
    return results


def produce(spans_per_s: int) -> None:
    """Record at a rate until the input ends; then print how many a second were delivered."""
    import threading

    done = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), done.set()), daemon=True).start()
    contender = contenders.native()
    loop = loop_of(BLOCK)
    start, bursts = time.perf_counter(), 0
    while not done.is_set():
        loop(contender.tracer, round(spans_per_s * BURST_S))
        bursts += 1
        time.sleep(max(0.0, start + bursts * BURST_S - time.perf_counter()))
    contender.settle()
    print(json.dumps(contender.delivered() / (time.perf_counter() - start)))


@contextmanager
def producing(addresses: Addresses, spans_per_s: int, rates: list[float]) -> Iterator[None]:
    """A producer in its own process; adds how many spans a second it delivered."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.query", str(spans_per_s)],
        cwd=REPOSITORY,
        env=variables(addresses),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        time.sleep(2)  # until it runs steadily
        yield
    finally:
        out, _ = process.communicate()
    rates.append(json.loads(out))


@contextmanager
def collecting(path: Path) -> Iterator[Addresses]:
    """A collector in its own process."""
    from infertrace.commands.collector_process import CollectorProcess

    collector = CollectorProcess("127.0.0.1:0", "127.0.0.1:0", f"duckdb:///{path}")
    if not collector.start():
        raise RuntimeError("the collector did not start")
    try:
        yield Addresses(collector.grpc, collector.http)
    finally:
        collector.stop()


def measure(folder: Path, fast: bool) -> Answer:
    spans, requests = (FAST_SPANS, FAST_REQUESTS) if fast else (SPANS, REQUESTS)
    rates: list[float] = []
    with tempfile.TemporaryDirectory() as where:
        path = Path(where) / "spans.duckdb"
        traces = fill(path, spans)
        with collecting(path) as addresses:
            ask = asking(addresses.http)
            results = {IDLE: _time_routes(ask, traces, requests)}
            with producing(addresses, INGEST_SPANS_PER_S, rates):
                results[INGESTING] = _time_routes(ask, traces, requests)
    tables = table(
        ["", *(f"{which}, ms, {load}" for load in results for which in ("p50", "p99"))],
        [
            [
                name,
                *(
                    f"{results[load][name][which]:.1f}"
                    for load in results
                    for which in ("p50", "p99")
                ),
            ]
            for name in results[IDLE]
        ],
    )
    tables += f"\nThe producer delivered {rates[0]:,.0f} spans a second.\n"
    verdicts = [
        verdict(f"p99 of {name}, {load}", [results[load][name]["p99"]], "ms", at_most=budget)
        for load in results
        for name, budget in BUDGETS_MS.items()
    ]
    return Answer({"spans": spans, "requests": requests, "ms": results}, tables, verdicts)


if __name__ == "__main__":
    produce(int(sys.argv[1]))
