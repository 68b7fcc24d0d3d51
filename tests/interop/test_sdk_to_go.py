"""A collector written in Go gets every field that the SDK records, from both backends."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from backend_recording import available_backends
from infertrace.generated import span_pb2

HERE = Path(__file__).parent
SMALL_SPAN_COUNT = 3000
NAMED_SPAN_COUNT = 3
PRODUCER_TIMEOUT_S = 60


def expected_span(ids: dict[str, str]) -> span_pb2.Span:
    """What sdk_producer.py recorded, except values of the machine and the clock."""
    trace_id = bytes.fromhex(ids["trace_id"])
    return span_pb2.Span(
        trace_id=trace_id,
        span_id=bytes.fromhex(ids["span_id"]),
        parent_span_id=bytes.fromhex(ids["parent_span_id"]),
        service_name="interop",
        operation_name="inference",
        status="ERROR",
        status_message="RuntimeError: out of memory",
        tags={"größe": "groß 🙂"},
        inference=span_pb2.InferenceContext(
            model_name="resnet50",
            model_version="2.1",
            batch_size=8,
            input_tokens=24,
            output_tokens=0,
            framework="pytorch",
            sequence_length=512.5,
            cache_hit_rate=0.0,
            pipeline_stage="inference",
            queue_depth=3,
            queue_wait_time_ms=1.5,
            batch_fill_ratio=0.5,
            time_to_first_token_ms=12.25,
            inter_token_latency_ms=2.125,
        ),
        attributes={
            "prompt.template": span_pb2.AttributeValue(string_value="qa"),
            "prompt.cached": span_pb2.AttributeValue(bool_value=False),
            "seed": span_pb2.AttributeValue(int_value=-(2**63)),
            "temperature": span_pb2.AttributeValue(double_value=0.7),
        },
        events=[
            span_pb2.Event(
                name="first token", attributes={"index": span_pb2.AttributeValue(int_value=1)}
            ),
            span_pb2.Event(
                name="exception",
                attributes={
                    "exception.type": span_pb2.AttributeValue(string_value="RuntimeError"),
                    "exception.message": span_pb2.AttributeValue(string_value="out of memory"),
                },
            ),
        ],
        links=[
            span_pb2.Link(
                trace_id=trace_id,
                span_id=bytes.fromhex(ids["linked_span_id"]),
                attributes={"kind": span_pb2.AttributeValue(string_value="batched request")},
            )
        ],
        invalid_field_count=1,
    )


@pytest.mark.parametrize("backend", available_backends())
def test_every_field_arrives(receiver: Any, fake_driver: Path, backend: str) -> None:
    done = subprocess.run(
        [sys.executable, HERE / "sdk_producer.py", receiver.address, str(SMALL_SPAN_COUNT)],
        env={
            **os.environ,
            "INFERTRACE_BACKEND": backend,
            "LD_LIBRARY_PATH": str(fake_driver.parent),
        },
        capture_output=True,
        text=True,
        timeout=PRODUCER_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ids = json.loads(done.stdout)
    calls = receiver.stop()

    total = SMALL_SPAN_COUNT + NAMED_SPAN_COUNT
    assert ids["backend"] == backend
    assert ids["flushed"]
    stats = ids["stats"]
    assert (stats["produced"], stats["delivered"], stats["pending"]) == (total, total, 0)
    assert not any(stats["dropped"].values())

    assert {method for method, _ in calls} == {"SendSpanBatch"}
    batches = [json_format.Parse(text, span_pb2.SendSpanBatchRequest()) for _, text in calls]
    assert_numbered(batches, total)

    spans = {span.span_id: span for batch in batches for span in batch.spans}
    assert len(spans) == total
    small = [span for span in spans.values() if span.operation_name == "small"]
    assert sorted(s.inference.batch_size for s in small) == list(range(SMALL_SPAN_COUNT))

    span = spans[bytes.fromhex(ids["span_id"])]
    parent = spans[span.parent_span_id]
    assert not parent.parent_span_id
    assert parent.start_time_unix_nano <= span.start_time_unix_nano
    assert 0 < span.duration_nanos <= parent.duration_nanos
    assert_resources(span.resources)
    end_ns = span.start_time_unix_nano + span.duration_nanos
    for event in span.events:
        assert span.start_time_unix_nano <= event.time_unix_nano <= end_ns
    assert "sdk_producer.py" in span.events[1].attributes["exception.stacktrace"].string_value

    del span.events[1].attributes["exception.stacktrace"]
    for event in span.events:
        event.ClearField("time_unix_nano")
    for field in ("start_time_unix_nano", "duration_nanos", "resources"):
        span.ClearField(field)
    assert span == expected_span(ids)


def assert_numbered(batches: list[span_pb2.SendSpanBatchRequest], total: int) -> None:
    """One producer, batches and spans numbered without a gap, a final ledger."""
    assert {len(batch.producer_id) for batch in batches} == {16}
    assert len({batch.producer_id for batch in batches}) == 1
    batches = sorted(batches, key=lambda batch: batch.batch_sequence)
    assert [batch.batch_sequence for batch in batches] == list(range(1, len(batches) + 1))
    next_span_sequence = 1
    for batch in batches:
        if batch.spans:
            assert batch.first_span_sequence == next_span_sequence
        next_span_sequence += len(batch.spans)
    assert next_span_sequence == total + 1
    assert [batch.final for batch in batches] == [False] * (len(batches) - 1) + [True]
    assert batches[-1].produced_count == total
    assert not batches[-1].dropped_counts


def assert_resources(resources: span_pb2.ResourceMetrics) -> None:
    """The fake GPU's exact readings; plausible readings of this process."""
    assert resources.HasField("gpu_utilization_percent")
    assert resources.gpu_utilization_percent == 0
    assert resources.gpu_memory_used_bytes == 30 * 2**30
    assert resources.gpu_memory_total_bytes == 80 * 2**30
    assert resources.gpu_device_id == "GPU-5f0c7a52-fake"
    assert resources.gpu_power_watts == 350.5
    assert resources.gpu_temperature_celsius == 61
    assert resources.HasField("cpu_utilization_percent")
    assert resources.memory_heap_bytes > 2**20
    assert resources.HasField("sample_age_ms")
