"""How the page is served: open without a token, with what keeps a browser from loading more."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from infertrace.collector.authorization import BearerToken
from infertrace.collector.query.routes.page import PAGE_PATHS
from infertrace.collector.server import Collector

TOKEN = "a-token-of-some-length"
BUILT = Path(__file__).parents[2] / "src" / "infertrace" / "collector" / "page"


@pytest.fixture(scope="module")
def guarded() -> Iterator[httpx.Client]:
    token = BearerToken(TOKEN)
    with (
        Collector("127.0.0.1:0", "127.0.0.1:0", "memory:", token) as collector,
        httpx.Client(base_url=f"http://{collector.http_address}") as client,
    ):
        yield client


def test_the_page_is_open_and_its_data_is_not(guarded: httpx.Client) -> None:
    for path in PAGE_PATHS:
        assert guarded.get(path).status_code == 200
    for path in ("/overview", "/spans", "/ledger", "/openapi.json", "/tail"):
        assert guarded.get(path).status_code == 401
        assert guarded.get(path, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_a_browser_loads_nothing_from_elsewhere(guarded: httpx.Client) -> None:
    for path in PAGE_PATHS:
        headers = guarded.get(path).headers
        policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == "'none'"
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
    html = guarded.get("/").text
    assert not re.search(r"(src|href)=\"(https?:)?//", html)
    assert "<script>" not in html
    assert "style=" not in html


def test_every_file_is_served_as_it_was_built(guarded: httpx.Client) -> None:
    served = {path.removeprefix("/") or "index.html": guarded.get(path) for path in PAGE_PATHS}
    built = {path.name: path.read_bytes() for path in BUILT.iterdir() if path.is_file()}
    assert {name: answer.content for name, answer in served.items()} == built
    assert served["app.js"].headers["Content-Type"].startswith("text/javascript")


def test_a_file_that_is_known_is_not_sent_again(guarded: httpx.Client) -> None:
    first = guarded.get("/app.js")
    again = guarded.get("/app.js", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert guarded.head("/").status_code == 200
    assert guarded.post("/").status_code == 405


def test_another_host_name_is_refused() -> None:
    with Collector("127.0.0.1:0", "127.0.0.1:0", "memory:") as collector:
        answer = httpx.get(f"http://{collector.http_address}/", headers={"Host": "evil.example"})
        assert answer.status_code == 403
