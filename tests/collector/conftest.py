from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from collector_client import Client, NewSpan, OpenClient
from infertrace.collector.server import Collector
from infertrace.generated.span_pb2 import Span


@pytest.fixture
def file_url(tmp_path: Path) -> str:
    return f"duckdb:///{tmp_path / 'spans.duckdb'}"


@pytest.fixture
def open_client() -> Iterator[OpenClient]:
    clients: list[Client] = []

    def open_one(grpc_address: str, http_address: str, token: str | None = None) -> Client:
        clients.append(Client(grpc_address, http_address, token))
        return clients[-1]

    yield open_one
    for opened in clients:
        opened.close()


@pytest.fixture
def client(store_url: str, open_client: OpenClient) -> Iterator[Client]:
    with Collector("127.0.0.1:0", "127.0.0.1:0", store_url) as collector:
        yield open_client(collector.grpc_address, collector.http_address)


@pytest.fixture
def new_span() -> NewSpan:
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
