"""OTLP over HTTP: statuses, encodings, refusals, browsers.

`test_*_of_the_collector` are the tables of the OpenTelemetry Collector's own tests:
https://github.com/open-telemetry/opentelemetry-collector, receiver/otlpreceiver/otlp_test.go,
otlphttp_test.go and config/confighttp/compression_test.go.
"""

from __future__ import annotations

import gzip
import json
import logging
import socket
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf import json_format
from google.rpc import code_pb2, status_pb2
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from infertrace.collector.authorization import BearerToken
from infertrace.collector.ingest import otlp_http
from infertrace.collector.ingest.wire_fields import RequestError
from infertrace.collector.query import http_server
from infertrace.collector.server import Collector
from infertrace.collector.store import group_commit
from infertrace.collector.store.store import StoreBusyError, StoreError
from otlp_requests import export_request, otlp_span

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PROTOBUF, JSON = "application/x-protobuf", "application/json"
SECRET = "correct-horse-battery"
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "identity": bytes,
    "gzip": gzip.compress,
    "GZIP": gzip.compress,
    "deflate": zlib.compress,
    "zlib": zlib.compress,
    "zstd": zstd.compress,
}


class Sender:
    def __init__(self, collector: Collector) -> None:
        self._api = httpx.Client(base_url=f"http://{collector.http_address}", trust_env=False)
        self.http = httpx.Client(
            base_url=f"http://{collector.otlp_http_address}", trust_env=False, timeout=60
        )

    def post(
        self,
        body: bytes,
        content_type: str = PROTOBUF,
        path: str = "/v1/traces",
        method: str = "POST",
        **headers: str,
    ) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.request(
            method, path, content=body, headers={"content-type": content_type, **named}
        )

    def stored(self) -> int:
        return len(self._api.get("/spans", params={"limit": 10_000}).json())

    def producers(self) -> list[dict[str, Any]]:
        return self._api.get("/ledger").json()["producers"]

    @property
    def address(self) -> tuple[str, int]:
        url = self.http.base_url
        assert url.port is not None
        return url.host, url.port

    def close(self) -> None:
        self._api.close()
        self.http.close()


def started(stack: ExitStack, **options: Any) -> Sender:
    collector = stack.enter_context(
        Collector(
            "127.0.0.1:0", "127.0.0.1:0", "memory:", otlp_http_address="127.0.0.1:0", **options
        )
    )
    sender = Sender(collector)
    stack.callback(sender.close)
    return sender


@pytest.fixture
def sender() -> Iterator[Sender]:
    with ExitStack() as stack:
        yield started(stack)


def body_of(content_type: str, *spans: Span) -> bytes:
    request = export_request(*(spans or (otlp_span(),)))
    if not content_type.lower().startswith(JSON):
        return request.SerializeToString()
    document = json_format.MessageToDict(request, use_integers_for_enums=True)
    for group in document["resourceSpans"]:
        for scope, given in zip(group["scopeSpans"], request.resource_spans, strict=True):
            for span, original in zip(scope["spans"], given.scope_spans[0].spans, strict=True):
                span["traceId"], span["spanId"] = original.trace_id.hex(), original.span_id.hex()
    return json.dumps(document).encode()


def assert_status(answer: httpx.Response, code: int, content_type: str, about: str = "") -> None:
    """The body is a google.rpc.Status in the encoding of the request."""
    assert answer.headers["content-type"] == content_type
    if content_type == JSON:
        found = json_format.Parse(answer.content, status_pb2.Status())
    else:
        found = status_pb2.Status.FromString(answer.content)
    assert found.code == code
    assert about in found.message
    assert found.message


