"""What a collector would know of a simulated engine's requests and steps."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from itertools import pairwise

from infertrace.collector.diagnosis.facts import GpuFacts, RequestFacts, StepFacts
from infertrace.commands.simulated_engine import Model, Request, Step
from infertrace.commands.simulated_gpu import GpuState

NANOS_PER_MS = 1e6


def request_facts(model: Model, request: Request, steps: Sequence[Step]) -> RequestFacts:
    """A finished request as its span says it; the GPU is that of its last step."""
    assert request.end_ns is not None
    tokens = request.token_times_ns
    intervals = [(b - a) / NANOS_PER_MS for a, b in pairwise(tokens)]
    last = None if request.last_step is None else steps[request.last_step - 1]

    def offset_ms(time_ns: int | None) -> float | None:
        if time_ns is None:
            return None
        return _float32((time_ns - request.arrival_ns) / NANOS_PER_MS)

    return RequestFacts(
        trace_id=_hex(request.request_id, 32),
        span_id=_hex(request.request_id, 16),
        start_ns=request.arrival_ns,
        duration_ns=request.end_ns - request.arrival_ns,
        model_name=model.name,
        status="ERROR" if request.error else "OK",
        status_message=request.error or None,
        request_id=request.request_id,
        engine="0",
        input_tokens=request.input_tokens,
        cached_input_tokens=request.cached_input_tokens,
        output_tokens=len(tokens),
        preemption_count=request.preemption_count,
        scheduled_after_ms=offset_ms(request.scheduled_ns),
        time_to_first_token_ms=offset_ms(tokens[0]) if tokens else None,
        inter_token_latency_ms=_float32(sum(intervals) / len(intervals)) if intervals else None,
        max_inter_token_latency_ms=_float32(max(intervals)) if intervals else None,
        first_step=request.first_step,
        last_step=request.last_step,
        step_count=request.step_count or None,
        gpu=GpuFacts() if last is None else gpu_facts(last.gpu),
    )


def step_facts(step: Step) -> StepFacts:
    """A step as its span says it."""
    return StepFacts(
        trace_id=_hex(f"step {step.index}", 32),
        span_id=_hex(f"step {step.index}", 16),
        index=step.index,
        start_ns=step.start_ns,
        duration_ns=step.duration_ns,
        batch_size=step.batch_size,
        batch_fill_ratio=_float32(step.batch_fill_ratio),
        prefill_tokens=step.prefill_tokens,
        decode_tokens=len(step.decode),
        queue_depth=step.queue_depth,
        kv_cache_usage=_float32(step.kv_cache_usage),
        gpu=gpu_facts(step.gpu),
    )


def gpu_facts(gpu: GpuState) -> GpuFacts:
    return GpuFacts(
        clock_mhz=gpu.clock_mhz,
        temperature_celsius=gpu.temperature_celsius,
        power_watts=gpu.power_watts,
        utilization_percent=gpu.utilization_percent,
        memory_used_bytes=gpu.memory_used_bytes,
        memory_total_bytes=gpu.memory_total_bytes,
    )


def _float32(value: float) -> float:
    """As the wire holds it."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


def _hex(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
