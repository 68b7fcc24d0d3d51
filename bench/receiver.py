"""A gRPC server in a process of its own that accepts every span and keeps none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any


@contextmanager
def running_receiver() -> Iterator[str]:
    """Its address, while it runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.receiver"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.communicate()  # it stops when its input ends


def serve() -> None:
    import grpc

    from infertrace.generated import span_pb2, span_pb2_grpc

    class Receiver(span_pb2_grpc.CollectorServiceServicer):
        def SendSpan(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
            return span_pb2.SendSpanResponse(accepted=True)

        def SendSpanBatch(self, request: Any, context: Any) -> Any:  # noqa: N802
            return span_pb2.SendSpanBatchResponse(accepted_count=len(request.spans))

    server = grpc.server(ThreadPoolExecutor(1))
    span_pb2_grpc.add_CollectorServiceServicer_to_server(Receiver(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"127.0.0.1:{port}", flush=True)
    sys.stdin.read()
    server.stop(None).wait()


if __name__ == "__main__":
    serve()
