"""Receivers of OTLP, over gRPC and HTTP, that keep what they get and answer as the test says."""

from __future__ import annotations

import contextlib
import gzip
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from lasting_address import lasting_address

PROTOBUF = "application/x-protobuf"


class _Kept:
    """What came."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.metadata: list[dict[str, Any]] = []
        self.received = threading.Condition()

    def keep(self, request: ExportTraceServiceRequest, metadata: dict[str, Any]) -> None:
        with self.received:
            self.requests.append(request)
            self.metadata.append(metadata)
            self.received.notify_all()

    @property
    def spans(self) -> list[Span]:
        return [span for request in self.requests for span in spans_of(request)]

    @property
    def span_ids(self) -> set[bytes]:
        return {span.span_id for span in self.spans}


def spans_of(request: ExportTraceServiceRequest) -> list[Span]:
    return [
        span
        for group in request.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


class GrpcOtlpReceiver(_Kept, trace_service_pb2_grpc.TraceServiceServicer):
    """OTLP over gRPC."""

    protocol = "otlp/grpc"

    def __init__(self, address: str | None = None) -> None:
        super().__init__()
        self.answer: Callable[[ExportTraceServiceRequest, grpc.ServicerContext], Any] = self.accept
        self._server = grpc.server(
            futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)]
        )
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(address or lasting_address())
        self._server.start()

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def Export(  # noqa: N802 - gRPC's name
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        answer = self.answer(request, context)
        self.keep(request, dict(context.invocation_metadata()))
        return answer

    @staticmethod
    def accept(request: ExportTraceServiceRequest, context: grpc.ServicerContext) -> Any:
        return ExportTraceServiceResponse()

    def stop(self) -> None:
        self._server.stop(0).wait()


class HttpAnswer(NamedTuple):
    """What an HTTP server says."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = {"Content-Type": PROTOBUF}
    cut: bool = False
    """End the connection in place of an answer."""


class HttpOtlpReceiver(_Kept):
    """OTLP over HTTP, on connections that are kept."""

    protocol = "otlp/http"

    def __init__(self, address: str | None = None, tls: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self.answer: Callable[[ExportTraceServiceRequest, dict[str, str]], HttpAnswer] = self.accept
        self.paths: list[str] = []
        self.connections = 0
        self.open: list[socket.socket] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                receiver.connections += 1
                receiver.open.append(self.connection)

            def do_POST(self) -> None:
                receiver.take(self)

            def log_message(self, format: str, *args: Any) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None: ...

        host, port = (address or lasting_address()).split(":")
        self._server = Server((host, int(port)), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = int(port)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def take(self, handler: BaseHTTPRequestHandler) -> None:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        body = handler.rfile.read(int(headers["content-length"]))
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        request = ExportTraceServiceRequest.FromString(body)
        answer = self.answer(request, headers)
        if isinstance(handler.connection, ssl.SSLSocket):
            certificate: Any = handler.connection.getpeercert() or {}
            names = [value for kind, value in certificate.get("subjectAltName", ())]
            headers["x-client"] = ",".join(names)
        self.paths.append(handler.path)
        self.keep(request, headers)
        if answer.cut:
            handler.close_connection = True
            return
        handler.send_response(answer.status)
        for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(answer.body)

    @staticmethod
    def accept(request: ExportTraceServiceRequest, headers: dict[str, str]) -> HttpAnswer:
        return HttpAnswer()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for connection in self.open:
            with contextlib.suppress(OSError):  # it has ended
                connection.shutdown(socket.SHUT_RDWR)
