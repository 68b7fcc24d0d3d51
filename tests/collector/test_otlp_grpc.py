"""OTLP over gRPC, on the port of our own service."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans

from collector_client import Client, NewSpan, OpenClient
from infertrace.collector.authorization import BearerToken
from infertrace.collector.ingest import grpc_server, otlp_grpc, service
from infertrace.collector.server import Collector
from infertrace.collector.store import group_commit
from infertrace.collector.store.store import StoreBusyError, StoreError
from otlp_requests import export_request, otlp_span, resource_spans

SECRET = "correct-horse-battery"
TIMEOUT_S = 60
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


class Failed(Exception):
    """A call that ended by an error."""

    def __init__(self, error: Any) -> None:
        super().__init__(error.details())
        self.code: grpc.StatusCode = error.code()
        self.trailers: dict[str, Any] = dict(error.trailing_metadata())


def sent(client: Client, request: Any, stub: Any = TraceServiceStub, **options: Any) -> Any:
    try:
        return stub(client.channel).Export(
            request, timeout=TIMEOUT_S, metadata=client.metadata, **options
        )
    except grpc.RpcError as error:
        raise Failed(error) from None


def test_spans_arrive_beside_our_own(client: Client, new_span: NewSpan) -> None:
    client.send(new_span())
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
        answer = sent(client, export_request(otlp_span()), compression=compression)
        assert not answer.HasField("partial_success")
    assert len(client.get("/spans")) == 3


def test_an_empty_request(client: Client) -> None:
    for request in (ExportTraceServiceRequest(), export_request()):
        assert not sent(client, request).HasField("partial_success")
    assert client.get("/ledger")["producers"] == []


def test_partial_success(client: Client) -> None:
    bad = [otlp_span(), otlp_span()]
    bad[0].trace_id, bad[1].span_id = bytes(16), b"1234567"
    answer = sent(client, export_request(otlp_span(), *bad, otlp_span()))
    assert answer.partial_success.rejected_spans == 2
    assert answer.partial_success.error_message == (
        "span 1: trace_id: expected 16 bytes, not all zero"
    )
    (account,) = client.get("/ledger")["producers"]
    assert account["rejected_reasons"] == {
        "trace_id: expected 16 bytes, not all zero": 1,
        "span_id: expected 8 bytes, not all zero": 1,
    }
    assert (account["received"], account["stored"], account["rejected"]) == (4, 2, 2)


def test_only_spans_that_are_wrong_for_various_reasons(client: Client) -> None:
    bad = [otlp_span(), otlp_span()]
    bad[0].trace_id, bad[1].span_id = bytes(16), b"1234567"
    assert sent(client, export_request(*bad)).partial_success.rejected_spans == 2


def test_logs_on_the_method_of_traces(client: Client) -> None:
    records = [LogRecord(time_unix_nano=time.time_ns(), severity_text="INFO") for _ in range(3)]
    logs = ExportLogsServiceRequest(
        resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=records)])]
    )
    request = ExportTraceServiceRequest.FromString(logs.SerializeToString())
    with pytest.raises(Failed, match="logs and metrics that are sent to the route of") as failure:
        sent(client, request)
    assert failure.value.code is grpc.StatusCode.INVALID_ARGUMENT
    (account,) = client.get("/ledger")["producers"]
    assert (account["stored"], account["rejected"]) == (0, 3)


@pytest.mark.parametrize("raw", [b"\x0a", b"\xff" * 20, b"\x0a\x02\x0a"])
def test_what_is_no_request(client: Client, raw: bytes) -> None:
    call: Any = client.channel.unary_unary(EXPORT)
    with pytest.raises(grpc.RpcError) as failure:
        call(raw, timeout=TIMEOUT_S)
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("stub", "request_", "signal"),
    [
        (MetricsServiceStub, ExportMetricsServiceRequest(), "metrics"),
        (LogsServiceStub, ExportLogsServiceRequest(), "logs"),
    ],
)
def test_other_signals(
    client: Client, caplog: pytest.LogCaptureFixture, stub: Any, request_: Any, signal: str
) -> None:
    with caplog.at_level(logging.WARNING, "infertrace"):
        for _ in range(3):
            with pytest.raises(Failed, match=f"OTEL_{signal.upper()}_EXPORTER=none") as failure:
                sent(client, request_, stub)
            assert failure.value.code is grpc.StatusCode.UNIMPLEMENTED
    assert len(caplog.records) == 1


@pytest.fixture
def guarded() -> Iterator[Collector]:
    with Collector("127.0.0.1:0", "127.0.0.1:0", "memory:", BearerToken(SECRET)) as collector:
        yield collector


@pytest.mark.parametrize("stub", [TraceServiceStub, MetricsServiceStub])
def test_a_token(guarded: Collector, open_client: OpenClient, stub: Any) -> None:
    client = open_client(guarded.grpc_address, guarded.http_address)
    with pytest.raises(Failed, match="a valid token is required") as failure:
        sent(client, ExportTraceServiceRequest(), stub)
    assert failure.value.code is grpc.StatusCode.UNAUTHENTICATED
    allowed = open_client(guarded.grpc_address, guarded.http_address, SECRET)
    sent(allowed, export_request(otlp_span()))


def large(size: int) -> ExportTraceServiceRequest:
    """A request of roughly `size` bytes."""
    return export_request(*[otlp_span(name="x" * 1_000) for _ in range(size // 1_060)])


def test_the_largest_message_of_the_collector(client: Client) -> None:
    """OTLP gets four times the room of our own service, whose senders make smaller batches."""
    request = large(service.MAX_REQUEST_BYTES + 1_000_000)
    assert not sent(client, request).HasField("partial_success")
    with pytest.raises(Failed, match="larger than max") as failure:
        sent(client, large(grpc_server.MAX_MESSAGE_BYTES + 1_000_000))
    assert failure.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert otlp_grpc_retry(failure.value) is None


def test_our_own_service_takes_no_larger_message_than_before(client: Client) -> None:
    with pytest.raises(grpc.RpcError) as failure:
        client.send_bytes(bytes(service.MAX_REQUEST_BYTES + 1))
    assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max (16777217 vs. 16777216)" in str(failure.value.details())


def otlp_grpc_retry(failure: Failed) -> float | None:
    """The delay that both trailers tell, in seconds."""
    details = failure.trailers.get("grpc-status-details-bin")
    raw = failure.trailers.get("google.rpc.retryinfo-bin")
    if raw is None:
        assert details is None
        return None
    packed, found = error_details_pb2.RetryInfo(), error_details_pb2.RetryInfo.FromString(raw)
    assert status_pb2.Status.FromString(details).details[0].Unpack(packed)
    assert packed == found
    return float(found.retry_delay.ToMilliseconds() / 1_000)


@pytest.mark.parametrize(
    ("failure", "code", "retry_s"),
    [
        (StoreBusyError("too much"), grpc.StatusCode.RESOURCE_EXHAUSTED, 1.0),
        (group_commit.OverloadError("too much"), grpc.StatusCode.RESOURCE_EXHAUSTED, 1.0),
        (StoreError("the disk"), grpc.StatusCode.UNAVAILABLE, None),
        (MemoryError("unforeseen"), grpc.StatusCode.UNAVAILABLE, None),
    ],
)
def test_when_to_come_again(
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception,
    code: grpc.StatusCode,
    retry_s: float | None,
) -> None:
    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(group_commit.GroupCommit, "submit", fail)
    request = export_request(otlp_span())
    with pytest.raises(Failed) as found:
        sent(client, request)
    assert (found.value.code, otlp_grpc_retry(found.value)) == (code, retry_s)
    monkeypatch.undo()
    sent(client, request)
    assert len(client.get("/spans")) == 1


def test_a_store_that_takes_longer_than_a_client_waits(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer comes before the client gives up, and what it sends again is stored once."""
    assert otlp_grpc.COMMIT_TIMEOUT_S < otlp_grpc.ANSWER_WITHIN_S < 10
    monkeypatch.setattr(otlp_grpc, "COMMIT_TIMEOUT_S", 0.0)
    submit = group_commit.GroupCommit.submit

    def submit_unanswered(*arguments: Any) -> Future[None]:
        submit(*arguments)
        return Future()  # the store's own may be done before anybody has waited

    monkeypatch.setattr(group_commit.GroupCommit, "submit", submit_unanswered)
    request = export_request(otlp_span())
    codes = set()
    for _ in range(50):
        with pytest.raises(Failed) as failure:
            sent(client, request)
        codes.add(failure.value.code)
    monkeypatch.undo()
    assert codes == {grpc.StatusCode.UNAVAILABLE}
    sent(client, request)
    assert len(client.get("/spans")) == 1
    (account,) = client.get("/ledger")["producers"]
    assert (account["stored"], account["duplicates"]) == (1, 50)


