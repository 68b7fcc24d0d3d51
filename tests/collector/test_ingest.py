"""Every field that is sent is answered: absent is not zero, types and digits stay."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector_client import Client, NewSpan
from infertrace.generated.span_pb2 import (
    AttributeValue,
    Event,
    InferenceContext,
    Link,
    ResourceMetrics,
    SendSpanRequest,
    Span,
)


def test_every_field_comes_back(client: Client) -> None:
    attributes = {"n": AttributeValue(int_value=2**63 - 1), "x": AttributeValue(double_value=1.0)}
    span = Span(
        trace_id=bytes(range(16)),
        span_id=b"\xff" * 8,
        parent_span_id=b"\x00" * 7 + b"\x01",
        service_name="server",
        operation_name="inference",
        start_time_unix_nano=1_700_000_000_123_456_789,
        duration_nanos=1_234_567,
        status="ERROR",
        status_message="ValueError: no",
        tags={"b": "2", "a": "1"},
        inference=InferenceContext(
            model_name="meta-llama/Llama-3",
            model_version="7",
            batch_size=8,
            input_tokens=24,
            output_tokens=100,
            framework="pytorch",
            sequence_length=0.1,
            cache_hit_rate=1 / 3,
            pipeline_stage="inference",
            queue_depth=3,
            queue_wait_time_ms=1e-3,
            batch_fill_ratio=1.0,
            time_to_first_token_ms=16777216.0,
            inter_token_latency_ms=3.4028234663852886e38,
        ),
        resources=ResourceMetrics(
            gpu_utilization_percent=12.3,
            gpu_memory_used_bytes=2**62 + 1,
            gpu_memory_total_bytes=2**63 - 1,
            gpu_device_id="GPU-1",
            cpu_utilization_percent=250.5,
            memory_heap_bytes=1,
            sample_age_ms=99.5,
            gpu_power_watts=301.25,
            gpu_temperature_celsius=-1.5,
        ),
        attributes=attributes,
        events=[Event(time_unix_nano=1, name="first", attributes=attributes)],
        links=[Link(trace_id=b"\x01" * 16, span_id=b"\x02" * 8)],
        invalid_field_count=2,
    )
    client.send(span)
    assert client.get("/spans") == [
        {
            "trace_id": "000102030405060708090a0b0c0d0e0f",
            "span_id": "ffffffffffffffff",
            "parent_span_id": "0000000000000001",
            "service_name": "server",
            "operation_name": "inference",
            "start_time": "2023-11-14T22:13:20.123456789Z",
            "duration_ms": 1.234567,
            "status": "ERROR",
            "status_message": "ValueError: no",
            "model_name": "meta-llama/Llama-3",
            "model_version": "7",
            "batch_size": 8,
            "input_tokens": 24,
            "output_tokens": 100,
            "framework": "pytorch",
            "sequence_length": 0.1,
            "cache_hit_rate": 0.33333334,
            "pipeline_stage": "inference",
            "queue_depth": 3,
            "queue_wait_time_ms": 0.001,
            "batch_fill_ratio": 1.0,
            "time_to_first_token_ms": 16777216.0,
            "inter_token_latency_ms": 3.4028235e38,
            "gpu_utilization_percent": 12.3,
            "gpu_memory_used_bytes": 2**62 + 1,
            "gpu_memory_total_bytes": 2**63 - 1,
            "gpu_device_id": "GPU-1",
            "cpu_utilization_percent": 250.5,
            "memory_heap_bytes": 1,
            "sample_age_ms": 99.5,
            "gpu_power_watts": 301.25,
            "gpu_temperature_celsius": -1.5,
            "tags": {"a": "1", "b": "2"},
            "attributes": {"n": 2**63 - 1, "x": 1.0},
            "events": [
                {
                    "time": "1970-01-01T00:00:00.000000001Z",
                    "name": "first",
                    "attributes": {"n": 2**63 - 1, "x": 1.0},
                }
            ],
            "links": [{"trace_id": "01" * 16, "span_id": "02" * 8}],
            "invalid_field_count": 2,
        }
    ]


def test_what_was_not_set_is_left_out(client: Client) -> None:
    client.send(Span(trace_id=b"t" * 16, span_id=b"s" * 8, start_time_unix_nano=1))
    assert client.get("/spans") == [
        {
            "trace_id": b"t".hex() * 16,
            "span_id": b"s".hex() * 8,
            "start_time": "1970-01-01T00:00:00.000000001Z",
            "duration_ms": 0.0,
            "status": "OK",
        }
    ]


def test_zero_is_not_absent(client: Client, new_span: NewSpan) -> None:
    client.send(
        new_span(
            inference=InferenceContext(batch_size=0, cache_hit_rate=0.0),
            resources=ResourceMetrics(gpu_utilization_percent=0.0, gpu_memory_used_bytes=0),
        )
    )
    (span,) = client.get("/spans")
    assert span["batch_size"] == 0
    assert span["cache_hit_rate"] == 0.0
    assert span["gpu_utilization_percent"] == 0.0
    assert span["gpu_memory_used_bytes"] == 0
    assert "output_tokens" not in span
    assert "gpu_memory_total_bytes" not in span


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_measured_value_that_is_no_number_is_absent(
    client: Client, new_span: NewSpan, number: float
) -> None:
    client.send(
        new_span(
            inference=InferenceContext(cache_hit_rate=number),
            resources=ResourceMetrics(gpu_power_watts=number),
            attributes={"x": AttributeValue(double_value=number)},
        )
    )
    (span,) = client.get("/spans")
    assert "cache_hit_rate" not in span
    assert "gpu_power_watts" not in span
    assert span["attributes"]["x"] in ("NaN", "Infinity", "-Infinity")


scalars = (
    st.text()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    attributes=st.dictionaries(st.text(), scalars, max_size=5),
    tags=st.dictionaries(st.text(), st.text(), max_size=3),
    ratio=st.floats(width=32, allow_nan=False, allow_infinity=False),
    model=st.text(),
)
def test_attributes_keep_their_types(
    client: Client,
    new_span: NewSpan,
    attributes: dict[str, Any],
    tags: dict[str, str],
    ratio: float,
    model: str,
) -> None:
    kinds = {str: "string", bool: "bool", int: "int", float: "double"}
    span = new_span(
        inference=InferenceContext(batch_fill_ratio=ratio),
        attributes={
            key: AttributeValue(**{f"{kinds[type(value)]}_value": value})
            for key, value in attributes.items()
        },
        tags=tags,
    )
    span.inference.model_name = model
    client.send(span)
    (stored,) = client.get(f"/traces/{span.trace_id.hex()}")["spans"]
    answered = stored.get("attributes", {})
    assert answered == attributes
    assert {k: type(v) for k, v in answered.items()} == {k: type(v) for k, v in attributes.items()}
    assert stored.get("tags", {}) == tags
    assert stored.get("model_name", "") == model
    assert struct.pack("f", stored["batch_fill_ratio"]) == struct.pack("f", ratio)
    assert len(repr(stored["batch_fill_ratio"])) <= len(repr(ratio))


def test_send_span(client: Client, new_span: NewSpan) -> None:
    assert client.stub.SendSpan(SendSpanRequest(span=new_span())).accepted
    assert not client.stub.SendSpan(SendSpanRequest(span=new_span(status="LATE"))).accepted
    assert not client.stub.SendSpan(SendSpanRequest()).accepted
    assert len(client.get("/spans")) == 1


def test_an_empty_request_is_accepted(client: Client) -> None:
    answer = client.send_bytes(b"")
    assert (answer.accepted_count, answer.rejected_count) == (0, 0)
