"""Connections of WebSocket to FastAPI and other applications on a real server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocketDisconnect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

import infertrace
from infertrace.integrations.asgi import TracingMiddleware
from infertrace.testing import RecordedSpan, SpanRecorder
from served_app import served

Ended = Callable[[int], list[RecordedSpan]]
FAR = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
FLOOD = b"x" * 10_000
gone = threading.Event()


def new_app() -> FastAPI:
    app = FastAPI()

    @app.websocket("/chat/{room}")
    async def chat(socket: WebSocket, room: str) -> None:
        await socket.accept()
        try:
            while (text := await socket.receive_text()) != "end":
                infertrace.configure().start_span("m", "inside").end()
                await socket.send_text(f"{room}: {text}")
        except WebSocketDisconnect:
            return
        await socket.close(4001)

    @app.websocket("/careless")
    async def careless(socket: WebSocket) -> None:
        await socket.accept()
        while True:
            await socket.receive_text()

    @app.websocket("/flood")
    async def flood(socket: WebSocket) -> None:
        await socket.accept()
        try:
            while True:
                await socket.send_bytes(FLOOD)
                await asyncio.sleep(0.001)  # or the server never looks at the connection
        finally:
            gone.set()

    @app.websocket("/fails")
    async def fails(socket: WebSocket) -> None:
        await socket.accept()
        raise KeyError("of the program")

    @app.websocket("/overloaded")
    async def overloaded(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close(1013)

    @app.websocket("/private")
    async def private(socket: WebSocket) -> None:
        await socket.close(1008)

    @app.websocket("/denied")
    async def denied(socket: WebSocket) -> None:
        await socket.send_denial_response(PlainTextResponse("later", 503))

    return app


@pytest.fixture(params=["instrument", "add_middleware"])
def url(request: pytest.FixtureRequest, recorded_spans: SpanRecorder) -> Iterator[str]:
    """An application, traced by either way."""
    gone.clear()
    app = new_app()
    if request.param == "instrument":
        infertrace.instrument("starlette")
    else:
        app.add_middleware(TracingMiddleware)
    with served(app) as url:
        yield url.replace("http", "ws", 1)


def ask(client: ClientConnection, text: str) -> str | bytes:
    client.send(text)
    return client.recv(10)


def test_a_connection(url: str, ended: Ended) -> None:
    with connect(f"{url}/chat/red", additional_headers={"traceparent": FAR}) as client:
        assert [ask(client, text) for text in ("a", "b")] == ["red: a", "red: b"]
    connection, *inside = ended(3)
    assert (connection.operation, connection.kind) == ("WS /chat/{room}", "server")
    assert (connection.status, connection.status_message) == ("OK", None)
    assert (connection.trace_id, connection.parent_span_id) == ("ab" * 16, "cd" * 8)
    assert connection.attributes == {
        "url.path": "/chat/red",
        "http.route": "/chat/{room}",
        "http.response.status_code": 101,
        "websocket.close_code": 1000,
        "websocket.messages_received": 2,
        "websocket.messages_sent": 2,
    }
    assert connection.fields == {}
    assert [span.parent for span in inside] == [connection, connection]


@pytest.mark.parametrize(
    ("code", "status"), [(1001, "OK"), (1002, "ERROR"), (1011, "ERROR"), (4000, "OK")]
)
def test_a_client_that_closes(url: str, ended: Ended, code: int, status: str) -> None:
    with connect(f"{url}/chat/red") as client:
        client.close(code, "enough")
    (connection,) = ended(1)
    assert (connection.status, connection.attributes["websocket.close_code"]) == (status, code)


def test_a_client_that_goes(url: str, ended: Ended) -> None:
    with connect(f"{url}/chat/red") as client:
        ask(client, "a")
        client.socket.shutdown(2)
    connection, _ = ended(2)
    # Some servers say that as if the client had closed without a code.
    expected: dict[Any, Any] = {1005: ("OK", None), 1006: ("CANCELLED", "the client has gone")}
    code = connection.attributes["websocket.close_code"]
    assert (connection.status, connection.status_message) == expected[code]


def test_a_client_that_goes_while_it_is_sent_to(url: str, ended: Ended) -> None:
    with connect(f"{url}/flood", max_size=None) as client:
        assert client.recv(10) == FLOOD
        client.socket.shutdown(2)
    (connection,) = ended(1)
    assert gone.is_set()
    assert (connection.status, connection.status_message) == ("CANCELLED", "the client has gone")
    assert connection.attributes["websocket.messages_sent"]


def test_an_application_that_does_not_catch_the_end(url: str, ended: Ended) -> None:
    with connect(f"{url}/careless") as client:
        client.send("a")
    (connection,) = ended(1)
    assert (connection.status, connection.events) == ("OK", ())
    assert connection.attributes["websocket.messages_received"] == 1


def test_a_server_that_closes(url: str, ended: Ended) -> None:
    with connect(f"{url}/chat/red") as client:
        client.send("end")
        with pytest.raises(ConnectionClosed):
            client.recv(10)
    with connect(f"{url}/overloaded") as client, pytest.raises(ConnectionClosed):
        client.recv(10)
    chat, overloaded = ended(2)
    assert (chat.status, chat.attributes["websocket.close_code"]) == ("OK", 4001)
    assert (overloaded.status, overloaded.status_message) == ("ERROR", "closed with 1013")


def test_an_error(url: str, ended: Ended) -> None:
    with connect(f"{url}/fails") as client, pytest.raises(ConnectionClosed):
        client.recv(10)
    (connection,) = ended(1)
    assert connection.status == "ERROR"
    assert connection.status_message == "KeyError: 'of the program'"


@pytest.mark.parametrize(
    ("path", "code", "status"),
    [("/private", 403, "OK"), ("/nowhere", 403, "OK"), ("/denied", 503, "ERROR")],
)
def test_a_handshake_that_is_refused(
    url: str, ended: Ended, path: str, code: int, status: str
) -> None:
    with pytest.raises(InvalidStatus), connect(url + path):
        pass
    (connection,) = ended(1)
    route = "" if path == "/nowhere" else f" {path}"
    assert connection.operation == f"WS{route}"
    assert (connection.status, connection.attributes["http.response.status_code"]) == (status, code)
    assert "websocket.close_code" not in connection.attributes


def test_connections_at_once(url: str, ended: Ended) -> None:
    def talk(number: int) -> None:
        with connect(f"{url}/chat/{number}") as client:
            for _ in range(3):
                assert ask(client, "a") == f"{number}: a"

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(talk, range(24)))
    for span in ended(24 * 4):
        if span.operation != "inside":
            assert [child.operation for child in span.children] == ["inside"] * 3


def test_any_asgi_application(recorded_spans: SpanRecorder, ended: Ended) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()

    with served(TracingMiddleware(app)) as url, pytest.raises(InvalidStatus):
        connect(url.replace("http", "ws", 1))
    (connection,) = ended(1)
    assert connection.operation == "WS"
    assert connection.status_message == "the handshake is not complete"


def test_an_unsampled_connection_has_no_sampled_part(recorded_spans: SpanRecorder) -> None:
    recorded_spans.tracer.configure(sample_rate=0)
    infertrace.instrument("starlette")
    with served(new_app()) as url, connect(url.replace("http", "ws", 1) + "/chat/1") as client:
        assert ask(client, "a") == "1: a"
    assert recorded_spans.spans == []
