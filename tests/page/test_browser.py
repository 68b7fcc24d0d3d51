"""The page in a real browser, against a collector with spans: from a box to the reason."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace
from playwright.sync_api import expect

from collector_client import Client, NewSpan
from infertrace.collector.authorization import BearerToken
from infertrace.collector.server import Collector
from page_spans import large_trace

VIEWS = ("overview", "explore", "steps", "distributions", "tail", "slo", "ledger")
WAIT_MS = 30_000


class Visit:
    """A tab on the page of a collector, and everything in it that should not have happened."""

    def __init__(self, browser: Any, address: str, scheme: str) -> None:
        self.origin = f"http://{address}"
        self.context = browser.new_context(
            viewport={"width": 1440, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.wrong: list[str] = []
        self.requested: list[str] = []
        self.page.on("request", lambda request: self._requested(request.url))
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: self.wrong.append(f"dialog: {dialog.message}"))

    def _requested(self, url: str) -> None:
        self.requested.append(url)
        if not url.startswith((f"{self.origin}/", "blob:", "data:")):
            self.wrong.append(f"request to {url}")

    def _said(self, message: Any) -> None:
        # A violation of the content security policy is an error here, too.
        if message.type in ("error", "warning"):
            self.wrong.append(f"console: {message.text}")

    def open(self, view: str = "", **more: str) -> None:
        query = "&".join(f"{name}={text}" for name, text in more.items())
        self.page.goto(f"{self.origin}/?view={view}&last=5m&{query}")
        self.settle()

    def settle(self) -> None:
        """Wait until the view is there and waits for no answer."""
        self.page.wait_for_selector("main h1")
        expect(self.page.locator("[aria-busy=true]")).to_have_count(0, timeout=WAIT_MS)

    @property
    def query(self) -> dict[str, str]:
        return {name: texts[0] for name, texts in parse_qs(urlsplit(self.page.url).query).items()}

    def text(self, selector: str) -> str:
        return str(self.page.locator(selector).first.inner_text())

    def drag(self, *, from_share: tuple[float, float], to_share: tuple[float, float]) -> None:
        box = self.page.locator(".over").first.bounding_box()
        ends = [
            (box["x"] + x * box["width"], box["y"] + y * box["height"])
            for x, y in (from_share, to_share)
        ]
        self.page.mouse.move(*ends[0])
        self.page.mouse.down()
        self.page.mouse.move(*ends[1], steps=4)
        self.page.mouse.up()


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def visit(browser: Any, seeded: Client, request: pytest.FixtureRequest) -> Iterator[Visit]:
    scheme = request.getfixturevalue("scheme") if "scheme" in request.fixturenames else "light"
    host, port = seeded.http_address
    opened = Visit(browser, f"{host}:{port}", scheme)
    yield opened
    opened.context.close()
    assert opened.wrong == []


def requests_of(client: Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(
        "/spans", requests=1, model="llama-3", limit=10_000, since="5m"
    )
    return found


def test_every_view_is_there_and_accessible(visit: Visit, scheme: str) -> None:
    for view in VIEWS:
        visit.open(view)
        assert visit.page.locator("main h1").count() == 1
        assert "produced" in visit.text(".ledger")
        found = Axe().run(visit.page)
        assert found.violations_count == 0, f"{view}, {scheme}: {found.generate_report()}"
    ground = visit.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert ground == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(21, 25, 29)")


def test_the_overview_tells_what_the_api_tells(visit: Visit, seeded: Client) -> None:
    visit.open("overview")
    (row,) = visit.page.locator("table.overview tbody tr").all()
    cells = row.locator("th, td").all_inner_texts()
    assert cells[0] == "llama-3"
    requests = requests_of(seeded)
    assert cells[1].strip() == f"{len(requests):,}"
    durations = sorted(span["duration_ms"] for span in requests)
    shown = float(cells[5].split()[0]) * (1_000 if cells[5].split()[1] == "s" else 1)
    assert shown == pytest.approx(durations[len(durations) // 2], rel=0.1)
    row.locator("a").click()
    visit.settle()
    assert visit.query["view"] == "explore"
    assert visit.query["f.model"] == "llama-3"


def test_from_the_box_to_the_reason_and_back(visit: Visit, seeded: Client) -> None:
    visit.open("explore", **{"f.model": "llama-3"})
    assert "Drag a box" in visit.text(".hover")
    # Everything above the bulk, over the whole time.
    visit.drag(from_share=(0.08, 0.04), to_share=(0.97, 0.26))
    visit.page.wait_for_selector("section.requests tr.request")
    visit.settle()
    box = [float(part) for part in visit.query["box"].split("~")]
    inside = [span for span in requests_of(seeded) if box[2] <= span["duration_ms"] <= box[3]]
    assert inside
    slowest = max(inside, key=lambda span: span["duration_ms"])
    assert visit.text(".selectedkey") == f"{len(inside):,} selected"
    assert visit.text("section.requests .notes").startswith(f"all {len(inside):,}")
    assert "tag.tenant" in visit.page.locator(".dimension h3").all_inner_texts()
    chosen = visit.page.url

    visit.page.locator("section.requests tr.request a").first.click()
    visit.settle()
    assert visit.query["trace"] == slowest["trace_id"]
    why = seeded.get(f"/traces/{slowest['trace_id']}/why")
    visit.page.wait_for_selector(".why .summary")
    assert visit.text(".why .summary") == why["summary"]
    assert visit.page.locator(".why li").count() == len(why["findings"])
    assert visit.page.locator(".spanrow").count() >= 1

    visit.page.go_back()
    visit.page.wait_for_selector("section.requests tr.request")
    assert visit.page.url == chosen
    visit.page.go_back()
    expect(visit.page.locator("section.requests")).to_have_count(0, timeout=WAIT_MS)
    assert "box" not in visit.query

    # A link alone brings all of it back.
    visit.page.goto(chosen)
    visit.page.wait_for_selector("section.requests tr.request")
    visit.settle()
    assert visit.text(".selectedkey") == f"{len(inside):,} selected"
    visit.page.locator(".dimension button.value", has_text="acme").first.click()
    visit.settle()
    assert visit.query["f.tag.tenant"] == "acme"
    visit.page.get_by_label("Remove the filter tag.tenant").click()
    visit.settle()
    assert "f.tag.tenant" not in visit.query


def test_the_keyboard_alone_is_enough(visit: Visit) -> None:
    visit.open("explore", **{"f.model": "llama-3"})
    visit.page.locator(".over").focus()
    keyboard = visit.page.keyboard
    keyboard.press("PageUp")
    keyboard.press("Home")
    keyboard.press("Shift+End")
    keyboard.press("Shift+PageDown")
    keyboard.press("Shift+PageDown")
    keyboard.press("Shift+PageDown")
    keyboard.press("Enter")
    visit.page.wait_for_selector("section.requests tr.request")
    visit.settle()
    visit.page.locator("section.requests tr.request a").first.focus()
    keyboard.press("Enter")
    visit.page.wait_for_selector("[role=tree]")
    visit.page.locator("[role=tree]").focus()
    keyboard.press("ArrowDown")
    visit.page.locator(".back").focus()
    keyboard.press("Enter")
    visit.page.wait_for_selector("section.requests tr.request")
    visit.page.locator(".over").focus()
    keyboard.press("Escape")
    expect(visit.page.locator("section.requests")).to_have_count(0, timeout=WAIT_MS)


def test_zooming_narrows_the_time(visit: Visit) -> None:
    visit.open("explore")
    visit.page.keyboard.down("Alt")
    visit.drag(from_share=(0.3, 0.2), to_share=(0.6, 0.6))
    visit.page.keyboard.up("Alt")
    visit.settle()
    assert "box" not in visit.query
    assert 0 < float(visit.query["until"]) - float(visit.query["since"]) < 300_000


def test_the_text_of_spans_is_text(visit: Visit, seeded: Client) -> None:
    failed = seeded.get("/spans", status="ERROR", requests=1, limit=1)[0]
    visit.open("trace", trace=failed["trace_id"], span=failed["span_id"])
    assert visit.text(".details .failed") == "<img src=x onerror=alert(1)>"
    assert visit.page.locator(".details img").count() == 0


def test_a_trace_of_ten_thousand_spans(visit: Visit, seeded: Client) -> None:
    spans = large_trace(10_000)
    for first in range(0, len(spans), 2_000):
        seeded.send(*spans[first : first + 2_000])
    visit.open("trace", trace=spans[0].trace_id.hex())
    visit.page.wait_for_selector(".spanrow")
    tree = visit.page.locator("[role=tree]")
    for key in ("Home", "End", "PageUp", "PageDown"):
        tree.press(key)
        rows = visit.page.locator(".spanrow")
        assert 0 < rows.count() <= 60
        assert tree.locator("*").count() <= 10 * rows.count() + 1
    tree.press("End")
    visit.page.locator(".spanrow .operation", has_text=re.compile("^part 9999$")).wait_for()
    visit.page.get_by_label("Search the spans").fill("part 5000")
    visit.page.locator(".spanrow .operation", has_text=re.compile("^part 5000$")).wait_for()
    assert visit.page.locator(".spanrow").count() <= 11
    assert "10,000 spans" in visit.text(".waterfall .notes")


def test_steps_show_their_members(visit: Visit, seeded: Client) -> None:
    victim = max(requests_of(seeded), key=lambda span: span["duration_ms"])
    steps = seeded.get("/steps", model="llama-3", since="5m")
    assert steps["step_count"] > 0
    visit.open("steps")
    assert f"{steps['step_count']:,} steps" in visit.text("main .figures")
    # From a request to its steps, few enough to be shown one by one.
    visit.open("trace", trace=victim["trace_id"])
    visit.page.get_by_role("link", name="Its steps").click()
    visit.settle()
    assert visit.query["view"] == "steps"
    assert visit.query["steps"].startswith(f"{victim['first_step']}~{victim['last_step']}~")
    visit.page.wait_for_selector(".chooser select")
    start = victim["start_time"]
    narrow = seeded.get("/steps", since=start, until="1s")["step_count"]
    assert narrow > 0
    at_ms = datetime.fromisoformat(f"{start[:26]}+00:00").timestamp() * 1_000
    visit.page.goto(
        f"{visit.origin}/?view=steps&since={at_ms:.0f}&until={at_ms + victim['duration_ms']:.0f}"
    )
    visit.settle()
    chooser = visit.page.locator(".chooser select")
    chooser.select_option(index=1)
    visit.page.wait_for_selector(".members tbody tr")
    assert visit.page.locator(".members tbody tr").count() > 0
    visit.page.locator(".members tbody a").first.focus()
    assert visit.page.get_by_label("GPUs", exact=True).count() == 1


def test_what_is_drawn_can_be_taken_along(visit: Visit, seeded: Client) -> None:
    visit.open("explore", **{"f.model": "llama-3"})
    with visit.page.expect_download() as told:
        visit.page.get_by_role("button", name="CSV").first.click()
    text = told.value.path().read_text(encoding="utf-8")
    total = sum(int(line.split(",")[3]) for line in text.splitlines()[1:])
    assert total == len(requests_of(seeded))
    with visit.page.expect_download() as told:
        visit.page.get_by_role("button", name="SVG").first.click()
    drawn = told.value.path().read_text(encoding="utf-8")
    assert drawn.startswith("<svg ")
    assert f"n = {total:,} requests" in drawn
    assert "complete" in drawn
    visit.page.get_by_role("button", name="Table").first.click()
    assert visit.page.locator(".datatable tbody tr").count() > 0
    visit.page.get_by_role("button", name="curl").first.click()
    visit.page.wait_for_selector(".notice")
    assert f"curl '{visit.origin}/heatmap?model=llama-3" in visit.text(".notice")


def test_a_trace_goes_to_perfetto(visit: Visit, seeded: Client) -> None:
    slowest = max(requests_of(seeded), key=lambda span: span["duration_ms"])
    visit.open("trace", trace=slowest["trace_id"])
    with visit.page.expect_download() as told:
        visit.page.get_by_role("button", name="Download for Perfetto").click()
    trace = Trace()
    trace.ParseFromString(told.value.path().read_bytes())
    begun = [p.track_event for p in trace.packet if p.track_event.type == 1]
    assert sum(event.categories == ["request"] for event in begun) == 1
    assert len(begun) == 1 + slowest["last_step"] - slowest["first_step"] + 1


def test_targets_are_counted(visit: Visit, seeded: Client) -> None:
    visit.open("slo", target="duration_ms:1000")
    requests = requests_of(seeded)
    good = sum(span["duration_ms"] <= 1_000 and span["status"] != "ERROR" for span in requests)
    assert f"{good:,} of {len(requests):,}" in visit.text(".tile")


def test_the_tail_counts_what_it_leaves_out(browser: Any, new_span: NewSpan) -> None:
    with Collector("127.0.0.1:0", "127.0.0.1:0", "memory:") as collector:
        client = Client(collector.grpc_address, collector.http_address)
        visit = Visit(browser, collector.http_address, "light")
        visit.open("tail")
        stopped = threading.Event()

        def send() -> None:
            while not stopped.is_set():
                client.send(*(new_span() for _ in range(2_000)))

        sender = threading.Thread(target=send)
        sender.start()
        try:
            visit.page.wait_for_selector("tr.skipped")
            expect(visit.page.locator(".tailbox tbody tr")).to_have_count(200, timeout=WAIT_MS)
        finally:
            stopped.set()
            sender.join()
        left_out = re.search(r"([\d,]+) left out", visit.text("main .figures"))
        assert left_out
        assert int(left_out[1].replace(",", "")) > 0
        visit.context.close()
        client.close()
        assert visit.wrong == []


def test_the_token_stays_in_the_tab(browser: Any, new_span: NewSpan) -> None:
    token = "a-token-of-some-length"
    with Collector("127.0.0.1:0", "127.0.0.1:0", "memory:", BearerToken(token)) as collector:
        client = Client(collector.grpc_address, collector.http_address, token)
        client.send(new_span(start_time_unix_nano=time.time_ns()))
        visit = Visit(browser, collector.http_address, "light")
        visit.page.goto(f"{visit.origin}/?view=overview#token={token}")
        visit.settle()
        assert visit.page.locator("table.overview tbody tr").count() == 1
        assert token not in visit.page.url
        assert not [url for url in visit.requested if token in urlsplit(url).query]
        assert visit.context.cookies() == []
        visit.page.reload()
        visit.settle()
        assert visit.page.locator("table.overview tbody tr").count() == 1
        assert visit.wrong == []

        other = visit.context.new_page()
        other.goto(f"{visit.origin}/")
        other.get_by_label("This collector wants its token").fill(token)
        other.get_by_role("button", name="Open").click()
        other.wait_for_selector("table.overview tbody tr")
        visit.context.close()
        client.close()
