from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from infertrace.collecting.server import Collector
from infertrace.generated.span_pb2 import SendSpanBatchRequest, SendSpanBatchResponse, Span
from infertrace.generated.span_pb2_grpc import CollectorServiceStub

RPC_TIMEOUT_S = 30


class Client:
    """What a producer and a reader of one collector do."""

    def __init__(self, grpc_address: str, http_address: str, token: str | None = None) -> None:
        self.channel = grpc.insecure_channel(
            grpc_address, options=[("grpc.max_send_message_length", -1)]
        )
        self.stub = CollectorServiceStub(self.channel)
        self.metadata = [("authorization", f"Bearer {token}")] if token else []
        self.http = httpx.Client(
            base_url=f"http://{http_address}", headers=dict(self.metadata), timeout=RPC_TIMEOUT_S
        )

    def send(self, *spans: Span, **fields: Any) -> SendSpanBatchResponse:
        request = SendSpanBatchRequest(spans=spans, **fields)
        return self.stub.SendSpanBatch(request, timeout=RPC_TIMEOUT_S, metadata=self.metadata)

    def send_bytes(self, raw: bytes, method: str = "SendSpanBatch") -> SendSpanBatchResponse:
        call = self.channel.unary_unary(
            f"/infertrace.v1.CollectorService/{method}",
            response_deserializer=SendSpanBatchResponse.FromString,
        )
        return call(raw, timeout=RPC_TIMEOUT_S, metadata=self.metadata)

    def get(self, path: str, **parameters: Any) -> Any:
        answer = self.http.get(path, params=parameters or None)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def error(self, path: str, **parameters: Any) -> tuple[int, str]:
        answer = self.http.get(path, params=parameters or None)
        body = answer.json()
        assert list(body) == ["error"]
        return answer.status_code, body["error"]

    def close(self) -> None:
        self.channel.close()
        self.http.close()


@pytest.fixture
def file_url(tmp_path: Path) -> str:
    return f"duckdb:///{tmp_path / 'spans.duckdb'}"


@pytest.fixture
def open_client() -> Iterator[Callable[..., Client]]:
    clients: list[Client] = []

    def open_one(grpc_address: str, http_address: str, token: str | None = None) -> Client:
        clients.append(Client(grpc_address, http_address, token))
        return clients[-1]

    yield open_one
    for opened in clients:
        opened.close()


@pytest.fixture
def client(store_url: str, open_client: Callable[..., Client]) -> Iterator[Client]:
    with Collector("127.0.0.1:0", "127.0.0.1:0", store_url) as collector:
        yield open_client(collector.grpc_address, collector.http_address)


@pytest.fixture
def new_span() -> Callable[..., Span]:
    """Makes valid spans, each a microsecond later than the one before; fields can be set."""
    start = time.time_ns() - 10_000_000_000
    count = itertools.count()

    def make(*, model: str = "gpt-4", **fields: Any) -> Span:
        span = Span(
            trace_id=os.urandom(16),
            span_id=os.urandom(8),
            service_name="server",
            operation_name="inference",
            start_time_unix_nano=start + next(count) * 1_000,
            duration_nanos=1_500_000,
            status="OK",
        )
        span.inference.model_name = model
        span.MergeFrom(Span(**fields))
        return span

    return make
