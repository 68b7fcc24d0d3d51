"""A gRPC server that keeps what it gets and answers as the test says."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc

from infertrace.generated import span_pb2, span_pb2_grpc
from lasting_address import lasting_address

_MAX_MESSAGE_BYTES = 64 * 1024 * 1024


class Receiver(span_pb2_grpc.CollectorServiceServicer):
    """A gRPC server that keeps what it gets and answers as the test says."""

    def __init__(
        self, address: str | None = None, credentials: grpc.ServerCredentials | None = None
    ) -> None:
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
                ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
            ],
        )
        span_pb2_grpc.add_CollectorServiceServicer_to_server(self, self._server)
        address = address or lasting_address()
        self.port = (
            self._server.add_secure_port(address, credentials)
            if credentials
            else self._server.add_insecure_port(address)
        )
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
