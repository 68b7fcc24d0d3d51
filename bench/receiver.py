"""A process that accepts every span and keeps none: infertrace's and OTLP's gRPC, ddtrace's HTTP.

It reads infertrace's batches, for their answer has a count; of the others it sees bytes. So
it takes the most from the machine that it shares when infertrace is measured.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

OTLP_EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


class Addresses(NamedTuple):
    """HOST:PORT of each protocol."""

    grpc: str
    http: str


@contextmanager
def running_receiver() -> Iterator[Addresses]:
    """Its addresses, while it runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.receiver"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield Addresses(*json.loads(process.stdout.readline()))
    finally:
        process.communicate()  # the process stops when its input ends


class DatadogAgent(BaseHTTPRequestHandler):
    """The part of the agent that ddtrace needs in order to send."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = b'{"rate_by_service": {}}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PUT  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


def serve() -> None:
    import grpc

    from infertrace.generated import span_pb2, span_pb2_grpc

    class Receiver(span_pb2_grpc.CollectorServiceServicer):
        def SendSpan(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
            return span_pb2.SendSpanResponse(accepted=True)

        def SendSpanBatch(self, request: Any, context: Any) -> Any:  # noqa: N802
            return span_pb2.SendSpanBatchResponse(accepted_count=len(request.spans))

    class OtlpReceiver(grpc.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            if details.method != OTLP_EXPORT:
                return None
            # An empty answer is OTLP's full success.
            return grpc.unary_unary_rpc_method_handler(lambda request, context: b"")

    server = grpc.server(ThreadPoolExecutor(1))
    span_pb2_grpc.add_CollectorServiceServicer_to_server(Receiver(), server)
    server.add_generic_rpc_handlers((OtlpReceiver(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    agent = ThreadingHTTPServer(("127.0.0.1", 0), DatadogAgent)
    threading.Thread(target=agent.serve_forever, daemon=True).start()
    print(json.dumps([f"127.0.0.1:{port}", f"127.0.0.1:{agent.server_port}"]), flush=True)
    sys.stdin.read()
    agent.shutdown()
    server.stop(None).wait()


if __name__ == "__main__":
    serve()