@pytest.mark.parametrize(
    "content_type",
    [JSON, f"{JSON}; charset=utf-8", JSON.upper(), PROTOBUF, f"{PROTOBUF};x=y", PROTOBUF.upper()],
)
@pytest.mark.parametrize("encoding", COMPRESS)
def test_what_is_taken_of_the_collector(sender: Sender, content_type: str, encoding: str) -> None:
    body = COMPRESS[encoding](body_of(content_type))
    headers = {"content_encoding": encoding} if encoding else {}
    answer = sender.post(body, content_type, **headers)
    assert answer.status_code == 200, answer.text
    expected = JSON if content_type.lower().startswith(JSON) else PROTOBUF
    assert answer.content == (b"{}" if expected == JSON else b"")
    assert answer.headers["content-type"] == expected
    assert sender.stored() == 1


UNSUPPORTED = f"415 unsupported media type, supported: [{JSON}, {PROTOBUF}]"
NOT_ALLOWED = "405 method not allowed, supported: [POST]"


@pytest.mark.parametrize(
    ("method", "content_type", "status", "expected"),
    [
        ("POST", "", 415, UNSUPPORTED),
        ("POST", "invalid", 415, UNSUPPORTED),
        ("PATCH", JSON, 405, NOT_ALLOWED),
        ("GET", JSON, 405, NOT_ALLOWED),
        ("PUT", PROTOBUF, 405, NOT_ALLOWED),
        ("HEAD", "", 405, ""),
    ],
)
@pytest.mark.parametrize("path", ["/v1/traces", "/", "/v1/traces/"])
def test_invalid_requests_of_the_collector(
    sender: Sender, path: str, method: str, content_type: str, status: int, expected: str
) -> None:
    answer = sender.post(b"{}", content_type, path, method)
    assert answer.status_code == status
    if content_type in (JSON, PROTOBUF):
        assert_status(answer, code_pb2.UNIMPLEMENTED, content_type, expected)
    else:
        assert answer.text == expected
        assert answer.headers["content-type"].startswith("text/plain")
    if status == 405:
        assert "POST" in answer.headers["allow"]


