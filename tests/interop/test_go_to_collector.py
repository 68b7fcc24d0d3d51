"""Spans that a Go program sends come back from the collector's HTTP API, every field."""

import json
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from google.protobuf import json_format

from infertrace.collector.query.trace_totals import COUNTED
from infertrace.generated import span_pb2

FULL_BATCH = Path(__file__).parent.parent / "schema" / "full_batch.json"
COLLECTOR_DEADLINE_S = 60
HTTP_TIMEOUT_S = 20
READY = re.compile(r"infertrace collector: gRPC on (\S+), HTTP on (\S+), store \S+")

FULL_ANSWER = {
    "span_id": "1112131415161718",
    "parent_span_id": "2122232425262728",
    "service_name": "vision-api",
    "operation_name": "inference",
    "start_time": "2026-01-01T00:00:00.123456789Z",
    "duration_ms": 42.5,
    "status": "ERROR",
    "status_message": "RuntimeError: out of memory",
    "model_name": "resnet50",
    "model_version": "2.1",
    "batch_size": 8,
    "input_tokens": 24,
    "output_tokens": 100,
    "framework": "pytorch",
    "sequence_length": 512.5,
    "cache_hit_rate": 0.75,
    "pipeline_stage": "inference",
    "queue_depth": 3,
    "queue_wait_time_ms": 1.5,
    "batch_fill_ratio": 0.5,
    "time_to_first_token_ms": 12.25,
    "inter_token_latency_ms": 2.125,
    "gpu_utilization_percent": 87.5,
    "gpu_memory_used_bytes": 17_179_869_184,
    "gpu_memory_total_bytes": 85_899_345_920,
    "gpu_device_id": "GPU-00000000-1111-2222-3333-444444444444",
    "cpu_utilization_percent": 150.5,
    "memory_heap_bytes": 4_294_967_296,
    "sample_age_ms": 99.5,
    "gpu_power_watts": 312.5,
    "gpu_temperature_celsius": 61.5,
    "tags": {"region": "eu", "größe": "groß"},
    "attributes": {
        "prompt.template": "qa",
        "prompt.cached": True,
        "seed": -(2**63),
        "temperature": 0.7,
        "digest": {"$bytes": "AAH/"},
        "stops": ["\n", 2],
        "usage": {"cached": 3},
    },
    "events": [
        {
            "time": "2026-01-01T00:00:00.133456789Z",
            "name": "first token",
            "attributes": {"index": 1},
            "dropped_attributes_count": 1,
        }
    ],
    "links": [
        {
            "trace_id": "3132333435363738393a3b3c3d3e3f40",
            "span_id": "4142434445464748",
            "attributes": {"kind": "batched request"},
            "trace_state": "vendor=1",
            "dropped_attributes_count": 2,
            "flags": 257,
        }
    ],
    "invalid_field_count": 2,
    "flags": 769,
    "kind": "SERVER",
    "trace_state": "text",
    "scope_name": "text",
    "scope_version": "text",
    "scope_attributes": {"tier": "gold"},
    "dropped_attributes_count": 7,
    "dropped_events_count": 7,
    "dropped_links_count": 7,
    "status_code": 7,
    "request_id": "text",
    "finish_reason": "text",
    "cached_input_tokens": 7,
    "reasoning_output_tokens": 7,
    "preemption_count": 7,
    "scheduled_after_ms": 0.5,
    "max_inter_token_latency_ms": 0.5,
    "token_intervals": {"scale": 3, "offset": 160, "counts": [3, 1]},
    "engine": "text",
    "membership": "text",
    "step_index": 7,
    "first_step": 7,
    "last_step": 7,
    "step_count": 7,
    "prefill_tokens": 7,
    "decode_tokens": 7,
    "kv_cache_usage": 0.5,
}
TOTALS = {"requests": 1, "input_tokens": 24, "output_tokens": 100, "counted": COUNTED}
ORIGIN_ANSWER = {
    "producer_id": "6162636465666768696a6b6c6d6e6f70",
    "resource_id": "3552c9bcd04709e3d765fe50ab08e031",
    "resource": {"service.version": "1.4.2"},
}
PARENT_ANSWER = {
    "span_id": "2122232425262728",
    "service_name": "vision-api",
    "operation_name": "request",
    "start_time": "2026-01-01T00:00:00.113456789Z",
    "duration_ms": 62.5,
    "status": "OK",
}


@pytest.fixture
def collector() -> Iterator[tuple[str, str]]:
    """A running collector's gRPC and HTTP addresses."""
    options = ["--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--store", "memory:"]
    process = subprocess.Popen(
        [sys.executable, "-m", "infertrace", "collector", *options],
        stdout=subprocess.PIPE,
        text=True,
    )
    watchdog = threading.Timer(COLLECTOR_DEADLINE_S, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        ready = next(filter(None, map(READY.match, process.stdout)), None)
        assert ready, "the collector did not say that it is ready"
        yield ready[1], ready[2]
    finally:
        watchdog.cancel()
        process.terminate()
        process.communicate(timeout=COLLECTOR_DEADLINE_S)


@pytest.fixture
def batch() -> span_pb2.SendSpanBatchRequest:
    return json_format.Parse(FULL_BATCH.read_text("utf-8"), span_pb2.SendSpanBatchRequest())


def trace(http_address: str, trace_id: bytes) -> dict[str, object]:
    url = f"http://{http_address}/traces/{trace_id.hex()}"
    with urllib.request.urlopen(url, timeout=HTTP_TIMEOUT_S) as answer:
        return json.load(answer)


def test_a_batch_comes_back(
    collector: tuple[str, str],
    send_with_go: Callable[[str, str, str], str],
    batch: span_pb2.SendSpanBatchRequest,
) -> None:
    grpc_address, http_address = collector
    response = send_with_go(grpc_address, "SendSpanBatch", json_format.MessageToJson(batch))
    assert json_format.Parse(
        response, span_pb2.SendSpanBatchResponse()
    ) == span_pb2.SendSpanBatchResponse(accepted_count=2)

    trace_id = batch.spans[0].trace_id
    assert trace(http_address, trace_id) == {
        "trace_id": trace_id.hex(),
        "spans": [
            {"trace_id": trace_id.hex(), **PARENT_ANSWER, **ORIGIN_ANSWER},
            {"trace_id": trace_id.hex(), **FULL_ANSWER, **ORIGIN_ANSWER},
        ],
        "totals": TOTALS,
    }


def test_a_single_span_comes_back(
    collector: tuple[str, str],
    send_with_go: Callable[[str, str, str], str],
    batch: span_pb2.SendSpanBatchRequest,
) -> None:
    grpc_address, http_address = collector
    request = span_pb2.SendSpanRequest(span=batch.spans[0])
    response = send_with_go(grpc_address, "SendSpan", json_format.MessageToJson(request))
    assert json_format.Parse(response, span_pb2.SendSpanResponse()).accepted

    trace_id = batch.spans[0].trace_id
    assert trace(http_address, trace_id) == {
        "trace_id": trace_id.hex(),
        "spans": [{"trace_id": trace_id.hex(), **FULL_ANSWER}],
        "totals": TOTALS,
    }
