"""OTLP over gRPC: its answers, and our own endpoint that turns out to be a receiver of OTLP."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from backend_recording import assert_closed
from grpc_receiver import Receiver
from infertrace.wire.protobuf import delimited
from infertrace.wire.retry_info import retry_details
from otlp_receiver import GrpcOtlpReceiver


@pytest.fixture
def new_otlp_receiver() -> Iterator[Callable[..., GrpcOtlpReceiver]]:
    started: list[GrpcOtlpReceiver] = []

    def make(address: str | None = None) -> GrpcOtlpReceiver:
        started.append(GrpcOtlpReceiver(address))
        return started[-1]

    yield make
    for receiver in started:
        receiver.stop()


@pytest.fixture
def otlp(new_otlp_receiver: Callable[..., GrpcOtlpReceiver]) -> GrpcOtlpReceiver:
    return new_otlp_receiver()


@pytest.fixture
def tracer(new_tracer: Any, otlp: GrpcOtlpReceiver) -> Any:
    return new_tracer(otlp.endpoint, protocol="otlp/grpc", conventions=("otel", "openinference"))


def test_spans_arrive(tracer: Any, otlp: GrpcOtlpReceiver) -> None:
    for _ in range(3):
        with tracer.start_span("gpt-4") as span:
            span.set_tokens(input=24, output=100)
        assert tracer.flush(30)
    assert tracer.stats()["delivered"] == 3
    keys = {it.key for it in otlp.spans[0].attributes}
    assert keys >= {"gen_ai.request.model", "llm.model_name"}
    assert tracer.shutdown(30)
    assert len(otlp.requests) == 3  # no goodbye


def test_many_batches_by_the_delivery_loop(new_tracer: Any, otlp: GrpcOtlpReceiver) -> None:
    tracer = new_tracer(otlp.endpoint, protocol="otlp/grpc", max_batch_bytes=4096)
    for _ in range(5_000):
        tracer.start_span("m").end()
    assert tracer.flush(60)
    assert tracer.stats()["delivered"] == 5_000
    assert len(otlp.span_ids) == 5_000


@pytest.mark.parametrize("trailer", ["grpc-status-details-bin", "google.rpc.retryinfo-bin"])
def test_retry_info_is_honoured(tracer: Any, otlp: GrpcOtlpReceiver, trailer: str) -> None:
    times = []
    details = retry_details("slow", 1)
    if trailer == "google.rpc.retryinfo-bin":
        details = delimited(b"\x0a", Duration(seconds=1).SerializeToString())

    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        times.append(time.monotonic())
        if len(times) == 1:
            context.set_trailing_metadata(((trailer, details),))
            context.set_code(grpc.StatusCode.RESOURCE_EXHAUSTED)
        return ExportTraceServiceResponse()

    otlp.answer = answer
    tracer.start_span("m").end()
    assert tracer.flush(30)
    assert times[1] - times[0] >= 1  # what the receiver asked for, not a speed
    assert tracer.stats()["delivered"] == 1


def test_a_partial_success_is_counted_and_not_retried(
    tracer: Any, otlp: GrpcOtlpReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    partial = ExportTracePartialSuccess(rejected_spans=1, error_message="odd id")
    otlp.answer = lambda request, context: ExportTraceServiceResponse(partial_success=partial)
    for _ in range(3):
        tracer.start_span("m").end()
        assert tracer.flush(30)
    assert len(otlp.requests) == 3
    assert tracer.stats()["dropped"] == {"rejected": 3}
    assert sum("odd id" in message for message in caplog.messages) == 1


def test_a_batch_that_is_too_large_is_split(tracer: Any, otlp: GrpcOtlpReceiver) -> None:
    """As grpc-go answers what exceeds its 4 MiB, with the spans that it may hold."""

    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        if request.ByteSize() > 4096:
            context.set_code(grpc.StatusCode.RESOURCE_EXHAUSTED)
            context.set_details("grpc: received message larger than max (9 vs. 8)")
        return ExportTraceServiceResponse()

    otlp.answer = answer
    for _ in range(100):
        tracer.start_span("m").end()
    assert tracer.flush(30)
    assert tracer.stats()["delivered"] == 100
    assert len(otlp.span_ids) == 100


def test_the_endpoint_turns_out_to_take_otlp(
    new_tracer: Any, otlp: GrpcOtlpReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    tracer = new_tracer(otlp.endpoint)
    for _ in range(3):
        for _ in range(100):
            tracer.start_span("m").end()
        assert tracer.flush(30)
    stats = tracer.stats()
    assert (stats["delivered"], stats["dropped"]) == (300, {})
    assert len(otlp.span_ids) == 300
    assert len([request for request in otlp.requests if not request.resource_spans]) == 1
    assert sum("takes OTLP" in message for message in caplog.messages) == 1


def test_the_endpoint_becomes_a_receiver_of_otlp(
    new_tracer: Any,
    new_receiver: Callable[..., Receiver],
    new_otlp_receiver: Callable[..., GrpcOtlpReceiver],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """While spans are being delivered, so the compiled delivery loop meets it."""
    first = new_receiver()
    tracer = new_tracer(first.endpoint)
    tracer.start_span("m").end()
    assert tracer.flush(30)
    first.stop()
    otlp = new_otlp_receiver(first.endpoint)
    for _ in range(100):
        tracer.start_span("m").end()
    assert tracer.flush(60)
    stats = tracer.stats()
    assert (stats["delivered"], stats["dropped"]) == (101, {})
    assert len(otlp.span_ids) == 100
    assert sum("takes OTLP" in message for message in caplog.messages) == 1


def test_an_endpoint_that_takes_neither_waits(
    new_tracer: Any, otlp: GrpcOtlpReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "not here")

    otlp.answer = answer
    tracer = new_tracer(otlp.endpoint)
    tracer.start_span("m").end()
    assert not tracer.flush(1)
    assert tracer.stats()["pending"] == 1
    assert "takes OTLP" not in caplog.text
    assert_closed(tracer.stats())
    otlp.answer = otlp.accept
    assert tracer.flush(30)
    assert tracer.stats()["delivered"] == 1


def test_a_configured_tracer_asks_again(
    new_tracer: Any, otlp: GrpcOtlpReceiver, receiver: Receiver
) -> None:
    tracer = new_tracer(otlp.endpoint)
    tracer.start_span("m").end()
    assert tracer.flush(30)
    tracer.configure(endpoint=receiver.endpoint)
    tracer.start_span("m").end()
    assert tracer.flush(30)
    assert len(receiver.spans) == 1
    tracer.configure(endpoint=otlp.endpoint, protocol="otlp/grpc")
    tracer.start_span("m").end()
    assert tracer.flush(30)
    assert len(otlp.span_ids) == 2
