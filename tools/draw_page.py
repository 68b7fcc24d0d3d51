"""Draws the pictures of docs/page.md: the page in Chromium, with minutes of a simulated engine.

`python tools/draw_page.py` writes docs/figures/page-*.png; it wants what the page's tests want.
"""

from __future__ import annotations

import os
import sys
import urllib.parse
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "docs" / "figures"
sys.path.insert(0, str(ROOT / "tests"))

SECONDS = 300
CHROMIUM = os.environ.get("INFERTRACE_CHROMIUM", "/usr/bin/chromium")
SIZE = {"width": 1200, "height": 760}
ABOVE = (0.08, 0.04), (0.97, 0.26)  # the corners of a box around the slow ones


def main() -> None:
    from playwright.sync_api import sync_playwright

    from collector_client import Client
    from infertrace.collector.server import Collector
    from page_spans import engine_spans

    with (
        Collector("127.0.0.1:0", "127.0.0.1:0", "memory:") as collector,
        sync_playwright() as playwright,
    ):
        client = Client(collector.grpc_address, collector.http_address)
        spans = engine_spans(SECONDS)
        for first in range(0, len(spans), 2_000):
            part = spans[first : first + 2_000]
            client.send(
                *part,
                producer_id=b"p" * 16,
                first_span_sequence=first + 1,
                produced_count=first + len(part),
            )
        end_ms = max(span.start_time_unix_nano for span in spans) // 1_000_000
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        for scheme in ("light", "dark"):
            context = browser.new_context(viewport=SIZE, color_scheme=scheme)
            _draw(context.new_page(), collector.http_address, client, scheme, end_ms)
            context.close()
        browser.close()
        client.close()


def _draw(page: Any, address: str, client: Any, scheme: str, end_ms: int) -> None:
    def go(view: str, **more: str) -> None:
        query = urllib.parse.urlencode(
            {"view": view, "since": end_ms - SECONDS * 1_000, "until": end_ms, **more}
        )
        page.goto(f"http://{address}/?{query}")
        page.wait_for_load_state("networkidle")

    def save(name: str) -> None:
        page.wait_for_timeout(400)
        page.screenshot(path=FIGURES / f"page-{name}.png", animations="disabled")

    go("explore", **{"f.model": "llama-3"})
    box = page.locator(".over").bounding_box()
    ends = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in ABOVE]
    page.mouse.move(*ends[0])
    page.mouse.down()
    page.mouse.move(*ends[1], steps=4)
    page.mouse.up()
    page.wait_for_selector("section.requests tr.request")
    page.wait_for_load_state("networkidle")
    page.mouse.move(box["x"] + 200, box["y"] - 40)
    if scheme == "dark":
        save("dark")
        return
    save("heatmap")
    page.locator("section.requests tr.request a").first.click()
    page.wait_for_selector(".why li")
    page.wait_for_load_state("networkidle")
    save("why")
    go("overview")
    save("overview")
    slowest = client.get("/spans", requests=1, order="duration_ms", limit=1)[0]
    at_ms = datetime.fromisoformat(f"{slowest['start_time'][:26]}+00:00").timestamp() * 1_000
    page.goto(f"http://{address}/?view=steps&since={at_ms - 500:.0f}&until={at_ms + 4_500:.0f}")
    page.wait_for_load_state("networkidle")
    page.locator(".chooser select").select_option(index=1)
    page.wait_for_selector(".members tbody tr")
    save("steps")
    go("distributions", mode="percentiles")
    save("distributions")
    go("slo", target="duration_ms:1500,time_to_first_token_ms:250")
    save("slo")


if __name__ == "__main__":
    main()
