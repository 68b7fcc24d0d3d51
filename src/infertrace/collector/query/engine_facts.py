"""Stored rows as the facts of the diagnosis, and what an answer shows of them."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from infertrace.collector.diagnosis.facts import GpuFacts, RequestFacts, StepFacts
from infertrace.collector.query.flat_span import flat_values
from infertrace.collector.store.columns import COLUMNS
from infertrace.collector.store.engine_filter import DEFAULT_ENGINE
from infertrace.collector.store.span_filter import Row
from infertrace.collector.store.timestamps import format_rfc3339

_GPU = {
    "gpu_temperature_celsius": "temperature_celsius",
    "gpu_power_watts": "power_watts",
    "gpu_utilization_percent": "utilization_percent",
    "gpu_memory_used_bytes": "memory_used_bytes",
    "gpu_memory_total_bytes": "memory_total_bytes",
}
_SAME = (
    "model_name",
    "status",
    "status_message",
    "request_id",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "preemption_count",
    "scheduled_after_ms",
    "queue_wait_time_ms",
    "time_to_first_token_ms",
    "inter_token_latency_ms",
    "max_inter_token_latency_ms",
    "first_step",
    "last_step",
    "step_count",
)
_FLOAT32 = struct.Struct("f")
_FLOAT32_COLUMNS = frozenset(column.name for column in COLUMNS if column.kind == "float32")
REQUEST_COLUMNS = ("trace_id", "span_id", "start_time", "duration_nanos", "engine", *_SAME, *_GPU)

_SAME_OF_STEP = (
    "batch_size",
    "batch_fill_ratio",
    "prefill_tokens",
    "decode_tokens",
    "queue_depth",
    "kv_cache_usage",
)
STEP_COLUMNS = (
    "trace_id",
    "span_id",
    "start_time",
    "duration_nanos",
    "step_index",
    *_SAME_OF_STEP,
    *_GPU,
)
SHOWN_STEP_COLUMNS = (
    "trace_id",
    "span_id",
    "producer_id",
    "service_name",
    "model_name",
    "engine",
    "step_index",
    "start_time",
    "duration_nanos",
    "status",
    *_SAME_OF_STEP,
    *_GPU,
)


def request_facts(columns: Sequence[str], row: Row) -> RequestFacts:
    """A request from a row with at least REQUEST_COLUMNS."""
    values = dict(zip(columns, row, strict=True))
    return RequestFacts(
        trace_id=values["trace_id"].hex,
        span_id=f"{values['span_id']:016x}",
        start_ns=values["start_time"],
        duration_ns=values["duration_nanos"],
        engine=values["engine"] or DEFAULT_ENGINE,
        gpu=_gpu(values),
        **{name: _exact(name, values[name]) for name in _SAME},
    )


def step_facts(columns: Sequence[str], row: Row) -> StepFacts:
    """A step from a row with at least STEP_COLUMNS."""
    values = dict(zip(columns, row, strict=True))
    return StepFacts(
        trace_id=values["trace_id"].hex,
        span_id=f"{values['span_id']:016x}",
        index=values["step_index"],
        start_ns=values["start_time"],
        duration_ns=values["duration_nanos"],
        gpu=_gpu(values),
        **{name: _exact(name, values[name]) for name in _SAME_OF_STEP},
    )


def _exact(name: str, value: Any) -> Any:
    """A number of 32 bits as itself: PostgreSQL tells the shortest decimal of it."""
    if value is None or name not in _FLOAT32_COLUMNS:
        return value
    return _FLOAT32.unpack(_FLOAT32.pack(value))[0]


def _gpu(values: Mapping[str, Any]) -> GpuFacts:
    return GpuFacts(**{fact: values[column] for column, fact in _GPU.items()})


def shown_step(row: Row) -> dict[str, Any]:
    """A row of SHOWN_STEP_COLUMNS as JSON types; the engine is there in any case."""
    shown = flat_values(SHOWN_STEP_COLUMNS, row)
    shown.setdefault("engine", DEFAULT_ENGINE)
    return shown


def shown_request(request: RequestFacts) -> dict[str, Any]:
    """A request in an answer about another one: enough to name and to find it."""
    shown: dict[str, Any] = {"trace_id": request.trace_id, "span_id": request.span_id}
    if request.request_id is not None:
        shown["request_id"] = request.request_id
    shown["start_time"] = format_rfc3339(request.start_ns)
    shown["duration_ms"] = request.duration_ms
    for name in ("input_tokens", "cached_input_tokens", "output_tokens"):
        if (value := getattr(request, name)) is not None:
            shown[name] = value
    return shown
