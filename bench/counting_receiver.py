"""A collector that knows which spans it got, by infertrace's protocol or OTLP, over gRPC.

    python -m bench.counting_receiver PORT FILE

It stops immediately when its input ends, and writes the ids of the spans to FILE. Port 0 takes a
free one; the process prints the port.
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.environment import REPOSITORY
from bench.receiver import OTLP_EXPORT

SPAN_ID_BYTES = 8


class CountingReceiver:
    """That process. On the port of a stopped one, it replaces that one."""

    def __init__(self, file: Path, port: int = 0) -> None:
        self._file = file
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.counting_receiver", str(port), str(file)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def stop(self) -> set[bytes]:
        """Stop it; returns the ids of the spans that it received."""
        self._process.communicate()
        found = self._file.read_bytes()
        return {found[at : at + SPAN_ID_BYTES] for at in range(0, len(found), SPAN_ID_BYTES)}


def serve(port: int, file: Path) -> None:
    import grpc
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    from infertrace.generated import span_pb2, span_pb2_grpc

    ids: set[bytes] = set()

    class Receiver(span_pb2_grpc.CollectorServiceServicer):
        def SendSpanBatch(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
            ids.update(span.span_id for span in request.spans)
            return span_pb2.SendSpanBatchResponse(accepted_count=len(request.spans))

    def export(request: bytes, context: Any) -> bytes:
        for resource in ExportTraceServiceRequest.FromString(request).resource_spans:
            for scope in resource.scope_spans:
                ids.update(span.span_id for span in scope.spans)
        return b""

    class OtlpReceiver(grpc.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            if details.method != OTLP_EXPORT:
                return None
            return grpc.unary_unary_rpc_method_handler(export)

    server = grpc.server(ThreadPoolExecutor(1), options=[("grpc.so_reuseport", 0)])
    span_pb2_grpc.add_CollectorServiceServicer_to_server(Receiver(), server)
    server.add_generic_rpc_handlers((OtlpReceiver(),))
    print(server.add_insecure_port(f"127.0.0.1:{port}"), flush=True)
    server.start()
    sys.stdin.read()
    server.stop(0).wait()
    file.write_bytes(b"".join(ids))


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]))
