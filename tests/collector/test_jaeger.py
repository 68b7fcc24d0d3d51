"""Jaeger's query routes, as Grafana's data source asks them."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from collector_client import Client, NewSpan
from infertrace.generated.span_pb2 import (
    AttributeValue,
    Event,
    InferenceContext,
    Link,
    Span,
    SpanKind,
)

MS = 1_000_000


def data(client: Client, path: str, **parameters: Any) -> Any:
    answer = client.get(f"/jaeger/api/{path}", **parameters)
    assert answer["errors"] is None
    assert answer["total"] == len(answer["data"])
    return answer["data"]


@pytest.fixture
def spans(client: Client, new_span: NewSpan) -> list[Span]:
    root = new_span(
        trace_id=b"\0" * 8 + b"t" * 8,
        service_name="gateway",
        operation_name="POST /v1/chat",
        kind=SpanKind.SPAN_KIND_SERVER,
        duration_nanos=50 * MS,
        tags={"tenant": "acme"},
        attributes={"http.status_code": AttributeValue(int_value=200)},
    )
    child = new_span(
        trace_id=root.trace_id,
        parent_span_id=root.span_id,
        service_name="engine",
        status="ERROR",
        duration_nanos=40 * MS,
        events=[Event(name="preempted", time_unix_nano=root.start_time_unix_nano + 5_000)],
        links=[Link(trace_id=b"l" * 16, span_id=b"l" * 8)],
        inference=InferenceContext(output_tokens=3, queue_wait_time_ms=0.5),
    )
    other = new_span(service_name="engine", operation_name="embed", duration_nanos=5 * MS)
    client.send(root, child, other)
    return [root, child, other]


def test_names(client: Client, spans: list[Span]) -> None:
    assert data(client, "services") == ["engine", "gateway"]
    assert data(client, "services/engine/operations") == ["embed", "inference"]
    assert data(client, "services/no%2Fsuch/operations") == []
    now_ms = time.time_ns() // MS
    assert data(client, "dependencies", endTs=now_ms, lookback=3_600_000) == [
        {"parent": "gateway", "child": "engine", "callCount": 1}
    ]


def test_a_trace(client: Client, spans: list[Span]) -> None:
    root = spans[0]
    # Jaeger leaves out leading zeros.
    (trace,) = data(client, f"traces/{root.trace_id.hex().lstrip('0')}", start=1, end=2)
    assert trace["traceID"] == root.trace_id.hex()
    first, second = trace["spans"]
    assert first["operationName"] == "POST /v1/chat"
    assert (first["startTime"], first["duration"]) == (root.start_time_unix_nano // 1_000, 50_000)
    tags = {tag["key"]: (tag["type"], tag["value"]) for tag in first["tags"]}
    assert tags["tenant"] == ("string", "acme")
    assert tags["http.status_code"] == ("int64", 200)
    assert tags["span.kind"] == ("string", "server")
    assert "error" not in tags
    assert second["references"] == [
        {"refType": "CHILD_OF", "traceID": root.trace_id.hex(), "spanID": root.span_id.hex()},
        {"refType": "FOLLOWS_FROM", "traceID": (b"l" * 16).hex(), "spanID": (b"l" * 8).hex()},
    ]
    tags = {tag["key"]: (tag["type"], tag["value"]) for tag in second["tags"]}
    assert tags["error"] == ("bool", True)
    assert tags["output_tokens"] == ("int64", 3)
    assert tags["queue_wait_time_ms"] == ("float64", 0.5)
    (log,) = second["logs"]
    assert log["timestamp"] == (root.start_time_unix_nano + 5_000) // 1_000
    assert log["fields"] == [{"key": "event", "type": "string", "value": "preempted"}]
    services = {name: process["serviceName"] for name, process in trace["processes"].items()}
    assert services[first["processID"]] == "gateway"
    assert services[second["processID"]] == "engine"
    assert client.error("/jaeger/api/traces/ff")[0] == 404
    assert client.error("/jaeger/api/traces/xy")[0] == 400


def test_a_search(client: Client, spans: list[Span]) -> None:
    root, _, other = spans

    def found(**parameters: Any) -> list[str]:
        traces = data(client, "traces", **parameters)
        return sorted(trace["traceID"] for trace in traces)

    one, two = root.trace_id.hex(), other.trace_id.hex()
    assert found() == sorted([one, two])
    assert found(service="engine", limit=1) == [two]  # the newest
    # Whole traces, also where one of their spans alone matches.
    (trace,) = data(client, "traces", service="gateway")
    assert len(trace["spans"]) == 2
    assert found(tags=json.dumps({"error": "true"})) == [one]
    assert found(tags=json.dumps({"tenant": "acme", "http.status_code": "200"})) == [one]
    assert found(tags=json.dumps({"tenant": "globex"})) == []
    assert found(minDuration="10ms", service="engine") == [one]
    assert found(maxDuration="5ms") == [two]
    assert found(maxDuration="4.999ms") == []
    start = root.start_time_unix_nano // 1_000
    assert found(start=start, end=start + 10**6) == sorted([one, two])
    assert found(end=start) == []
    assert found(lookback="1h", prettyPrint="true") == sorted([one, two])
    assert found(operation="embed", service="engine") == [two]
    for name, text in (("tags", "[]"), ("minDuration", "1"), ("limit", "0"), ("start", "-1")):
        status, error = client.error("/jaeger/api/traces", **{name: text})
        assert status == 400
        assert error.startswith(f"{name}: expected ")
