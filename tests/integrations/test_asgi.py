"""FastAPI and Starlette applications on a real server."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, FastAPI
from fastapi.responses import FileResponse, StreamingResponse
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

import infertrace
from infertrace.integrations import starlette
from infertrace.integrations.asgi import TracingMiddleware
from infertrace.testing import RecordedSpan, SpanRecorder
from served_app import served

Ended = Callable[[int], list[RecordedSpan]]
FAR = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
go_on = threading.Event()
gone = threading.Event()


def new_app() -> FastAPI:
    app = FastAPI()
    router = APIRouter(prefix="/v1")

    @app.get("/items/{item}")
    async def item(item: int) -> dict[str, int]:
        with infertrace.current_span().activate():
            infertrace.configure().start_span("m", "inside").end()
        return {"item": item}

    @app.get("/sync")
    def in_a_thread() -> str:
        infertrace.configure().start_span("m", "inside").end()
        return "done"

    @app.get("/fails")
    async def fails() -> None:
        raise KeyError("of the program")

    @app.get("/file")
    def file() -> FileResponse:
        return FileResponse(__file__)

    @app.get("/later")
    def later(tasks: BackgroundTasks) -> str:
        tasks.add_task(go_on.wait)
        return "at once"

    @router.post("/chat/completions")
    async def chat() -> StreamingResponse:
        async def chunks() -> AsyncIterator[str]:
            for number in range(4):
                yield f"data: {number}\n\n"
                await asyncio.sleep(0.01)
            yield ": keeps the connection open\n\n"
            yield "data: [DONE]\n\n"
            infertrace.configure().start_span("m", "at the end").end()

        return StreamingResponse(chunks(), media_type="text/event-stream")

    @app.get("/endless")
    async def endless() -> StreamingResponse:
        async def chunks() -> AsyncIterator[str]:
            try:
                while True:
                    yield "data: more\n\n"
                    await asyncio.sleep(0.01)
            finally:
                gone.set()

        return StreamingResponse(chunks(), media_type="text/event-stream")

    @app.get("/breaks")
    async def breaks() -> StreamingResponse:
        async def chunks() -> AsyncIterator[str]:
            yield "data: 1\n\n"
            raise KeyError("in the middle")

        return StreamingResponse(chunks(), media_type="text/event-stream")

    app.include_router(router)
    return app


@pytest.fixture(params=["instrument", "add_middleware"])
def url(request: pytest.FixtureRequest, recorded_spans: SpanRecorder) -> Iterator[str]:
    """An application, traced by either way."""
    go_on.clear()
    gone.clear()
    app = new_app()
    if request.param == "instrument":
        infertrace.instrument("starlette")
    else:
        app.add_middleware(TracingMiddleware)
    with served(app) as url:
        yield url
        go_on.set()


def test_a_request(url: str, ended: Ended) -> None:
    answer = httpx.get(f"{url}/items/7", headers={"traceparent": FAR})
    assert answer.json() == {"item": 7}
    request, inside = ended(2)
    assert (request.operation, request.kind) == ("GET /items/{item}", "server")
    assert (request.status, inside.kind) == ("OK", None)
    assert (request.trace_id, request.parent_span_id) == ("ab" * 16, "cd" * 8)
    assert request.attributes == {
        "http.request.method": "GET",
        "url.path": "/items/7",
        "http.route": "/items/{item}",
        "http.response.status_code": 200,
    }
    assert request.fields == {}
    assert inside.parent is request


def test_an_endpoint_that_runs_in_a_thread(url: str, ended: Ended) -> None:
    httpx.get(f"{url}/sync")
    request, inside = ended(2)
    assert inside.parent is request


def test_a_stream_has_the_times_of_its_chunks(url: str, ended: Ended) -> None:
    assert "[DONE]" in httpx.post(f"{url}/v1/chat/completions").text
    request, inside = ended(2)
    assert request.operation == "POST /v1/chat/completions"
    assert inside.parent is request
    fields = request.fields
    assert fields["output_tokens"] == 4
    first_ms, mean_ms = fields["time_to_first_token_ms"], fields["inter_token_latency_ms"]
    assert isinstance(first_ms, float)
    assert isinstance(mean_ms, float)
    assert 0 < first_ms < first_ms + 3 * mean_ms < request.duration_ns / 1e6
    assert mean_ms >= 10
    intervals = fields["token_intervals"]
    assert isinstance(intervals, list)
    assert sum(intervals[1:]) == 3


def test_a_client_that_goes(url: str, ended: Ended) -> None:
    host = urlsplit(url)
    assert host.port
    with socket.create_connection((host.hostname, host.port)) as client:
        client.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(1000)
    (request,) = ended(1)
    assert gone.is_set()
    assert (request.status, request.status_message) == ("CANCELLED", "the client has gone")
    assert request.fields["output_tokens"]


def test_an_error(url: str, ended: Ended) -> None:
    assert httpx.get(f"{url}/fails").status_code == 500
    (request,) = ended(1)
    assert request.status == "ERROR"
    assert request.status_message == "KeyError: 'of the program'"
    (event,) = request.events
    assert event.attributes["exception.type"] == "KeyError"


def test_an_error_in_the_middle_of_a_stream(url: str, ended: Ended) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{url}/breaks")
    (request,) = ended(1)
    assert request.status == "ERROR"
    assert request.fields["output_tokens"] == 1


def test_what_is_not_there(url: str, ended: Ended) -> None:
    assert httpx.get(f"{url}/nowhere").status_code == 404
    (request,) = ended(1)
    assert (request.operation, request.status) == ("GET", "OK")
    assert request.attributes["http.response.status_code"] == 404


def test_a_file_is_no_stream_of_tokens(url: str, ended: Ended) -> None:
    assert httpx.get(f"{url}/file").text
    (request,) = ended(1)
    assert request.fields == {}


def test_a_span_ends_with_its_last_byte(url: str, ended: Ended) -> None:
    assert httpx.get(f"{url}/later").text == '"at once"'
    (request,) = ended(1)  # and the task in the background still runs
    assert not go_on.is_set()
    assert request.status == "OK"


def test_requests_at_once(url: str, ended: Ended) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: httpx.get(f"{url}/items/{number}"), range(24)))
    spans = ended(48)
    for request in spans:
        if request.operation != "inside":
            assert [child.operation for child in request.children] == ["inside"]


def test_many_streams_of_which_some_are_left(url: str, ended: Ended) -> None:
    count, left = 200, 50

    async def ask(client: httpx.AsyncClient, number: int) -> None:
        path = "endless" if number < left else "v1/chat/completions"
        method = "GET" if number < left else "POST"
        async with client.stream(method, f"{url}/{path}") as answer:
            async for line in answer.aiter_lines():
                assert line is not None
                if number < left:
                    return

    async def main() -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(limits=limits, timeout=60) as client:
            await asyncio.gather(*(ask(client, number) for number in range(count)))

    asyncio.run(main())
    requests = [span for span in ended(2 * count - left) if span.operation != "at the end"]
    statuses = [(span.operation, span.status) for span in requests]
    assert statuses.count(("GET /endless", "CANCELLED")) == left
    assert statuses.count(("POST /v1/chat/completions", "OK")) == count - left
    for span in requests:
        if span.status == "OK":
            assert span.fields["output_tokens"] == 4
            assert [child.operation for child in span.children] == ["at the end"]


def test_switched_off_in_the_middle_of_a_stream(recorded_spans: SpanRecorder, ended: Ended) -> None:
    infertrace.instrument("starlette")
    with served(new_app()) as url:
        with httpx.stream("POST", f"{url}/v1/chat/completions") as answer:
            lines = answer.iter_lines()
            assert next(lines) == "data: 0"
            infertrace.uninstrument("starlette")
            infertrace.instrument("starlette")
            assert "data: [DONE]" in list(lines)
        request, _ = ended(2)
    assert (request.status, request.fields["output_tokens"]) == ("OK", 4)


def test_traced_twice_is_counted_once(recorded_spans: SpanRecorder, ended: Ended) -> None:
    app = new_app()
    app.add_middleware(TracingMiddleware)
    infertrace.instrument("starlette")
    infertrace.instrument("starlette")
    with served(app) as url:
        httpx.get(f"{url}/nowhere")
    ended(1)


def test_what_is_mounted_and_what_is_left_out(recorded_spans: SpanRecorder, ended: Ended) -> None:
    def hello(request: Any) -> PlainTextResponse:
        return PlainTextResponse("hello")

    inner = Starlette(routes=[Route("/hello/{name}", hello)])
    starlette.instrument(exclude=["/health"])
    with served(Starlette(routes=[Mount("/inner", inner), Route("/health", hello)])) as url:
        assert httpx.get(f"{url}/health").text == "hello"
        assert httpx.get(f"{url}/inner/hello/you").text == "hello"
    (request,) = ended(1)
    assert request.operation == "GET /inner/hello/{name}"


def test_switched_off_it_is_as_before(recorded_spans: SpanRecorder) -> None:
    before = vars(Starlette)["__call__"]
    infertrace.instrument("starlette")
    assert vars(Starlette)["__call__"] is not before
    infertrace.uninstrument("starlette")
    infertrace.uninstrument("starlette")
    assert vars(Starlette)["__call__"] is before
    with served(new_app()) as url:
        httpx.get(f"{url}/sync")
    assert [span.operation for span in recorded_spans.spans] == ["inside"]


def test_any_asgi_application(recorded_spans: SpanRecorder, ended: Ended) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] != "/incomplete":
            await send({"type": "http.response.body", "body": b"done"})

    with served(TracingMiddleware(app)) as url:
        assert httpx.get(f"{url}/anything").text == "done"
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"{url}/incomplete")
    done, incomplete = ended(2)
    assert (done.operation, done.status) == ("GET", "OK")
    assert (incomplete.status, incomplete.status_message) == ("ERROR", "the answer is not complete")


def test_an_unsampled_request_has_no_sampled_part(recorded_spans: SpanRecorder) -> None:
    recorded_spans.tracer.configure(sample_rate=0)
    infertrace.instrument("starlette")
    with served(new_app()) as url:
        httpx.get(f"{url}/sync")
    assert recorded_spans.spans == []
