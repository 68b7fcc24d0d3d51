"""Receivers of OTLP that are absent, down, hung, cut off or hostile: the ledger stays exact."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from backend_recording import assert_closed
from lasting_address import lasting_address
from otlp_receiver import GrpcOtlpReceiver, HttpAnswer, HttpOtlpReceiver, spans_of
from tcp_proxy import TcpProxy
from traced_program import run_program, sender_of, spools, wait_until

OtlpReceiver = GrpcOtlpReceiver | HttpOtlpReceiver


@pytest.fixture(params=[GrpcOtlpReceiver, HttpOtlpReceiver])
def new_otlp(request: pytest.FixtureRequest) -> Iterator[Callable[..., OtlpReceiver]]:
    started: list[OtlpReceiver] = []

    def make(address: str | None = None) -> OtlpReceiver:
        started.append(request.param(address))
        return started[-1]

    make.protocol = request.param.protocol  # type: ignore[attr-defined]
    yield make
    for receiver in started:
        receiver.stop()


@pytest.fixture
def protocol(new_otlp: Any) -> str:
    return str(new_otlp.protocol)


@pytest.mark.usefixtures("sender")
def test_the_receiver_comes_late_goes_and_comes_back(
    new_tracer: Any, new_otlp: Callable[..., OtlpReceiver], protocol: str
) -> None:
    address = lasting_address()
    tracer = new_tracer(address, protocol=protocol)
    for _ in range(100):
        tracer.start_span("m", "before").end()
    assert not tracer.flush(0.3)
    first = new_otlp(address)
    assert tracer.flush(30)
    first.stop()
    for _ in range(100):
        tracer.start_span("m", "during").end()
    assert not tracer.flush(0.3)
    assert_closed(tracer.stats())
    second = new_otlp(address)
    assert tracer.flush(30)
    stats = tracer.stats()
    assert (stats["delivered"], stats["dropped"]) == (200, {})
    assert (len(first.span_ids), len(second.span_ids)) == (100, 100)


def test_a_hung_receiver_keeps_one_deadline(
    new_tracer: Any, hung: str, protocol: str, sender: str
) -> None:
    tracer = new_tracer(hung, protocol=protocol)
    for _ in range(100):
        tracer.start_span("m").end()
    began = time.monotonic()
    assert not tracer.flush(0.5)
    is_handed_over = sender == "shared sender"
    assert tracer.shutdown(0.5) == is_handed_over
    # Not a speed: a request in flight may wait 10 s.
    assert time.monotonic() - began < 5
    stats = tracer.stats()
    assert stats["handed_over"] == (100 if is_handed_over else 0)
    assert stats["dropped"] == ({} if is_handed_over else {"shutdown": 100})


@pytest.mark.usefixtures("sender")
def test_a_connection_that_is_reset(
    new_tracer: Any, new_otlp: Callable[..., OtlpReceiver], protocol: str
) -> None:
    receiver = new_otlp()
    proxy = TcpProxy(receiver.port)
    tracer = new_tracer(proxy.endpoint, protocol=protocol)
    for number in range(5):
        tracer.start_span("m").end()
        assert tracer.flush(30)
        proxy.reset()
        assert tracer.stats()["delivered"] == number + 1
    assert len(receiver.span_ids) == 5
    tracer.shutdown(10)
    proxy.stop()


@pytest.mark.usefixtures("sender")
def test_a_half_open_connection_is_noticed(
    new_tracer: Any, new_otlp: Callable[..., OtlpReceiver], protocol: str
) -> None:
    receiver = new_otlp()
    proxy = TcpProxy(receiver.port)
    tracer = new_tracer(proxy.endpoint, protocol=protocol, timeout_s=0.5)
    tracer.start_span("m").end()
    assert tracer.flush(30)
    proxy.go_silent()
    tracer.start_span("m").end()
    assert tracer.flush(30)
    assert tracer.stats()["delivered"] == 2
    tracer.shutdown(10)
    proxy.stop()


def test_a_sender_process_that_is_killed(
    new_tracer: Any, new_otlp: Callable[..., OtlpReceiver], protocol: str
) -> None:
    receiver = new_otlp()
    tracer = new_tracer(receiver.endpoint, protocol=protocol)
    for _ in range(3):
        for _ in range(100):
            tracer.start_span("m").end()
        assert tracer.flush(30)
        os.kill(sender_of(tracer), signal.SIGKILL)
    tracer.start_span("m").end()
    assert tracer.flush(30)
    stats = tracer.stats()
    assert (stats["delivered"], stats["dropped"]) == (301, {})
    assert len(receiver.span_ids) == 301


def test_a_killed_process_leaves_its_spans_to_the_next(
    new_tracer: Any,
    new_otlp: Callable[..., OtlpReceiver],
    protocol: str,
    backend: Any,
    tmp_path: Path,
) -> None:
    done = run_program(
        backend,
        f"""
        import os, signal
        settings = {{"protocol": {protocol!r}, "spool_dir": {str(tmp_path)!r}}}
        tracer = infertrace.Tracer("127.0.0.1:1", **settings)
        for _ in range(100):
            tracer.start_span("m", "left").end()
        os.kill(os.getpid(), signal.SIGKILL)
        """,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(spools(tmp_path)) == 1
    receiver = new_otlp()
    heir = new_tracer(receiver.endpoint, protocol=protocol, spool_dir=tmp_path)
    heir.start_span("m", "own").end()
    wait_until(lambda: len(receiver.span_ids) == 101)
    wait_until(lambda: len(spools(tmp_path)) == 1)
    assert heir.stats()["produced"] == 1
    services = {
        it.value.string_value
        for request in receiver.requests
        for group in request.resource_spans
        for it in group.resource.attributes
        if it.key == "service.instance.id"
    }
    assert len(services) == 2


class Hostile:
    """Answers at random, and keeps count of what it rejected."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.rejected = 0
        self.answers = 0

    def choose(self, span_count: int) -> tuple[str, ExportTraceServiceResponse]:
        self.answers += 1
        kinds = ["accept", "accept", "partial", "later", "overload", "fail"]
        kind = self._random.choice(kinds if self.answers < 60 else ["accept"])
        if kind == "fail" and self.answers % 2:
            kind = "large" if span_count > 50 else "accept"
        partial = ExportTracePartialSuccess()
        if kind == "partial":
            partial.rejected_spans = self._random.randint(1, span_count)
            partial.error_message = "odd"
            self.rejected += partial.rejected_spans
        return kind, ExportTraceServiceResponse(partial_success=partial)

    def over_grpc(self, request: Any, context: grpc.ServicerContext) -> Any:
        kind, response = self.choose(len(spans_of(request)))
        codes = {
            "later": grpc.StatusCode.UNAVAILABLE,
            "overload": grpc.StatusCode.RESOURCE_EXHAUSTED,
            "fail": grpc.StatusCode.DATA_LOSS,
            "large": grpc.StatusCode.RESOURCE_EXHAUSTED,
        }
        if kind in codes:
            context.set_code(codes[kind])
            context.set_details("larger than max" if kind == "large" else kind)
        return response

    def over_http(self, request: Any, headers: dict[str, str]) -> HttpAnswer:
        kind, response = self.choose(len(spans_of(request)))
        codes = {"later": 503, "overload": 429, "large": 413}
        if kind == "fail":
            return HttpAnswer(cut=True)
        return HttpAnswer(codes.get(kind, 200), response.SerializeToString())


@pytest.mark.usefixtures("sender")
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.nightly)])
def test_a_hostile_receiver(
    new_tracer: Any, new_otlp: Callable[..., OtlpReceiver], protocol: str, seed: int
) -> None:
    receiver = new_otlp()
    hostile = Hostile(seed)
    if isinstance(receiver, GrpcOtlpReceiver):
        receiver.answer = hostile.over_grpc
    else:
        receiver.answer = hostile.over_http
    tracer = new_tracer(receiver.endpoint, protocol=protocol, max_batch_bytes=16 * 1024)
    for _ in range(20):
        for _ in range(200):
            tracer.start_span("m").end()
        tracer.flush(0.05)
        assert_closed(tracer.stats())
    assert tracer.flush(120)
    stats = tracer.stats()
    assert stats["produced"] == 4_000
    assert stats["dropped"] == ({"rejected": hostile.rejected} if hostile.rejected else {})
    assert stats["delivered"] == 4_000 - hostile.rejected
    assert len(receiver.span_ids) == 4_000
