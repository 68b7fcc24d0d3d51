"""The generated Python gRPC stubs and grpc-go send one another every field."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from infertrace.generated import span_pb2, span_pb2_grpc

FULL_BATCH = Path(__file__).parent.parent / "schema" / "full_batch.json"
CALL_TIMEOUT_S = 20


@pytest.fixture
def batch() -> span_pb2.SendSpanBatchRequest:
    return json_format.Parse(FULL_BATCH.read_text("utf-8"), span_pb2.SendSpanBatchRequest())


class Collector(span_pb2_grpc.CollectorServiceServicer):
    def __init__(self) -> None:
        self.requests: list[object] = []

    def SendSpan(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.requests.append(request)
        return span_pb2.SendSpanResponse(accepted=True)

    def SendSpanBatch(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.requests.append(request)
        return span_pb2.SendSpanBatchResponse(
            accepted_count=1, rejected_count=1, rejection_reason="for the test"
        )


@pytest.fixture
def collector() -> Iterator[tuple[Collector, str]]:
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(1))
    span_pb2_grpc.add_CollectorServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield collector, f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_python_to_go(receiver: Any, batch: span_pb2.SendSpanBatchRequest) -> None:
    single = span_pb2.SendSpanRequest(span=batch.spans[0])
    with grpc.insecure_channel(receiver.address) as channel:
        stub = span_pb2_grpc.CollectorServiceStub(channel)
        assert stub.SendSpan(single, timeout=CALL_TIMEOUT_S).accepted
        response = stub.SendSpanBatch(batch, timeout=CALL_TIMEOUT_S)
    assert response == span_pb2.SendSpanBatchResponse(accepted_count=2)

    (first_method, first), (second_method, second) = receiver.stop()
    assert (first_method, second_method) == ("SendSpan", "SendSpanBatch")
    assert json_format.Parse(first, span_pb2.SendSpanRequest()) == single
    assert json_format.Parse(second, span_pb2.SendSpanBatchRequest()) == batch


def test_go_to_python(
    collector: tuple[Collector, str],
    send_with_go: Callable[[str, str, str], str],
    batch: span_pb2.SendSpanBatchRequest,
) -> None:
    service, address = collector
    single = span_pb2.SendSpanRequest(span=batch.spans[0])

    response = send_with_go(address, "SendSpan", json_format.MessageToJson(single))
    assert json_format.Parse(response, span_pb2.SendSpanResponse()).accepted
    response = send_with_go(address, "SendSpanBatch", json_format.MessageToJson(batch))
    assert json_format.Parse(
        response, span_pb2.SendSpanBatchResponse()
    ) == span_pb2.SendSpanBatchResponse(
        accepted_count=1, rejected_count=1, rejection_reason="for the test"
    )

    assert service.requests == [single, batch]
