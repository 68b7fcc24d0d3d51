"""Held calls and connections take no place from calls that send; overload is temporary."""

from __future__ import annotations

import logging
import resource
import socket
import threading
import time
from contextlib import ExitStack
from typing import Any

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2, status_pb2

from collector_client import Client, NewSpan, OpenClient
from collector_process import CollectorProcess
from held_calls import held_calls
from infertrace.collector.ingest import service
from infertrace.collector.query import http_server
from infertrace.collector.server import Collector
from infertrace.generated.span_pb2 import SendSpanBatchRequest


def await_calls(count: int, client: Client) -> None:
    """Wait until that many calls have arrived."""
    name = "infertrace_collector_requests_total "
    deadline = time.monotonic() + 60
    arrived = 0.0
    while arrived < count:
        assert time.monotonic() < deadline, f"{arrived} of {count} calls arrived"
        lines = client.http.get("/metrics").text.splitlines()
        arrived = sum(float(line.split()[1]) for line in lines if line.startswith(name))


@pytest.mark.parametrize(("connections", "calls_each"), [(2, 550), (11, 100), (275, 4)])
def test_held_calls_take_no_place(
    open_client: OpenClient,
    new_span: NewSpan,
    monkeypatch: pytest.MonkeyPatch,
    connections: int,
    calls_each: int,
) -> None:
    monkeypatch.setattr(service, "READING_TURN_S", 0.2)
    monkeypatch.setattr(service, "REQUEST_TIMEOUT_S", 60.0)
    with Collector("127.0.0.1:0", "127.0.0.1:0", "memory:") as collector:
        client = open_client(collector.grpc_address, collector.http_address)
        with held_calls(collector.grpc_address, connections, calls_each):
            await_calls(1_100, client)
            accepted = sum(client.send(new_span()).accepted_count for _ in range(200))
        assert accepted == 200


def test_calls_that_are_given_up_give_their_places_back(
    open_client: OpenClient, new_span: NewSpan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls with a place and calls that wait, cancelled alone or with their connection."""
    monkeypatch.setattr(service, "READING_PLACES", 4)
    monkeypatch.setattr(service, "READING_TURN_S", 60.0)
    monkeypatch.setattr(service, "REQUEST_TIMEOUT_S", 60.0)
    with Collector("127.0.0.1:0", "127.0.0.1:0", "memory:") as collector:
        client = open_client(collector.grpc_address, collector.http_address)
        call: Any = client.channel.stream_unary("/infertrace.v1.CollectorService/SendSpanBatch")
        for arrived in (10, 30, 50):
            calls = [call.future(iter(threading.Event().wait, True)) for _ in range(10)]
            await_calls(arrived, client)
            for each in calls:
                each.cancel()
            with held_calls(collector.grpc_address, 1, 10):
                await_calls(arrived + 10, client)
        assert client.send(new_span()).accepted_count == 1


def test_held_connections_leave_files_to_open(open_client: OpenClient, new_span: NewSpan) -> None:
    """A collector raises a soft limit that a thousand connections would reach."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    try:
        process = CollectorProcess("memory:")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        client = open_client(process.endpoint, process.http)
        with held_calls(process.endpoint, 256, 0):
            assert client.send(new_span()).accepted_count == 1
            assert client.get("/health") == {"status": "ok"}
    finally:
        process.kill()


def test_a_refusal_for_want_of_room_says_when_to_come_again(
    open_client: OpenClient, new_span: NewSpan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest waiting call is refused, in a way that lets the sender retry."""
    monkeypatch.setattr(service, "READING_PLACES", 1)
    monkeypatch.setattr(service, "MAX_WAITING_CALLS", 1)
    monkeypatch.setattr(service, "READING_TURN_S", 60.0)
    with Collector("127.0.0.1:0", "127.0.0.1:0", "memory:") as collector:
        client = open_client(collector.grpc_address, collector.http_address)
        with held_calls(collector.grpc_address, 1, 1):
            await_calls(1, client)
            first = client.stub.SendSpanBatch.future(batch(new_span), timeout=60)
            await_calls(2, client)
            second = client.stub.SendSpanBatch.future(batch(new_span), timeout=60)
            assert first.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert first.details() == "too many requests at once"
            details = dict(first.trailing_metadata())["grpc-status-details-bin"]
            retry = error_details_pb2.RetryInfo()
            assert status_pb2.Status.FromString(details).details[0].Unpack(retry)
            assert retry.retry_delay.seconds == service.RETRY_DELAY_S
        assert second.result().accepted_count == 1


def batch(new_span: NewSpan) -> SendSpanBatchRequest:
    return SendSpanBatchRequest(spans=[new_span()])


def test_a_handler_that_fails_can_be_asked_again(
    client: Client,
    new_span: NewSpan,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("no room for a list")

    monkeypatch.setattr(service, "decode_batch", fail)
    with caplog.at_level(logging.ERROR, "infertrace"):
        for _ in range(3):
            with pytest.raises(grpc.RpcError) as failure:
                client.send(new_span())
            assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
            assert "no room" not in str(failure.value.details())
    (record,) = caplog.records
    assert record.exc_info is not None
    monkeypatch.undo()
    assert client.send(new_span()).accepted_count == 1


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /spans HTTP/1.1\r\nX-Slow: ", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"],
)
def test_held_connections_keep_no_reader_out(
    client: Client, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(http_server, "REQUEST_TIMEOUT_S", 60)
    monkeypatch.setattr(http_server, "KEEP_ALIVE_S", 60)
    monkeypatch.setattr(http_server, "MAX_CONNECTIONS", 32)
    url = client.http.base_url
    with ExitStack() as stack:
        for _ in range(2 * 32):
            held = stack.enter_context(socket.create_connection(client.http_address, 30))
            held.sendall(sent)
            if sent.endswith(b"\r\n\r\n"):
                # A connection that is being answered is not idle.
                assert held.recv(1) == b"H"
        for _ in range(20):
            answer = httpx.get(f"{url}/health", timeout=30, trust_env=False)
            assert answer.json() == {"status": "ok"}


def test_a_request_without_a_host(client: Client) -> None:
    """HTTP/1.0 allows a request without the header, which does not tell which host it is for."""
    with socket.create_connection(client.http_address, 30) as connection:
        connection.sendall(b"GET /ledger HTTP/1.0\r\n\r\n")
        answer = b""
        while some := connection.recv(65_536):
            answer += some
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'{"error":"host: expected the header, got none"}' in answer
