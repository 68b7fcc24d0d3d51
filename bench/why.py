"""How long does a collector take to say why a request was slow, with ten million spans stored?

The spans are of one day and of eight engines: a step each 80 ms, of 18 requests; six of
seven spans. Each route is asked by one reader over a connection that stays open: with nothing else
to do, and while a producer in another process records 50,000 spans a second. Which request, step
and minute is drawn at random.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bench.harness import Answer, verdict
from bench.markdown import table
from bench.query import (
    DAY_S,
    IDLE,
    INGEST_SPANS_PER_S,
    INGESTING,
    Ask,
    asking,
    collecting,
    producing,
)

SPANS, FAST_SPANS = 10_000_000, 200_000
REQUESTS, FAST_REQUESTS = 1_000, 10  # a p99 is the tenth worst
ENGINES = 8
STEPS_PER_REQUEST = 6
# The product's budgets: the last of them with spans coming in, the others with many stored.
BUDGETS_MS = (
    ("steps of a minute", IDLE, 50),
    ("companions", IDLE, 100),
    ("why", IDLE, 200),
    ("why", INGESTING, 200),
)
MINUTE_NS = 60 * 10**9

_FILL = """
    INSERT INTO spans BY NAME
    WITH numbers AS (SELECT i, {start} + (i // {engines}) * {step_ns} AS began
                     FROM range({steps}) AS numbers(i))
    SELECT md5_number('s' || i)::UUID AS trace_id, hash(i) AS span_id,
        'server' AS service_name, 'step' AS operation_name, began AS start_time,
        ({step_ns} * (0.9 + random() * 0.08))::BIGINT AS duration_nanos, 'OK' AS status,
        'model-' || (i % {engines}) AS model_name, (i % {engines})::VARCHAR AS engine,
        uuid_of(i % {engines}) AS producer_id, i // {engines} + 1 AS step_index,
        18 AS batch_size, 0.56::FLOAT AS batch_fill_ratio,
        CASE WHEN i // {engines} % {per_request} = 0 THEN 400 ELSE 0 END AS prefill_tokens,
        17 AS decode_tokens, 0 AS queue_depth, 0.4::FLOAT AS kv_cache_usage,
        NULL::INTEGER AS input_tokens, NULL::INTEGER AS output_tokens,
        NULL::VARCHAR AS request_id, NULL::FLOAT AS scheduled_after_ms,
        NULL::FLOAT AS time_to_first_token_ms, NULL::FLOAT AS inter_token_latency_ms,
        NULL::FLOAT AS max_inter_token_latency_ms, NULL::BIGINT AS first_step,
        NULL::BIGINT AS last_step, NULL::INTEGER AS step_count, 60.0 AS gpu_temperature_celsius
    FROM numbers
    UNION ALL BY NAME
    SELECT md5_number('r' || i)::UUID AS trace_id, hash(-i - 1) AS span_id,
        'server' AS service_name, 'inference' AS operation_name, began - 20000000 AS start_time,
        (108 + i % 7) * {step_ns} AS duration_nanos, 'OK' AS status,
        'model-' || (i % {engines}) AS model_name, (i % {engines})::VARCHAR AS engine,
        uuid_of(i % {engines}) AS producer_id, 400 AS input_tokens, 108 + i % 7 AS output_tokens,
        'request-' || i AS request_id, (20 + random() * 30)::FLOAT AS scheduled_after_ms,
        (90 + random() * 40)::FLOAT AS time_to_first_token_ms,
        ({step_ns} / 1e6)::FLOAT AS inter_token_latency_ms,
        ({step_ns} / 1e6 * (1 + random()))::FLOAT AS max_inter_token_latency_ms,
        i // {engines} + 1 AS first_step, i // {engines} + 108 + i % 7 AS last_step,
        (108 + i % 7)::INTEGER AS step_count, 60.0 AS gpu_temperature_celsius
    FROM numbers WHERE i // {engines} % {per_request} = 0
    ORDER BY start_time"""


class Filled(NamedTuple):
    """What was stored: traces of requests, the steps of each engine, and when the first began."""

    traces: list[str]
    steps: int
    start_ns: int


def fill(path: Path, spans: int) -> Filled:
    """Make a store."""
    import duckdb

    from infertrace.collector.store.columns import COLUMNS
    from infertrace.collector.store.duckdb.span_table import add_columns
    from infertrace.collector.store.duckdb.store import open_duckdb

    open_duckdb(str(path)).close()
    steps = spans * STEPS_PER_REQUEST // (STEPS_PER_REQUEST + 1)
    start_ns = time.time_ns() - DAY_S * 10**9
    step_ns = DAY_S * 10**9 * ENGINES // steps
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TEMPORARY MACRO uuid_of(n) AS md5_number('e' || n)::UUID")
        names = {column.name for column in COLUMNS}
        add_columns(connection, {name for name in names if f" AS {name}" in _FILL})
        connection.execute(
            _FILL.format(
                start=start_ns,
                steps=steps,
                step_ns=step_ns,
                engines=ENGINES,
                per_request=STEPS_PER_REQUEST,
            )
        )
        connection.execute("CHECKPOINT")
        rows = connection.execute(
            "SELECT trace_id FROM spans WHERE step_index IS NULL USING SAMPLE 500 ROWS"
        ).fetchall()
    return Filled([row[0].hex for row in rows], steps // ENGINES, start_ns)


def routes(filled: Filled) -> dict[str, Callable[[], str]]:
    """The path of one request to each route."""
    draw = random.Random(20261130)

    def minute() -> str:
        since_ns = filled.start_ns + draw.randrange(DAY_S * 10**9 - MINUTE_NS)
        return f"since={since_ns / 1e9:.3f}&until={(since_ns + MINUTE_NS) / 1e9:.3f}"

    def engine() -> int:
        return draw.randrange(ENGINES)

    return {
        "steps of a minute": lambda: f"/steps?model=model-{engine()}&{minute()}",
        "steps of a minute, all engines": lambda: f"/steps?{minute()}",
        "members of a step": lambda: (
            f"/steps/{engine()}/{draw.randrange(1, filled.steps)}/members?since=25h"
        ),
        "companions": lambda: f"/traces/{draw.choice(filled.traces)}/companions",
        "why": lambda: f"/traces/{draw.choice(filled.traces)}/why",
    }


def _time_routes(ask: Ask, filled: Filled, requests: int) -> dict[str, dict[str, float]]:
    results = {}
    for name, path in routes(filled).items():
        taken = []
        for _ in range(requests):
            start = time.perf_counter()
            ask(path())
            taken.append((time.perf_counter() - start) * 1e3)
        taken.sort()
        results[name] = {"p50": taken[len(taken) // 2], "p99": taken[int(len(taken) * 0.99)]}
    return results


def measure(folder: Path, fast: bool) -> Answer:
    spans, requests = (FAST_SPANS, FAST_REQUESTS) if fast else (SPANS, REQUESTS)
    rates: list[float] = []
    with tempfile.TemporaryDirectory() as where:
        path = Path(where) / "spans.duckdb"
        filled = fill(path, spans)
        with collecting(path) as addresses:
            ask = asking(addresses.http)
            results = {IDLE: _time_routes(ask, filled, requests)}
            with producing(addresses, INGEST_SPANS_PER_S, rates):
                results[INGESTING] = _time_routes(ask, filled, requests)
    cells = [(load, which) for load in results for which in ("p50", "p99")]
    tables = table(
        ["", *(f"{which}, ms, {load}" for load, which in cells)],
        [
            [name, *(f"{results[load][name][which]:.1f}" for load, which in cells)]
            for name in results[IDLE]
        ],
    )
    tables += f"\nThe producer delivered {rates[0]:,.0f} spans a second.\n"
    verdicts = [
        verdict(f"p99 of {name}, {load}", [results[load][name]["p99"]], "ms", at_most=budget)
        for name, load, budget in BUDGETS_MS
    ]
    return Answer({"spans": spans, "requests": requests, "ms": results}, tables, verdicts)