@pytest.mark.parametrize("content_type", [JSON, PROTOBUF])
@pytest.mark.parametrize("encoding", ["gzip", "zstd", "deflate", "zlib", "nosuchcompression"])
def test_invalid_encodings_of_the_collector(
    sender: Sender, content_type: str, encoding: str
) -> None:
    answer = sender.post(b'{"key": "value"}', content_type, content_encoding=encoding)
    assert answer.status_code == 400
    assert_status(answer, code_pb2.INVALID_ARGUMENT, content_type, encoding)


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "deflate"])
def test_a_compressed_body_that_is_cut_short(sender: Sender, encoding: str) -> None:
    whole = COMPRESS[encoding](body_of(PROTOBUF, *[otlp_span() for _ in range(50)]))
    for size in range(1, len(whole), max(1, len(whole) // 40)):
        assert sender.post(whole[:size], content_encoding=encoding).status_code == 400
    assert sender.stored() == 0


@pytest.mark.parametrize("content_type", [JSON, PROTOBUF])
@pytest.mark.parametrize("encoding", ["", "gzip", "zstd", "deflate"])
@pytest.mark.parametrize("room", [0, -1])
def test_the_largest_body_of_the_collector(
    monkeypatch: pytest.MonkeyPatch, content_type: str, encoding: str, room: int
) -> None:
    body = body_of(content_type, otlp_span(name="long" * 1_000))
    monkeypatch.setattr(otlp_http, "MAX_BODY_BYTES", len(body) + room)
    headers = {"content_encoding": encoding} if encoding else {}
    with ExitStack() as stack:
        sender = started(stack)
        answer = sender.post(COMPRESS[encoding](body), content_type, **headers)
        if room == 0:
            assert answer.status_code == 200
        else:
            assert answer.status_code == 413
            assert_status(answer, code_pb2.INVALID_ARGUMENT, content_type, str(len(body) - 1))
        assert sender.stored() == (room == 0)


def test_a_chunked_body_above_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp_http, "MAX_BODY_BYTES", 1_000)
    with ExitStack() as stack:
        sender = started(stack)
        answer = sender.http.post(
            "/v1/traces", content=iter([b"x" * 600] * 4), headers={"content-type": PROTOBUF}
        )
        assert answer.status_code == 413


@pytest.mark.parametrize("content_type", [JSON, PROTOBUF])
@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_a_chunked_body(sender: Sender, content_type: str, encoding: str) -> None:
    body = COMPRESS[encoding](body_of(content_type))
    pieces = iter([body[n : n + 7] for n in range(0, len(body), 7)])
    headers = {"content-type": content_type} | ({"content-encoding": encoding} if encoding else {})
    answer = sender.http.post("/v1/traces", content=pieces, headers=headers)
    assert (answer.status_code, sender.stored()) == (200, 1)


@pytest.mark.parametrize(
    ("failure", "status", "retry_after", "code"),
    [
        (StoreError("the disk"), 503, "1", code_pb2.UNAVAILABLE),
        (StoreBusyError("too much"), 429, "1", code_pb2.RESOURCE_EXHAUSTED),
        (group_commit.OverloadError("too much"), 429, "1", code_pb2.RESOURCE_EXHAUSTED),
        (MemoryError("unforeseen"), 503, "1", code_pb2.UNAVAILABLE),
        (TimeoutError("late"), 503, "1", code_pb2.UNAVAILABLE),
        (RequestError("wrong"), 400, None, code_pb2.INVALID_ARGUMENT),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
@pytest.mark.parametrize("content_type", [JSON, PROTOBUF])
def test_when_to_come_again_of_the_collector(
    sender: Sender,
    monkeypatch: pytest.MonkeyPatch,
    content_type: str,
    failure: Exception,
    status: int,
    retry_after: str | None,
    code: int,
) -> None:
    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(group_commit.GroupCommit, "submit", fail)
    answer = sender.post(body_of(content_type), content_type)
    assert answer.status_code == status
    assert answer.headers.get("retry-after") == retry_after
    assert_status(answer, code, content_type)
    monkeypatch.undo()
    assert sender.post(body_of(content_type), content_type).status_code == 200


@pytest.mark.parametrize("content_type", [JSON, PROTOBUF])
def test_partial_success(sender: Sender, content_type: str) -> None:
    spans = [otlp_span(), otlp_span(), otlp_span()]
    spans[1].span_id = b"short"
    answer = sender.post(body_of(content_type, *spans), content_type)
    assert answer.status_code == 200
    if content_type == JSON:
        found = json_format.Parse(answer.content, ExportTraceServiceResponse())
    else:
        found = ExportTraceServiceResponse.FromString(answer.content)
    assert found.partial_success.rejected_spans == 1
    assert found.partial_success.error_message == (
        "span 1: span_id: expected 8 bytes, not all zero"
    )
    assert sender.stored() == 2
    (account,) = sender.producers()
    assert account["numbered"] is False
    assert account["rejected_reasons"] == {"span_id: expected 8 bytes, not all zero": 1}
    assert (account["received"], account["stored"], account["rejected"]) == (3, 2, 1)
    assert (account["service_name"], account["completeness"]) == ("server", None)


@pytest.mark.parametrize(("content_type", "body"), [(JSON, b"{}"), (PROTOBUF, b"")])
def test_an_empty_request(sender: Sender, content_type: str, body: bytes) -> None:
    answer = sender.post(body, content_type)
    assert (answer.status_code, answer.content) == (200, body)
    assert sender.producers() == []


@pytest.mark.parametrize("content_type", [JSON, PROTOBUF])
def test_a_body_that_is_nothing(sender: Sender, content_type: str) -> None:
    answer = sender.post(b"nonsense", content_type)
    assert answer.status_code == 400
    assert_status(answer, code_pb2.INVALID_ARGUMENT, content_type)


def test_logs_on_the_route_of_traces(sender: Sender) -> None:
    records = [LogRecord(time_unix_nano=time.time_ns(), severity_text="INFO") for _ in range(3)]
    logs = ExportLogsServiceRequest(
        resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=records)])]
    )
    answer = sender.post(logs.SerializeToString())
    assert answer.status_code == 400
    assert_status(answer, code_pb2.INVALID_ARGUMENT, PROTOBUF, "logs and metrics")


