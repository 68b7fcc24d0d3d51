"""What is durable goes on to other collectors, and the account of it closes."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from canonical_otlp import canonical
from collector_client import Client
from collector_process import CollectorProcess
from grpc_receiver import Receiver
from infertrace.collector.forwarding import forward_queue, forwarder
from infertrace.collector.forwarding.forward_target import parse_forwards
from infertrace.collector.ingest.sent_spans import SentSpans
from infertrace.collector.server import Collector
from infertrace.generated.span_pb2 import (
    Resource,
    SendSpanBatchRequest,
    SendSpanBatchResponse,
    Span,
)
from lasting_address import lasting_address
from otlp_receiver import GrpcOtlpReceiver, HttpAnswer, HttpOtlpReceiver, spans_of
from otlp_requests import export_request, key_values, otlp_span, resource_spans
from store_batches import new_span

WAIT_S = 60.0


def eventually(is_true: Callable[[], bool], what: Callable[[], object] = lambda: "") -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_true():
        assert time.monotonic() < deadline, what()
        time.sleep(0.02)


class Forwarding:
    """A collector that forwards, and who sends to it."""

    def __init__(self, *urls: str) -> None:
        self.collector = Collector(
            "127.0.0.1:0", "127.0.0.1:0", "memory:", forward=parse_forwards(",".join(urls))
        )
        self.collector.start()
        self.client = Client(self.collector.grpc_address, self.collector.http_address)
        self._export = TraceServiceStub(self.client.channel).Export

    def export(self, request: ExportTraceServiceRequest) -> ExportTraceServiceResponse:
        return self._export(request, timeout=30)

    def account(self, target: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get("/ledger")["forwards"][target]
        dropped = sum(found["dropped"].values())
        assert found["received"] == found["delivered"] + found["pending"] + dropped
        return found

    def settled(self, target: int = 0) -> dict[str, Any]:
        """The account once nothing is pending."""
        eventually(lambda: not self.account(target)["pending"], lambda: self.account(target))
        return self.account(target)

    def close(self) -> None:
        self.client.close()
        self.collector.stop()


@pytest.fixture
def forwarding() -> Iterator[Callable[..., Forwarding]]:
    with ExitStack() as stack:

        def start(*urls: str) -> Forwarding:
            started = Forwarding(*urls)
            stack.callback(started.close)
            return started

        yield start


@pytest.fixture
def receiver() -> Iterator[GrpcOtlpReceiver]:
    started = GrpcOtlpReceiver()
    yield started
    started.stop()


@pytest.fixture
def http_receiver() -> Iterator[HttpOtlpReceiver]:
    started = HttpOtlpReceiver()
    yield started
    started.stop()


@pytest.fixture
def own_receiver() -> Iterator[Receiver]:
    started = Receiver()
    yield started
    started.stop()


def test_otlp_goes_on_as_it_came(
    forwarding: Any, receiver: GrpcOtlpReceiver, http_receiver: HttpOtlpReceiver
) -> None:
    one = forwarding(
        f"otlp/grpc://{receiver.endpoint}",
        f"otlp/http://{http_receiver.endpoint.removeprefix('http://')}/a/b",
    )
    request = ExportTraceServiceRequest(
        resource_spans=[
            resource_spans(otlp_span(kind=3), otlp_span(kind=2, flags=1), host_name="a"),
            resource_spans(otlp_span(kind=4, attributes=key_values({"k": "v"})), host_name="b"),
        ]
    )
    for group in request.resource_spans:
        group.scope_spans[0].scope.name = "lib"
    one.export(request)
    for number, kept in enumerate((receiver, http_receiver)):
        assert one.settled(number)["delivered"] == 3
        assert canonical(*kept.requests) == canonical(request)
    assert set(http_receiver.paths) == {"/a/b"}


def test_only_valid_spans_go_on(forwarding: Any, receiver: GrpcOtlpReceiver) -> None:
    one = forwarding(f"otlp/grpc://{receiver.endpoint}")
    good = [otlp_span(), otlp_span(), otlp_span()]
    bad = otlp_span(trace_id=b"short")
    assert one.export(export_request(good[0], bad, good[1])).partial_success.rejected_spans == 1
    assert one.client.send(new_span(), Span(trace_id=b"short")).rejected_count == 1
    one.export(
        ExportTraceServiceRequest(resource_spans=[resource_spans(bad), resource_spans(good[2])])
    )
    account = one.settled()
    assert (account["received"], account["delivered"], account["dropped"]) == (4, 4, {})
    assert len(receiver.span_ids) == 4
    assert {span.span_id for span in good} < receiver.span_ids


def test_our_own_protocol_tells_who_forwards(forwarding: Any, own_receiver: Receiver) -> None:
    one = forwarding(f"infertrace://{own_receiver.endpoint}")
    resource = Resource()
    resource.attributes["host.name"].string_value = "gpu-1"
    spans = [new_span() for _ in range(3)]
    one.client.send(*spans[:2], producer_id=b"p" * 16, batch_sequence=1, first_span_sequence=1,
                    produced_count=2, resource=resource)  # fmt: skip
    assert one.settled()["delivered"] == 2
    one.client.send(spans[2])
    assert one.settled()["delivered"] == 3
    assert own_receiver.spans == spans
    first, last = own_receiver.requests
    assert first.producer_id == last.producer_id != b"p" * 16
    assert (first.first_span_sequence, last.first_span_sequence) == (1, 3)
    assert {key: value.string_value for key, value in first.resource.attributes.items()} == {
        "host.name": "gpu-1",
        "service.instance.id": "70707070-7070-7070-7070-707070707070",
    }
    assert not last.resource.attributes


def test_a_receiver_of_otlp_behind_our_own_scheme(
    forwarding: Any, receiver: GrpcOtlpReceiver
) -> None:
    one = forwarding(f"infertrace://{receiver.endpoint}")
    one.client.send(new_span())
    assert one.settled()["delivered"] == 1
    assert len(receiver.spans) == 1


def test_an_outage_loses_nothing(forwarding: Any, tmp_path: Any) -> None:
    address, store = lasting_address(), f"duckdb:///{tmp_path}/target.duckdb"
    target = CollectorProcess(store, address)
    one = forwarding(f"infertrace://{address}")
    try:
        sent = 0
        for round_number in range(30):
            spans = [new_span() for _ in range(50)]
            assert one.client.send(*spans).accepted_count == 50
            one.export(export_request(otlp_span(), otlp_span()))
            sent += 52
            if round_number == 10:
                eventually(lambda: one.account()["delivered"] > 0)
                target.send_signal(signal.SIGKILL)
                target.kill()
            if round_number == 20:
                target = CollectorProcess(store, address)
        account = one.settled()
        assert (account["received"], account["delivered"]) == (sent, sent)
        assert target.count() == sent
        (producer,) = target.producers()
        assert (producer["produced"], producer["stored"], producer["gaps"]) == (sent, sent, [])
        one.close()
        (producer,) = target.producers()
        assert producer["complete"]
    finally:
        target.kill()


def test_a_dead_target_and_a_full_queue_slow_nobody(
    forwarding: Any, monkeypatch: pytest.MonkeyPatch, own_receiver: Receiver
) -> None:
    monkeypatch.setattr(forwarder, "MAX_QUEUE_BYTES", 20_000)
    nowhere = lasting_address()
    one = forwarding(f"otlp/grpc://{nowhere}", f"infertrace://{own_receiver.endpoint}")
    for _ in range(100):
        assert one.client.send(*[new_span() for _ in range(10)]).accepted_count == 10
    assert one.settled(1)["delivered"] + one.account(1)["dropped"].get("buffer_full", 0) == 1000
    account = one.account(0)
    assert account["received"] == 1000
    assert account["dropped"]["buffer_full"] > 500
    assert account["delivered"] == 0
    metrics = one.client.http.get("/metrics").text
    assert (
        f'infertrace_collector_forward_dropped_total{{reason="buffer_full",'
        f'target="otlp/grpc://{nowhere}"}} {float(account["dropped"]["buffer_full"])}'
    ) in metrics
    receiver = GrpcOtlpReceiver(nowhere)
    try:
        account = one.settled(0)
        assert account["delivered"] == len(receiver.span_ids) > 0
    finally:
        receiver.stop()


def test_a_target_that_never_answers_slows_nobody(
    forwarding: Any, receiver: GrpcOtlpReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    released = threading.Event()

    def hold(request: Any, context: grpc.ServicerContext) -> Any:
        released.wait(WAIT_S)
        return ExportTraceServiceResponse()

    receiver.answer = hold
    url = f"otlp/grpc://{receiver.endpoint}"
    one = forwarding(url)
    for _ in range(20):
        assert one.client.send(new_span()).accepted_count == 1
    eventually(lambda: one.account()["received"] == 20)
    assert one.account()["pending"] == 20
    alone = forwarder.Forwarding(parse_forwards(url))
    alone.start()
    for _ in range(20):
        raw = SendSpanBatchRequest(spans=[new_span()]).SerializeToString()
        alone.pass_on(SentSpans(raw, 1))
    alone.stop(0.2)
    alone.pass_on(SentSpans(raw, 1))
    released.set()
    (counts,) = [it.account.counts() for it in alone.forwarders]
    assert (counts.received, counts.delivered, counts.pending) == (21, 0, 0)
    assert counts.dropped == {"shutdown": 21}
    assert f"{url}: 20 spans were not forwarded before the end" in caplog.text


def test_a_shutdown_delivers_what_waits(forwarding: Any) -> None:
    address = lasting_address()
    one = forwarding(f"otlp/grpc://{address}")
    for _ in range(5):
        one.client.send(new_span())
    receiver = GrpcOtlpReceiver(address)
    try:
        one.collector.stop()
        assert len(receiver.span_ids) == 5
    finally:
        receiver.stop()


def test_hostile_answers(forwarding: Any, http_receiver: HttpOtlpReceiver) -> None:
    answers = iter(
        [
            HttpAnswer(429, headers={"Retry-After": "0"}),
            HttpAnswer(cut=True),
            HttpAnswer(503, b"\xff" * 100),
            HttpAnswer(200, b"<html>", {"Content-Type": "text/html"}),
            HttpAnswer(413),
        ]
    )
    partial = ExportTraceServiceResponse(
        partial_success=ExportTracePartialSuccess(rejected_spans=2**40, error_message="\x1b[2J\n")
    )

    def answer(request: ExportTraceServiceRequest, headers: dict[str, str]) -> HttpAnswer:
        found = next(answers, None)
        if found is not None:
            return found
        if any(span.name == "refused" for span in spans_of(request)):
            return HttpAnswer(400)
        if any(span.name == "partly" for span in spans_of(request)):
            return HttpAnswer(200, partial.SerializeToString())
        return HttpAnswer()

    http_receiver.answer = answer
    one = forwarding(f"otlp/http://{http_receiver.endpoint.removeprefix('http://')}")
    one.export(export_request(*[otlp_span() for _ in range(4)]))
    assert one.settled()["delivered"] == 4
    one.export(export_request(otlp_span(name="refused")))
    assert one.settled()["dropped"] == {"rejected": 1}
    one.export(export_request(otlp_span(name="partly")))
    account = one.settled()
    assert (account["received"], account["delivered"]) == (6, 4)
    assert account["dropped"] == {"rejected": 2}


def test_an_own_receiver_that_rejects(forwarding: Any, own_receiver: Receiver) -> None:
    own_receiver.answer = lambda request, context: SendSpanBatchResponse(
        accepted_count=len(request.spans) - 1, rejected_count=1
    )
    one = forwarding(f"infertrace://{own_receiver.endpoint}")
    one.client.send(new_span(), new_span())
    account = one.settled()
    assert (account["delivered"], account["dropped"]) == (1, {"rejected": 1})


def test_a_share_has_whole_traces(forwarding: Any, receiver: GrpcOtlpReceiver) -> None:
    one = forwarding(f"otlp/grpc://{receiver.endpoint}?share=0.25")
    traces = [os.urandom(16) for _ in range(400)]
    for _ in range(3):
        one.client.send(*[new_span(trace_id=trace) for trace in traces])
        one.export(export_request(*[otlp_span(trace_id=trace) for trace in traces]))
    account = one.settled()
    assert account["share"] == 0.25
    assert account["received"] == 2_400
    assert account["dropped"] == {"not_in_share": 2_400 - account["delivered"]}
    spans = receiver.spans
    kept = {span.trace_id for span in spans}
    assert len(spans) == account["delivered"] == 6 * len(kept)
    assert kept == {it for it in traces if int.from_bytes(it[9:], "big") >= 0.75 * 2**56}


def test_large_requests_go_in_parts(
    forwarding: Any, receiver: GrpcOtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward_queue, "MAX_BATCH_BYTES", 2_000)
    one = forwarding(f"otlp/grpc://{receiver.endpoint}")
    one.export(export_request(*[otlp_span() for _ in range(200)]))
    one.client.send(*[new_span() for _ in range(200)])
    assert one.settled()["delivered"] == 400
    assert len(receiver.span_ids) == 400
    assert all(request.ByteSize() < 20_000 for request in receiver.requests)
    assert len(receiver.requests) > 10


def test_nothing_is_kept_without_a_target(forwarding: Any) -> None:
    one = forwarding()
    one.client.send(new_span())
    assert one.client.get("/ledger")["forwards"] == []
    assert "forward" not in httpx.get(f"http://{one.collector.http_address}/metrics").text
