"""Sampling: a trace is recorded whole or not at all; a disabled tracer only costs a call."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from infertrace import current_span

UNSAMPLED = "00-" + "a" * 32 + "-" + "b" * 16 + "-00"


def test_off_is_one_shared_span(recording: Any, backend: Any) -> None:
    recording.recorder.enabled = False
    with recording.start_span("m", batch_size=1) as span:
        assert span is backend.NOOP
        assert not span.is_recording
        assert span.trace_id == "0" * 32
        assert span.span_id == "0" * 16
        assert span.parent_span_id is None
        assert span.traceparent.endswith("-00")
        span.set_model_version("v")
        span.set_batch_size(1)
        span.set_tokens(input=1, output=1)
        span.set_framework("f")
        span.set_sequence_length(1.0)
        span.set_cache_hit_rate(1.0)
        span.set_pipeline_stage("s")
        span.set_queue(depth=1, wait_time_ms=1.0)
        span.set_batch_fill_ratio(1.0)
        span.set_streaming(time_to_first_token_ms=1.0, inter_token_latency_ms=1.0)
        span.set_tag("k", "v")
        span.set_attribute("k", 1)
        span.add_event("e", {"k": 1})
        span.add_link(span)
        span.record_exception(ValueError())
        span.set_status("ERROR", "m")
        span.end()
    assert recording.recorder.counts()[0] == 0


def test_off_leaves_another_tracers_span_current(recording: Any, new_recording: Any) -> None:
    off = new_recording()
    off.recorder.enabled = False
    with recording.start_span("m", "a") as a, off.start_span("m"):
        assert current_span() is a


def test_children_of_an_unsampled_trace_are_not_sampled(recording: Any) -> None:
    recording.recorder.set_sample_rate(0)
    with recording.start_span("m") as root:
        assert not root.is_recording
        recording.recorder.set_sample_rate(1)  # the decision was made at the root
        with recording.start_span("m") as child:
            assert not child.is_recording
        with recording.start_span("m") as sibling:
            assert not sibling.is_recording
    with recording.start_span("m", "sampled"):
        pass
    assert recording.take_one().operation_name == "sampled"


def test_an_unsampled_trace_reaches_into_tasks(recording: Any) -> None:
    async def child() -> bool:
        return bool(recording.start_span("m").is_recording)

    async def serve() -> bool:
        recording.recorder.set_sample_rate(0)
        with recording.start_span("m"):
            task = asyncio.create_task(child())
        recording.recorder.set_sample_rate(1)
        return await task

    assert asyncio.run(serve()) is False


def test_a_remote_parents_decision_counts(recording: Any) -> None:
    with recording.start_span("m", parent=UNSAMPLED) as span:
        assert not span.is_recording
        assert not recording.start_span("m").is_recording
    recording.recorder.set_sample_rate(0)
    with recording.start_span("m", parent=UNSAMPLED.removesuffix("00") + "01") as span:
        assert span.is_recording


@pytest.mark.parametrize("rate", [0.0, 0.25, 0.9, 1.0])
def test_the_share_of_traces(recording: Any, rate: float) -> None:
    recording.recorder.set_sample_rate(rate)
    total = 20_000
    recorded = sum(recording.start_span("m").is_recording for _ in range(total))
    # Six standard deviations of a binomial: one false alarm in 10**9 runs.
    assert abs(recorded - rate * total) <= 6 * (total * rate * (1 - rate)) ** 0.5
