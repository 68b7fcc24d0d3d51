"""A producer and a reader of one collector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import grpc
import httpx

from infertrace.generated.span_pb2 import SendSpanBatchRequest, SendSpanBatchResponse, Span
from infertrace.generated.span_pb2_grpc import CollectorServiceStub

RPC_TIMEOUT_S = 30

OpenClient: TypeAlias = "Callable[..., Client]"
"""Of the addresses of gRPC and HTTP, and a token."""
NewSpan: TypeAlias = Callable[..., Span]
"""Of the model, and fields of a span."""


class Client:
    """Sends to one collector, and queries it."""

    def __init__(self, grpc_address: str, http_address: str, token: str | None = None) -> None:
        self.channel = grpc.insecure_channel(
            grpc_address, options=[("grpc.max_send_message_length", -1)]
        )
        self.stub = CollectorServiceStub(self.channel)
        self.metadata: tuple[tuple[str, str], ...] = (
            (("authorization", f"Bearer {token}"),) if token else ()
        )
        self.http = httpx.Client(
            base_url=f"http://{http_address}", headers=dict(self.metadata), timeout=RPC_TIMEOUT_S
        )

    @property
    def http_address(self) -> tuple[str, int]:
        url = self.http.base_url
        assert url.port is not None
        return url.host, url.port

    def send(self, *spans: Span, **fields: Any) -> SendSpanBatchResponse:
        request = SendSpanBatchRequest(spans=spans, **fields)
        return self.stub.SendSpanBatch(request, timeout=RPC_TIMEOUT_S, metadata=self.metadata)

    def send_bytes(self, raw: bytes, method: str = "SendSpanBatch") -> SendSpanBatchResponse:
        call: Any = self.channel.unary_unary(
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
