"""The simulated engine schedules as a real one does."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infertrace.commands.simulated_engine import (
    NANOS_PER_SECOND,
    Arrivals,
    Engine,
    Model,
    Request,
    Simulated,
    simulate,
)
from infertrace.commands.simulated_gpu import GpuState

MODEL = Model(
    "m", "1", "pytorch", max_batch=4, max_step_tokens=100, queue_capacity=8,
    kv_capacity_tokens=1_000, arrivals_per_s=20.0, step_s=0.01, prefill_token_s=1e-4,
    decode_token_s=1e-4, input_tokens=(10, 150), output_tokens=(1, 40),
)  # fmt: skip


def ran(model: Model = MODEL, seed: int = 1, seconds: int = 20, **given: Any) -> Simulated:
    engine = Engine(model, random.Random(seed))
    arrivals = Arrivals(model, random.Random(seed + 1), start_ns=0)
    return simulate(engine, arrivals, seconds * NANOS_PER_SECOND, **given)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32),
    max_batch=st.integers(1, 20),
    max_step_tokens=st.integers(21, 400),
    kv_capacity_tokens=st.integers(200, 3_000),
    arrivals_per_s=st.floats(1, 60),
    has_output=st.booleans(),
)
def test_every_request_ends_and_every_step_keeps_to_the_limits(
    seed: int, has_output: bool, **limits: Any
) -> None:
    model = MODEL._replace(output_tokens=(1, 40) if has_output else (0, 0), **limits)
    simulated = ran(model, seed, seconds=3)
    for request in simulated.requests:
        assert request.end_ns is not None
        if request.finish_reason == "rejected":
            assert request.first_step is None
            continue
        assert request.finish_reason in ("stop", "length")
        assert len(request.token_times_ns) == (request.output_limit if has_output else 0)
        assert request.scheduled_ns is not None
        assert request.arrival_ns <= request.scheduled_ns < request.end_ns
        assert request.token_times_ns == sorted(set(request.token_times_ns))
        assert request.first_step is not None
        assert request.last_step is not None
        span = request.last_step - request.first_step + 1
        assert 1 <= request.step_count <= span
        if not request.preemption_count:
            assert request.step_count == span
    end_ns = 0
    for number, step in enumerate(simulated.steps, 1):
        assert step.index == number
        assert step.start_ns >= end_ns
        assert 1 <= step.batch_size <= model.max_batch
        assert step.prefill_tokens + len(step.decode) <= model.max_step_tokens
        assert 0 <= step.kv_cache_usage <= 1
        assert step.queue_depth <= model.queue_capacity + model.max_batch  # with the preempted
        end_ns = step.start_ns + step.duration_ns


def test_a_prompt_is_prefilled_in_chunks_while_others_decode() -> None:
    long = Request("long", 0, input_tokens=450, output_limit=2)
    model = MODEL._replace(arrivals_per_s=1e-3)
    simulated = ran(model, planted=[Request("early", 0, 20, 12), long], seconds=0)
    chunks = [dict(step.prefill).get(long) for step in simulated.steps[: long.step_count]]
    assert sum(chunk or 0 for chunk in chunks) == 450
    assert len([chunk for chunk in chunks if chunk]) == 5
    assert all(len(step.decode) == 1 for step in simulated.steps[1:5])


def test_a_full_kv_cache_preempts_who_came_last_and_computes_it_again() -> None:
    simulated = ran(MODEL._replace(kv_capacity_tokens=260, arrivals_per_s=30.0), seconds=5)
    preempted = [request for request in simulated.requests if request.preemption_count]
    assert preempted
    for step in simulated.steps:
        for request in step.preempted:
            assert request not in step.decode
            assert all(request.scheduled_ns >= other.scheduled_ns for other in step.decode)  # type: ignore[operator]


def test_a_full_queue_refuses() -> None:
    planted = [Request(f"r{n}", 0, 50, 30) for n in range(20)]
    simulated = ran(MODEL._replace(arrivals_per_s=1e-3), planted=planted, seconds=0)
    refused = [request for request in simulated.requests if request.finish_reason == "rejected"]
    assert len(refused) == 20 - MODEL.queue_capacity
    assert refused[0].error == "the queue is full (8 requests wait)"


def test_faults_do_what_they_say() -> None:
    plain = ran(MODEL._replace(arrivals_per_s=1e-3), planted=[Request("r", 0, 50, 30)], seconds=0)

    def faulty(engine: Engine, now_ns: int) -> None:
        engine.gpu = GpuState(clock_mhz=990.0)
        if engine.running and len(engine.running[0].token_times_ns) == 10:
            engine.failure = "broken"

    model = MODEL._replace(arrivals_per_s=1e-3)
    planted = [Request("r", 0, 50, 30)]
    simulated = ran(model, planted=planted, seconds=0, before_step=faulty)
    (request,) = simulated.requests
    assert (request.finish_reason, request.error) == ("error", "broken")
    assert len(request.token_times_ns) == 10
    for slow, usual in zip(simulated.steps, plain.steps, strict=False):
        assert slow.duration_ns == pytest.approx(2 * usual.duration_ns, rel=1e-6)
    assert GpuState().speed == 1
    assert simulated.steps[0].gpu.power_watts < 0.5 * plain.steps[0].gpu.power_watts


def test_the_same_seed_does_the_same() -> None:
    first, second = ran(seed=9), ran(seed=9)
    assert [step.duration_ns for step in first.steps] == [s.duration_ns for s in second.steps]
    assert [r.token_times_ns for r in first.requests] == [r.token_times_ns for r in second.requests]
