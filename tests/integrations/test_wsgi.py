"""WSGI applications on a real server with threads."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import httpx
import pytest

import infertrace
from infertrace.integrations.wsgi import TracingMiddleware
from infertrace.testing import RecordedSpan, SpanRecorder

Ended = Callable[[int], list[RecordedSpan]]
FAR = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
PLAIN = [("Content-Type", "text/plain")]


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None: ...


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None: ...


def application(environ: dict[str, Any], start_response: Any) -> Any:
    tracer = infertrace.configure()
    path = environ["PATH_INFO"]
    if path == "/fails":
        raise KeyError("of the program")
    if path == "/busy":
        start_response("503 Service Unavailable", PLAIN)
        return [b"busy"]
    start_response("200 OK", PLAIN)
    tracer.start_span("m", "inside").end()
    if path == "/plain":
        return [b"one", b"two"]

    def chunks() -> Iterator[bytes]:
        yield b"data: 1\n\n"
        if path == "/breaks":
            raise KeyError("in the middle")
        while path == "/endless":
            yield b"data: more\n\n" * 1000
        yield b"data: 2\n\n"
        yield b"data: [DONE]\n\n"
        tracer.start_span("m", "at the end").end()

    return chunks()


@pytest.fixture
def url(recorded_spans: SpanRecorder) -> Iterator[str]:
    app = TracingMiddleware(
        TracingMiddleware(application, exclude=["/health"]),
        exclude=["/health"],
        route=lambda environ: environ["PATH_INFO"],
    )
    server = make_server("127.0.0.1", 0, app, Server, Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_request(url: str, ended: Ended) -> None:
    assert httpx.get(f"{url}/plain", headers={"traceparent": FAR}).text == "onetwo"
    request, inside = ended(2)
    assert (request.operation, request.kind) == ("GET /plain", "server")
    assert (request.status, request.fields) == ("OK", {})
    assert (request.trace_id, request.parent_span_id) == ("ab" * 16, "cd" * 8)
    assert request.attributes == {
        "http.request.method": "GET",
        "url.path": "/plain",
        "http.route": "/plain",
        "http.response.status_code": 200,
    }
    assert inside.parent is request


def test_a_stream(url: str, ended: Ended) -> None:
    assert "[DONE]" in httpx.get(f"{url}/stream").text
    request, *children = ended(3)
    assert request.fields["output_tokens"] == 2
    assert "time_to_first_token_ms" in request.fields
    assert [child.operation for child in request.children] == ["inside", "at the end"]
    assert len(children) == 2


@pytest.mark.parametrize("path", ["/fails", "/breaks", "/busy"])
def test_an_error(url: str, recorded_spans: SpanRecorder, ended: Ended, path: str) -> None:
    try:
        httpx.get(f"{url}{path}")
    except httpx.RemoteProtocolError:
        assert path == "/breaks"
    ended(2 if path == "/breaks" else 1)
    request = recorded_spans.roots[0]
    messages = {"/fails": "KeyError: 'of the program'", "/busy": "HTTP 503"}
    expected = messages.get(path, "KeyError: 'in the middle'")
    assert (request.status, request.status_message) == ("ERROR", expected)


def test_a_client_that_goes(url: str, recorded_spans: SpanRecorder, ended: Ended) -> None:
    host = urlsplit(url)
    assert host.port
    with socket.create_connection((host.hostname, host.port)) as client:
        client.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(1000)
    ended(2)
    (request,) = recorded_spans.roots
    assert (request.status, request.status_message) == ("CANCELLED", "the client has gone")


def test_requests_at_once(url: str, ended: Ended) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: httpx.get(f"{url}/plain"), range(24)))
    for span in ended(48):
        if span.operation != "inside":
            assert [child.operation for child in span.children] == ["inside"]


def test_what_is_left_out(url: str, recorded_spans: SpanRecorder, ended: Ended) -> None:
    httpx.get(f"{url}/health")
    assert [span.operation for span in ended(2)] == ["inside", "at the end"]