@pytest.mark.parametrize("signal", ["metrics", "logs"])
@pytest.mark.parametrize("content_type", [JSON, PROTOBUF])
def test_other_signals(
    sender: Sender, caplog: pytest.LogCaptureFixture, signal: str, content_type: str
) -> None:
    with caplog.at_level(logging.WARNING, "infertrace"):
        for _ in range(3):
            answer = sender.post(b"{}", content_type, f"/v1/{signal}")
            assert answer.status_code == 404
            variable = f"OTEL_{signal.upper()}_EXPORTER=none"
            assert_status(answer, code_pb2.UNIMPLEMENTED, content_type, variable)
    (record,) = caplog.records
    assert signal in record.getMessage()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/traces/v1/traces", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        ("/api/v1/traces", "traces go to /v1/traces, which"),
        ("/v1", "takes traces, on /v1/traces"),
        ("/V1/TRACES", "takes traces, on /v1/traces"),
    ],
)
def test_no_such_route(sender: Sender, path: str, expected: str) -> None:
    answer = sender.post(body_of(PROTOBUF), path=path)
    assert answer.status_code == 404
    assert_status(answer, code_pb2.UNIMPLEMENTED, PROTOBUF, expected)


@pytest.mark.parametrize("path", ["/v1/traces", "/v1/traces/", "/", "/v1/traces?x=y"])
def test_routes(sender: Sender, path: str) -> None:
    assert sender.post(body_of(PROTOBUF), path=path).status_code == 200
    assert sender.stored() == 1


@pytest.mark.parametrize("content_type", [JSON, PROTOBUF])
@pytest.mark.parametrize("path", ["/v1/traces", "/v1/logs", "/nowhere"])
@pytest.mark.parametrize("token", [None, "wrong-horse-battery", SECRET])
def test_a_token(content_type: str, path: str, token: str | None) -> None:
    with ExitStack() as stack:
        sender = started(stack, token=BearerToken(SECRET))
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        answer = sender.post(body_of(content_type), content_type, path, **headers)
        if token == SECRET:
            assert answer.status_code == (200 if path == "/v1/traces" else 404)
        else:
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert_status(answer, code_pb2.UNAUTHENTICATED, content_type, "token")


APP, OTHER = "https://app.example.com", "https://evil.example"


@pytest.mark.parametrize(
    ("origins", "origin", "is_allowed"),
    [
        ((), None, True),
        ((), APP, False),
        ((), "null", False),
        ((), "http://127.0.0.1:4318", False),
        ((APP,), APP, True),
        ((APP,), OTHER, False),
        ((APP,), f"{APP}.evil.example", False),
        (("*",), OTHER, True),
    ],
)
def test_browsers(origins: tuple[str, ...], origin: str | None, is_allowed: bool) -> None:
    with ExitStack() as stack:
        sender = started(stack, otlp_origins=origins)
        headers = {} if origin is None else {"origin": origin}
        answer = sender.post(body_of(JSON), JSON, **headers)
        assert answer.status_code == (200 if is_allowed else 403)
        assert sender.stored() == is_allowed
        if not is_allowed:
            assert_status(answer, code_pb2.PERMISSION_DENIED, JSON, "--otlp-origin")
        allowed = origin if is_allowed and origin else None
        assert answer.headers.get("access-control-allow-origin") == allowed


@pytest.mark.parametrize("token", [None, BearerToken(SECRET)])
def test_a_browser_that_asks_first(token: BearerToken | None) -> None:
    with ExitStack() as stack:
        sender = started(stack, otlp_origins=(APP,), token=token)
        asked = {
            "access_control_request_method": "POST",
            "access_control_request_headers": "authorization,content-type",
        }
        answer = sender.post(b"", "", method="OPTIONS", origin=APP, **asked)
        assert answer.status_code == 204
        assert answer.headers["access-control-allow-origin"] == APP
        assert answer.headers["access-control-allow-methods"] == "POST"
        assert answer.headers["access-control-allow-headers"] == "authorization,content-type"
        assert answer.headers["vary"] == "origin"
        refused = sender.post(b"", "", method="OPTIONS", origin=OTHER, **asked)
        assert refused.status_code == 403
        assert not [name for name in refused.headers if name.startswith("access-control")]
        assert sender.post(b"", "", method="OPTIONS").status_code == 204


