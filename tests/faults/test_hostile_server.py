"""A collector that refuses, asks to retry later, accepts a part or answers nonsense."""

from __future__ import annotations

import time
from typing import Any

import grpc
import pytest

from backend_recording import assert_closed
from grpc_receiver import Receiver
from infertrace.generated import span_pb2

pytestmark = pytest.mark.usefixtures("sender")


# These blame the batch itself; anything else may be fixed while the spans wait.
REFUSED = ["INVALID_ARGUMENT", "FAILED_PRECONDITION", "ALREADY_EXISTS"]
RETRIED = [code.name for code in grpc.StatusCode if code.name not in (*REFUSED, "OK")]


@pytest.mark.parametrize("name", RETRIED)
def test_codes_that_are_retried(tracer: Any, receiver: Receiver, name: str) -> None:
    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        if len(receiver.requests) < 2:
            context.set_code(grpc.StatusCode[name])
            return span_pb2.SendSpanBatchResponse()
        return receiver.accept(request, context)

    receiver.answer = answer
    tracer.start_span("m").end()
    assert tracer.flush(30)
    assert len(receiver.requests) == 3
    assert len({request.batch_sequence for request in receiver.requests}) == 1
    assert tracer.stats()["delivered"] == 1


@pytest.mark.parametrize("name", REFUSED)
def test_codes_that_are_not_retried(tracer: Any, receiver: Receiver, name: str) -> None:
    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        context.set_code(grpc.StatusCode[name])
        return span_pb2.SendSpanBatchResponse()

    receiver.answer = answer
    tracer.start_span("m").end()
    assert tracer.flush(30)
    assert len(receiver.requests) == 1
    assert tracer.stats()["dropped"] == {"rejected": 1}
    assert_closed(tracer.stats())


TOO_LARGE = [
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "SERVER: Received message larger than max (9 vs. 8)"),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "grpc: received message larger than max (9 vs. 8)"),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "gRPC message exceeds maximum size 8: 9"),
    (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "Received message exceeds the maximum configured message size.",
    ),
    (grpc.StatusCode.OUT_OF_RANGE, "Error, decoded message length too large: found 9 bytes"),
]


@pytest.mark.parametrize(("code", "text"), TOO_LARGE)
def test_a_batch_that_is_too_large_is_split(
    tracer: Any, receiver: Receiver, code: grpc.StatusCode, text: str
) -> None:
    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        if len(request.spans) > 3 or any(s.operation_name == "bad" for s in request.spans):
            context.set_code(code)
            context.set_details(text)
            return span_pb2.SendSpanBatchResponse()
        return receiver.accept(request, context)

    receiver.answer = answer
    names = [str(number) for number in range(20)]
    names[7] = "bad"
    for name in names:
        tracer.start_span("m", name).end()
    assert tracer.flush(30)
    stats = tracer.stats()
    assert stats["delivered"] == 19
    assert stats["dropped"] == {"rejected": 1}
    for request in receiver.requests:
        first = request.first_span_sequence
        assert [span.operation_name for span in request.spans] == names[
            first - 1 : first - 1 + len(request.spans)
        ]


def test_an_overload_is_never_final(tracer: Any, receiver: Receiver) -> None:
    """As grpc's own limit of concurrent calls answers: without a time to retry."""
    answers = 30

    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        if len(receiver.requests) < answers:
            context.set_code(grpc.StatusCode.RESOURCE_EXHAUSTED)
            context.set_details("Concurrent RPC limit exceeded!")
            return span_pb2.SendSpanBatchResponse()
        return receiver.accept(request, context)

    receiver.answer = answer
    for _ in range(200):
        tracer.start_span("m").end()
    assert tracer.flush(100)
    stats = tracer.stats()
    assert (stats["delivered"], stats["dropped"]) == (200, {})
    assert len({span.span_id for span in receiver.spans}) == 200


@pytest.mark.parametrize("name", ["UNKNOWN", "INTERNAL"])
def test_a_span_that_a_server_stumbles_over(tracer: Any, receiver: Receiver, name: str) -> None:
    """It fails at the same span each time and accepts all others, so that span is rejected."""

    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        if any(span.operation_name == "bad" for span in request.spans):
            context.set_code(grpc.StatusCode[name])
            return span_pb2.SendSpanBatchResponse()
        return receiver.accept(request, context)

    receiver.answer = answer
    for number in range(4):
        tracer.start_span("m", "bad" if number == 2 else "good").end()
    assert tracer.flush(120)
    stats = tracer.stats()
    assert (stats["delivered"], stats["dropped"]) == (3, {"rejected": 1})


