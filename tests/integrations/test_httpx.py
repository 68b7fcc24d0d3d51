"""The trace context in what httpx and httpx2 send to a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse

import infertrace
from infertrace.testing import SpanRecorder
from served_app import served

FAR = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    app = FastAPI()

    @app.get("/")
    async def said(request: Request) -> Any:
        return request.headers.get("traceparent")

    @app.get("/moved")
    async def moved() -> RedirectResponse:
        return RedirectResponse("/")

    with served(app) as url:
        yield url


@pytest.fixture(params=["httpx", "httpx2"])
def library(request: pytest.FixtureRequest, backend: Any) -> Any:
    infertrace.instrument("httpx")
    infertrace.instrument("httpx")
    return import_module(request.param)


def test_the_span_around_it(library: Any, url: str, recorded_spans: SpanRecorder) -> None:
    with recorded_spans.tracer.start_span("m", "request") as span:
        assert library.get(url).json() == span.traceparent
        with library.stream("GET", url) as answer:
            assert answer.read() == f'"{span.traceparent}"'.encode()
        assert library.get(f"{url}/moved", follow_redirects=True).json() == span.traceparent
    assert recorded_spans.one().operation == "request"


def test_asynchronous(library: Any, url: str, recorded_spans: SpanRecorder) -> None:
    async def ask(client: Any) -> None:
        with recorded_spans.tracer.start_span("m", "request") as span:
            assert (await client.get(url)).json() == span.traceparent

    async def ask_all() -> None:
        async with library.AsyncClient() as client:
            await asyncio.gather(*(ask(client) for _ in range(8)))

    asyncio.run(ask_all())


def test_nothing_to_say(library: Any, url: str, recorded_spans: SpanRecorder) -> None:
    assert library.get(url).json() is None
    with recorded_spans.tracer.start_span("m", "request"):
        assert library.get(url, headers={"Traceparent": FAR}).json() == FAR
        infertrace.uninstrument("httpx")
        assert library.get(url).json() is None
    recorded_spans.tracer.configure(sample_rate=0)
    infertrace.instrument("httpx")
    with recorded_spans.tracer.start_span("m", "request"):
        assert library.get(url).json() is None


def test_an_error_is_that_of_the_library(library: Any, recorded_spans: SpanRecorder) -> None:
    with recorded_spans.tracer.start_span("m"), pytest.raises(library.ConnectError):
        library.get("http://127.0.0.1:1")
