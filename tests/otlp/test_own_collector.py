"""A tracer that sends OTLP to a collector of infertrace: the spans are as by our own protocol."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from infertrace.collector.server import Collector
from running_collector import Collector as Queries


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector(
        "127.0.0.1:0", "127.0.0.1:0", "memory:", otlp_http_address="127.0.0.1:0"
    ) as collector:
        yield collector


@pytest.fixture
def queries(collector: Collector) -> Iterator[Queries]:
    found = Queries(collector.grpc_address, collector.http_address)
    yield found
    found.close()


def record(tracer: Any, start_ns: int) -> None:
    """The same two spans each time, but for their ids."""
    common = {"start_ns": start_ns, "duration_ns": 1_500_000_000}
    tracer.record(
        "gpt-4",
        **common,
        batch_size=8,
        input_tokens=24,
        output_tokens=100,
        queue_wait_time_ms=125.0,
        time_to_first_token_ms=250.0,
        framework="vllm",
        attributes={"user.tier": "gold", "share": 0.5},
    )
    tracer.record("gpt-4", "embeddings", **common, status="ERROR", status_message="out of memory")


def stored(queries: Queries, service: str) -> list[dict[str, Any]]:
    spans = queries.get("/spans", service=service)
    return sorted(spans, key=lambda span: span["status"])


OWN_FIELDS = (
    *("model_name", "batch_size", "input_tokens", "output_tokens", "queue_wait_time_ms"),
    *("time_to_first_token_ms", "framework", "status", "status_message", "duration_ms"),
    *("start_time",),
)


@pytest.mark.parametrize("protocol", ["otlp/grpc", "otlp/http"])
def test_the_same_spans_arrive(
    new_tracer: Any, collector: Collector, queries: Queries, protocol: str
) -> None:
    start_ns = time.time_ns() - 10_000_000_000
    endpoint = collector.grpc_address if protocol == "otlp/grpc" else collector.otlp_http_address
    by_ours = new_tracer(collector.grpc_address, service_name="ours")
    by_otlp = new_tracer(endpoint, service_name="otlp", protocol=protocol)
    for tracer in (by_ours, by_otlp):
        record(tracer, start_ns)
        assert tracer.flush(30)
        assert tracer.stats()["delivered"] == 2
    expected, found = stored(queries, "ours"), stored(queries, "otlp")
    assert len(expected) == len(found) == 2
    for mine, other in zip(expected, found, strict=True):
        for field in OWN_FIELDS:
            assert other.get(field) == mine.get(field), field
        assert other["attributes"].items() >= mine.get("attributes", {}).items()