def test_a_server_that_fails_at_all_spans_costs_nothing(tracer: Any, receiver: Receiver) -> None:
    """It fails for longer than the exporter takes to blame one span, except on empty requests."""

    def fail(request: Any, context: grpc.ServicerContext) -> Any:
        context.set_code(grpc.StatusCode.INTERNAL if request.spans else grpc.StatusCode.OK)
        return span_pb2.SendSpanBatchResponse()

    receiver.answer = fail
    for _ in range(2):
        tracer.start_span("m").end()
    deadline = time.monotonic() + 100
    while len(receiver.requests) < 30:
        tracer.flush(0.5)
        assert time.monotonic() < deadline
    tracer.start_span("m").end()  # another batch
    while len(receiver.requests) < 40:
        tracer.flush(0.5)
        assert time.monotonic() < deadline
    assert tracer.stats()["dropped"] == {}
    receiver.answer = receiver.accept
    assert tracer.flush(60)
    assert tracer.stats()["delivered"] == 3


def test_a_single_span_that_a_server_stumbles_over_goes_behind_later_ones(
    tracer: Any, receiver: Receiver
) -> None:
    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        if any(span.operation_name == "bad" for span in request.spans):
            context.set_code(grpc.StatusCode.UNKNOWN)
            return span_pb2.SendSpanBatchResponse()
        return receiver.accept(request, context)

    receiver.answer = answer
    tracer.start_span("m", "bad").end()
    assert not tracer.flush(2)
    tracer.start_span("m", "good").end()
    assert tracer.flush(120)
    stats = tracer.stats()
    assert (stats["delivered"], stats["dropped"]) == (1, {"rejected": 1})


def test_a_servers_text_is_one_line_of_the_log(
    tracer: Any, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    hostile = "bad\nCRITICAL root: \x1b[31mforged\u202e\r\x9b" + "x" * 100_000
    receiver.answer = lambda request, context: span_pb2.SendSpanBatchResponse(
        rejected_count=1, rejection_reason=hostile
    )
    tracer.start_span("m").end()
    assert tracer.flush(30)
    receiver.answer = lambda request, context: context.abort(
        grpc.StatusCode.INVALID_ARGUMENT, "bad CRITICAL root: forged"
    )
    tracer.start_span("m").end()
    assert tracer.flush(30)
    assert any("bad\\nCRITICAL root: \\x1b[31mforged\\u202e" in line for line in caplog.messages)
    assert all(line.isprintable() and len(line) < 1000 for line in caplog.messages)


def test_retry_info_is_honoured(tracer: Any, receiver: Receiver) -> None:
    times = []

    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        times.append(time.monotonic())
        if len(times) == 1:
            context.set_trailing_metadata((("grpc-status-details-bin", retry_info(0.7)),))
            context.set_code(grpc.StatusCode.RESOURCE_EXHAUSTED)
            return span_pb2.SendSpanBatchResponse()
        return receiver.accept(request, context)

    receiver.answer = answer
    tracer.start_span("m").end()
    assert tracer.flush(30)
    assert times[1] - times[0] >= 0.7  # what the collector asked for, not a speed
    assert tracer.stats()["delivered"] == 1


def test_a_partial_success_is_counted_and_not_retried(
    tracer: Any, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer = lambda request, context: span_pb2.SendSpanBatchResponse(
        accepted_count=len(request.spans) - 1, rejected_count=1, rejection_reason="odd id"
    )
    for _ in range(3):
        tracer.start_span("m").end()
        assert tracer.flush(30)
    assert len(receiver.requests) == 3
    assert tracer.stats()["dropped"] == {"rejected": 3}
    assert sum("odd id" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize("accepted", [-5, 10**6])
def test_nonsense_in_the_answer_keeps_the_ledger_closed(
    tracer: Any, receiver: Receiver, accepted: int
) -> None:
    receiver.answer = lambda request, context: span_pb2.SendSpanBatchResponse(
        accepted_count=accepted
    )
    tracer.start_span("m").end()
    assert tracer.flush(30)
    assert_closed(tracer.stats())
    assert tracer.stats()["produced"] == 1


def retry_info(delay_s: float) -> bytes:
    """A google.rpc.Status whose details hold a RetryInfo, made with protobuf's own types."""
    from google.protobuf.any_pb2 import Any as AnyMessage
    from google.protobuf.duration_pb2 import Duration

    duration = Duration(seconds=int(delay_s), nanos=int(delay_s % 1 * 1e9)).SerializeToString()
    detail = AnyMessage(
        type_url="type.googleapis.com/google.rpc.RetryInfo",
        value=b"\x0a" + bytes((len(duration),)) + duration,
    ).SerializeToString()
    return b"\x08\x08\x12\x04slow\x1a" + bytes((len(detail),)) + detail
