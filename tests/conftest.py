"""What every test shares: the two backends, a recorder, a receiver on a real socket."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

import infertrace
from infertrace import backend as backends
from infertrace.generated import span_pb2, span_pb2_grpc

KIB = 1024
MIB = 1024 * KIB


def available_backends() -> list[str]:
    try:
        backends.select("native")
    except ImportError:
        return ["pure"]  # test_backend.py fails where the compiled one is required
    return ["native", "pure"]


@pytest.fixture(params=available_backends())
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the test once on each backend."""
    module = backends.select(request.param)
    monkeypatch.setattr(backends, "selected", module)
    return module


class Recording:
    """A recorder of one backend that nothing is exported from but by the test."""

    def __init__(self, backend: Any, **sizes: int) -> None:
        self.wakes = 0
        sizes = {"max_buffer_bytes": 8 * MIB, "max_batch_bytes": 256 * KIB, **sizes}
        self.recorder = backend.Recorder(wake=self._wake, **sizes)
        self.recorder.service_name = "tests"
        self.start_span = self.recorder.start_span

    def _wake(self) -> None:
        self.wakes += 1

    def take_all(self) -> list[span_pb2.Span]:
        """The finished spans, as the protobuf runtime reads them; counted as delivered."""
        spans: list[span_pb2.Span] = []
        while (batch := self.recorder.take()) is not None:
            request = span_pb2.SendSpanBatchRequest.FromString(batch.payload)
            assert len(request.spans) == batch.span_count
            spans += request.spans
            self.recorder.settle(batch, batch.span_count, "rejected")
        return spans

    def take_one(self) -> span_pb2.Span:
        (span,) = self.take_all()
        return span


@pytest.fixture
def recording(backend: Any) -> Recording:
    return Recording(backend)


@pytest.fixture
def new_recording(backend: Any) -> Callable[..., Recording]:
    return lambda **sizes: Recording(backend, **sizes)


class Receiver(span_pb2_grpc.CollectorServiceServicer):
    """A gRPC server that keeps what it gets and answers as the test says."""

    def __init__(self, address: str = "127.0.0.1:0") -> None:
        self.requests: list[span_pb2.SendSpanBatchRequest] = []
        self.metadata: list[dict[str, Any]] = []
        self.answer: Callable[[span_pb2.SendSpanBatchRequest, grpc.ServicerContext], Any] = (
            self.accept
        )
        self.received = threading.Condition()
        self._server = grpc.server(
            futures.ThreadPoolExecutor(4),
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", 64 * MIB),
            ],
        )
        span_pb2_grpc.add_CollectorServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(address)
        self._server.start()

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def spans(self) -> list[span_pb2.Span]:
        return [span for request in self.requests for span in request.spans]

    def SendSpanBatch(  # noqa: N802 - gRPC's name
        self, request: span_pb2.SendSpanBatchRequest, context: grpc.ServicerContext
    ) -> span_pb2.SendSpanBatchResponse:
        answer = self.answer(request, context)
        with self.received:
            self.requests.append(request)
            self.metadata.append(dict(context.invocation_metadata()))
            self.received.notify_all()
        return answer

    @staticmethod
    def accept(request: span_pb2.SendSpanBatchRequest, context: grpc.ServicerContext) -> Any:
        return span_pb2.SendSpanBatchResponse(accepted_count=len(request.spans))

    def stop(self) -> None:
        self._server.stop(0).wait()


@pytest.fixture
def new_receiver() -> Iterator[Callable[..., Receiver]]:
    started: list[Receiver] = []

    def make(address: str = "127.0.0.1:0") -> Receiver:
        started.append(Receiver(address))
        return started[-1]

    yield make
    for receiver in started:
        receiver.stop()


@pytest.fixture
def receiver(new_receiver: Callable[..., Receiver]) -> Receiver:
    return new_receiver()


@pytest.fixture
def new_tracer(backend: Any) -> Iterator[Callable[..., infertrace.Tracer]]:
    """Make tracers on the backend of the test; they are shut down after it."""
    made: list[infertrace.Tracer] = []

    def make(endpoint: str, **settings: Any) -> infertrace.Tracer:
        settings = {
            "service_name": "tests",
            "resource_interval_s": 0,
            "export_interval_s": 0.05,
            **settings,
        }
        made.append(infertrace.Tracer(endpoint, **settings))
        return made[-1]

    yield make
    for tracer in made:
        tracer.shutdown(0)


@pytest.fixture
def tracer(new_tracer: Callable[..., infertrace.Tracer], receiver: Receiver) -> infertrace.Tracer:
    return new_tracer(receiver.endpoint)


def assert_closed(stats: Any) -> None:
    """The identity of the ledger."""
    assert stats["produced"] == stats["delivered"] + stats["pending"] + sum(
        stats["dropped"].values()
    ), stats