def test_a_refusal_that_a_page_may_read() -> None:
    with ExitStack() as stack:
        sender = started(stack, otlp_origins=(APP,))
        answer = sender.post(b"nonsense", JSON, origin=APP)
        assert answer.status_code == 400
        assert answer.headers["access-control-allow-origin"] == APP


def hold(stack: ExitStack, address: tuple[str, int]) -> socket.socket:
    """A request whose body does not come to its end."""
    held = stack.enter_context(socket.create_connection(address, 30))
    head = f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\n"
    held.sendall(f"{head}Content-Length: 100\r\n\r\nx".encode())
    return held


def test_held_requests_take_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp_http, "READING_PLACES", 4)
    monkeypatch.setattr(otlp_http, "READING_TURN_S", 0.2)
    with ExitStack() as stack:
        sender = started(stack)
        threads = threading.active_count()
        for _ in range(100):
            hold(stack, sender.address)
        for _ in range(30):
            assert sender.post(body_of(PROTOBUF)).status_code == 200
        assert sender.stored() == 30
        assert threading.active_count() <= threads + 20  # those that decode


def test_a_body_that_does_not_come_is_told_to_come_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(otlp_http, "ANSWER_WITHIN_S", 0.3)
    with ExitStack() as stack:
        held = hold(stack, started(stack).address)
        answer = held.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1\r\n" in answer.lower()


def test_a_slow_body_that_others_need_the_place_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp_http, "READING_PLACES", 1)
    monkeypatch.setattr(otlp_http, "READING_TURN_S", 0.1)
    with ExitStack() as stack:
        sender = started(stack)
        held = hold(stack, sender.address)
        while sender.post(body_of(PROTOBUF)).status_code != 200:
            pass
        answer = held.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert b"retry-after: 1\r\n" in answer.lower()
        # The connection goes on once the rest of the body has come.
        held.sendall(b"x" * 99 + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert held.recv(65_536).startswith(b"HTTP/1.1 405 ")


def test_bytes_of_all_bodies_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp_http, "MAX_READING_BYTES", 1_000)
    with ExitStack() as stack:
        sender = started(stack)
        answer = sender.post(body_of(PROTOBUF, *[otlp_span() for _ in range(50)]))
        assert answer.status_code == 429
        for _ in range(20):  # whose bytes are let go of
            assert sender.post(body_of(PROTOBUF)).status_code == 200


def test_a_client_that_waits_for_leave_to_send(sender: Sender) -> None:
    """It sends no body where it is refused."""
    for path, expected in (("/v1/traces", b"HTTP/1.1 100 "), ("/v1/logs", b"HTTP/1.1 404 ")):
        with socket.create_connection(sender.address, 30) as connection:
            body = body_of(PROTOBUF)
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\n"
            head += f"Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode())
            assert connection.recv(65_536).startswith(expected)


def test_grpc_on_the_port_of_http(sender: Sender) -> None:
    host, port = sender.address
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        call: Any = channel.unary_unary(
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
        )
        with pytest.raises(grpc.RpcError):
            call(b"", timeout=30)
    assert sender.post(body_of(PROTOBUF)).status_code == 200


def test_a_bomb(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp_http, "MAX_BODY_BYTES", 5_000_000)
    for encoding in ("gzip", "deflate", "zstd"):
        bomb = COMPRESS[encoding](bytes(200_000_000))
        assert sender.post(bomb, content_encoding=encoding).status_code == 413


def test_an_idle_connection_is_closed(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "REQUEST_TIMEOUT_S", 0.1)
    with socket.create_connection(sender.address, 30) as connection:
        connection.sendall(b"POST /v1/traces HT")
        with suppress(ConnectionResetError):
            assert connection.recv(1) == b""
