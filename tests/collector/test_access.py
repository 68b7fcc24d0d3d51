"""Defaults are closed: loopback, known hosts, tokens, bounded connections."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from collector_client import Client, NewSpan, OpenClient
from infertrace.collector.authorization import BearerToken, read_token
from infertrace.collector.ingest import grpc_server, service
from infertrace.collector.listen_address import ListenAddress
from infertrace.collector.query import access, http_server
from infertrace.collector.server import Collector

SECRET = "correct-horse-battery"


@pytest.fixture
def guarded() -> Iterator[Collector]:
    with Collector("127.0.0.1:0", "127.0.0.1:0", "memory:", BearerToken(SECRET)) as collector:
        yield collector


@pytest.mark.parametrize("token", [None, "wrong-horse-battery", SECRET + "x", SECRET[:-1]])
def test_without_the_token(
    guarded: Collector, open_client: OpenClient, new_span: NewSpan, token: str | None
) -> None:
    client = open_client(guarded.grpc_address, guarded.http_address)
    if token:
        client.metadata = (("authorization", f"Bearer {token}"),)
        client.http.headers["Authorization"] = f"Bearer {token}"
    with pytest.raises(grpc.RpcError) as failure:
        client.send(new_span())
    assert failure.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert client.error("/spans") == (401, "a valid token is required")
    assert client.error("/nowhere")[0] == 401
    assert client.get("/health") == {"status": "ok"}


def test_with_the_token(guarded: Collector, open_client: OpenClient, new_span: NewSpan) -> None:
    client = open_client(guarded.grpc_address, guarded.http_address, SECRET)
    assert client.send(new_span()).accepted_count == 1
    assert len(client.get("/spans")) == 1


def test_the_token_is_shown_nowhere() -> None:
    assert SECRET not in repr(BearerToken(SECRET))


def test_a_token_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(f"{SECRET}\n")
    assert read_token(path).permits(f"Bearer {SECRET}")
    for bad in ("", "short", "line one of it\nline two of it", "é" * 20):
        path.write_text(bad)
        with pytest.raises(ValueError, match="token: expected at least 16") as failure:
            read_token(path)
        assert not bad or bad not in str(failure.value)


@pytest.mark.parametrize("option", ["grpc_address", "http_address", "otlp_http_address"])
@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "example.com:0"])
def test_beyond_this_machine_only_with_a_token(option: str, address: str) -> None:
    at: dict[str, Any] = {"grpc_address": "127.0.0.1:0", "http_address": "127.0.0.1:0"}
    at[option] = address
    with pytest.raises(ValueError, match="needs a token"):
        Collector(**at, store_url="memory:").start()


def test_beyond_this_machine_with_a_token(open_client: OpenClient) -> None:
    with Collector("0.0.0.0:0", "0.0.0.0:0", "memory:", BearerToken(SECRET)) as collector:
        port = ListenAddress.parse(collector.http_address).port
        client = open_client(collector.grpc_address, f"127.0.0.1:{port}", SECRET)
        client.http.headers["Host"] = "spans.example.com"
        assert client.get("/spans") == []


def test_a_foreign_host_name(client: Client) -> None:
    """A request as DNS rebinding makes it."""
    for host in ("evil.example", "evil.example:8080", "127.0.0.1.evil.example", "[::2]:80"):
        answer = client.http.get("/spans", headers={"Host": host})
        assert (answer.status_code, list(answer.json())) == (403, ["error"])
    for host in ("localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8080"):
        assert client.http.get("/spans", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "text",
    ["", "localhost", "localhost:", ":80", "::1:80", "h:-1", "h:65536", "h:٣", "h:x", "[]:1"],
)
def test_a_bad_address(text: str) -> None:
    with pytest.raises(ValueError, match="expected HOST:PORT"):
        ListenAddress.parse(text)


def test_addresses() -> None:
    assert str(ListenAddress.parse("[::1]:80")) == "[::1]:80"
    assert ListenAddress.parse("[::1]:80").is_loopback
    assert ListenAddress.parse("localhost:80").is_loopback
    assert ListenAddress.parse("127.8.8.8:80").is_loopback
    assert not ListenAddress.parse("localhost.example:80").is_loopback


def test_a_stopped_collector_lets_go_of_its_ports() -> None:
    with Collector("127.0.0.1:0", "127.0.0.1:0", "memory:") as first:
        pass
    with Collector(first.grpc_address, first.http_address, "memory:") as second:
        assert second.grpc_address == first.grpc_address


def connect(client: Client) -> socket.socket:
    connection = socket.create_connection(client.http_address)
    connection.settimeout(30)
    return connection


def ends(connection: socket.socket) -> bool:
    try:
        return connection.recv(4_096) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("sent", [b"", b"GET /spans HTTP/1.1\r\nHost: localhost\r\nX-Slow: "])
def test_a_request_that_does_not_come_to_its_end(
    client: Client, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(http_server, "REQUEST_TIMEOUT_S", 0.1)
    with connect(client) as connection:
        connection.sendall(sent)
        assert ends(connection)


@pytest.mark.parametrize("sent", [b"", b"PRI * HTTP/2.0\r\n"])
def test_a_producer_that_does_not_come_to_its_point(
    open_client: OpenClient, new_span: NewSpan, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(grpc_server, "HANDSHAKE_TIMEOUT_MS", 200)
    with Collector("127.0.0.1:0", "127.0.0.1:0", "memory:") as collector:
        host, _, port = collector.grpc_address.rpartition(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.settimeout(30)
            connection.sendall(sent)
            while not ends(connection):  # the server may send its settings first
                pass
        client = open_client(collector.grpc_address, collector.http_address)
        assert client.send(new_span()).accepted_count == 1


def half_sent(client: Client) -> Any:
    """A call whose request never arrives: opened as a stream, which is the same on the wire."""
    call: Any = client.channel.stream_unary("/infertrace.v1.CollectorService/SendSpanBatch")
    return call.future(iter(threading.Event().wait, True), timeout=60)


def test_requests_that_do_not_come_to_their_end(
    open_client: OpenClient, new_span: NewSpan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than there are places do not keep another call waiting."""
    monkeypatch.setattr(service, "REQUEST_TIMEOUT_S", 0.2)
    with Collector("127.0.0.1:0", "127.0.0.1:0", "memory:") as collector:
        client = open_client(collector.grpc_address, collector.http_address)
        calls = [half_sent(client) for _ in range(2 * service.READING_PLACES)]
        assert client.send(new_span()).accepted_count == 1
        refused = {grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED}
        # Which of the two a call meets depends on how fast they come.
        assert {call.code() for call in calls} <= refused


def test_without_the_token_no_body_is_read(
    guarded: Collector, open_client: OpenClient, new_span: NewSpan
) -> None:
    client = open_client(guarded.grpc_address, guarded.http_address)
    assert half_sent(client).code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_second_slow_request_on_one_connection(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "REQUEST_TIMEOUT_S", 0.5)
    with connect(client) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while not answer.endswith(b'{"status":"ok"}'):  # head and body may arrive separately
            received = connection.recv(4_096)
            assert received, answer
            answer += received
        connection.sendall(b"GET /health HT")
        assert ends(connection)


def test_headers_that_do_not_end(client: Client) -> None:
    with connect(client) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * (2 * http_server.MAX_HEADER_BYTES))
        assert connection.recv(4_096).startswith(b"HTTP/1.1 4")


def test_too_many_connections(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server closes the one that has waited longest for its client."""
    client.http.close()
    monkeypatch.setattr(http_server, "MAX_CONNECTIONS", 1)
    with connect(client) as first, connect(client) as second:
        assert ends(first)
        second.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert second.recv(4_096).startswith(b"HTTP/1.1 200 ")


def test_too_many_requests(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MAX_CONCURRENT_REQUESTS", 0)
    assert client.error("/spans") == (503, "too many requests at once")
