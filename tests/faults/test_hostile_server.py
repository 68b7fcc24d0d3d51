"""A collector that refuses, asks for patience, takes a part or answers nonsense."""

from __future__ import annotations

import time
from typing import Any

import grpc
import pytest

from backend_recording import assert_closed
from grpc_receiver import Receiver
from infertrace.generated import span_pb2

pytestmark = pytest.mark.usefixtures("sender")


RETRIED = ["CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"]


REFUSED = [
    code.name for code in grpc.StatusCode if code.name not in (*RETRIED, "OK", "RESOURCE_EXHAUSTED")
]


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


def test_a_batch_that_is_too_large_is_split(tracer: Any, receiver: Receiver) -> None:
    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        if len(request.spans) > 3 or any(s.operation_name == "bad" for s in request.spans):
            context.set_code(grpc.StatusCode.RESOURCE_EXHAUSTED)
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
