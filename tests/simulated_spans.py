"""A simulated engine's requests and steps as the spans that a traced server would send."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from infertrace.collector.diagnosis.facts import GpuFacts
from infertrace.commands.simulated_engine import Model, Request, Simulated, Step
from infertrace.generated.span_pb2 import InferenceContext, ResourceMetrics, Span, TokenIntervals
from infertrace.wire.token_intervals import bucket_of
from simulated_facts import request_facts, step_facts

_SAME = (
    "input_tokens", "cached_input_tokens", "output_tokens", "preemption_count",
    "scheduled_after_ms", "time_to_first_token_ms", "inter_token_latency_ms",
    "max_inter_token_latency_ms", "first_step", "last_step", "step_count",
)  # fmt: skip
_SAME_OF_STEP = (
    "batch_size", "batch_fill_ratio", "prefill_tokens", "decode_tokens", "queue_depth",
    "kv_cache_usage",
)  # fmt: skip


def spans_of(model: Model, simulated: Simulated, engine: str = "0") -> list[Span]:
    """All of them; each is a trace of its own."""
    return [
        *(request_span(model, request, simulated.steps, engine) for request in simulated.requests),
        *(step_span(model, step, engine) for step in simulated.steps),
    ]


def request_span(model: Model, request: Request, steps: Sequence[Step], engine: str = "0") -> Span:
    facts = request_facts(model, request, steps)
    context = InferenceContext(
        model_name=model.name,
        request_id=request.request_id,
        finish_reason=request.finish_reason,
        engine=engine,
        **_present(facts, _SAME),
    )
    if len(request.token_times_ns) > 1:
        context.token_intervals.CopyFrom(intervals_of(request.token_times_ns))
    return _span(facts, "inference", context, facts.status, facts.status_message or "")


def step_span(model: Model, step: Step, engine: str = "0") -> Span:
    facts = step_facts(step)
    context = InferenceContext(
        model_name=model.name,
        engine=engine,
        step_index=step.index,
        **_present(facts, _SAME_OF_STEP),
    )
    return _span(facts, "step", context, "OK", "")


def intervals_of(token_times_ns: Sequence[int]) -> TokenIntervals:
    buckets = [bucket_of(after - before) for before, after in pairwise(token_times_ns)]
    first, last = min(buckets), max(buckets)
    counts = [buckets.count(bucket) for bucket in range(first, last + 1)]
    return TokenIntervals(offset=first, counts=counts)


def _present(facts: Any, names: Sequence[str]) -> dict[str, Any]:
    values = {name: getattr(facts, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _span(facts: Any, operation: str, context: InferenceContext, status: str, message: str) -> Span:
    gpu: GpuFacts = facts.gpu
    readings: dict[str, Any] = {
        "gpu_temperature_celsius": gpu.temperature_celsius,
        "gpu_power_watts": gpu.power_watts,
        "gpu_utilization_percent": gpu.utilization_percent,
        "gpu_memory_used_bytes": gpu.memory_used_bytes,
        "gpu_memory_total_bytes": gpu.memory_total_bytes,
    }
    return Span(
        trace_id=bytes.fromhex(facts.trace_id),
        span_id=bytes.fromhex(facts.span_id),
        service_name="server",
        operation_name=operation,
        start_time_unix_nano=facts.start_ns,
        duration_nanos=facts.duration_ns,
        status=status,
        status_message=message,
        inference=context,
        resources=ResourceMetrics(**{k: v for k, v in readings.items() if v is not None}),
    )