def test_each_process_has_an_account(client: Client) -> None:
    groups = [
        resource_spans(otlp_span(), service_instance_id="a"),
        resource_spans(otlp_span(), otlp_span(), service_instance_id="b"),
        resource_spans(otlp_span(), service_instance_id="a", host_name="other"),
        resource_spans(otlp_span()),
        ResourceSpans(),
    ]
    request = ExportTraceServiceRequest(resource_spans=groups)
    sent(client, request)
    sent(client, request)
    found = client.get("/ledger")["producers"]
    assert sorted((account["stored"], account["duplicates"]) for account in found) == [
        (1, 1),
        (2, 2),
        (2, 2),
    ]
    assert {account["numbered"] for account in found} == {False}
    assert {account["complete"] for account in found} == {None}
    ids = {account["producer_id"] for account in found}
    assert {span["producer_id"].replace("-", "") for span in client.get("/spans")} == ids


def test_an_account_outlasts_the_collector(file_url: str, open_client: OpenClient) -> None:
    for count in (1, 2):
        with ExitStack() as stack:
            collector = stack.enter_context(Collector("127.0.0.1:0", "127.0.0.1:0", file_url))
            client = open_client(collector.grpc_address, collector.http_address)
            sent(client, export_request(otlp_span(), service_instance_id="a"))
            (account,) = client.get("/ledger")["producers"]
            assert (account["stored"], account["received"]) == (count, count)


def test_many_senders_at_once(client: Client) -> None:
    groups = [resource_spans(otlp_span(), service_instance_id=str(n)) for n in range(500)]
    sent(client, ExportTraceServiceRequest(resource_spans=groups))
    found = client.get("/ledger", limit=1_000)["producers"]
    assert [account["stored"] for account in found] == [1] * 500


def test_random_bytes(client: Client) -> None:
    """Whatever comes, the answer is one that gRPC can carry."""
    call: Any = client.channel.unary_unary(EXPORT)
    calls = [call.future(os.urandom(64), timeout=TIMEOUT_S) for _ in range(50)]
    assert {each.code() for each in calls} <= {
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
    }
