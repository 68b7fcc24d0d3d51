"""vLLM's plugin, with a stand-in for vLLM, which takes eight gigabytes: see test_real_vllm.py.

The engine's clock says 0 when the first request comes; steps take as long as a test says.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest

import infertrace
import vllm_stand_in as stand_in
from infertrace import program
from infertrace.integrations import switch, vllm, vllm_steps
from infertrace.testing import RecordedSpan, SpanRecorder
from infertrace.wire.token_intervals import bucket_of
from vllm_stand_in import (
    ARRIVAL_S,
    AsyncLLM,
    FinishReason,
    IterationDetails,
    Output,
    OutputProcessor,
)

Spans = dict[str, RecordedSpan]
PARENT = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
PLUGIN = "infertrace.integrations.vllm_stat_logger"
ARRIVAL_NS = round(ARRIVAL_S * 1e9)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Loads the plugin as vLLM does, by its entry point."""
    stand_in.install(monkeypatch)

    def load() -> Any:
        monkeypatch.delitem(sys.modules, PLUGIN, raising=False)
        return import_module(PLUGIN).InfertraceStatLogger

    return load


@pytest.fixture
def new_engine(load: Callable[[], Any], recorded_spans: SpanRecorder) -> Callable[..., AsyncLLM]:
    vllm.instrument(recorded_spans.tracer)
    logger_class = load()
    return lambda steps=1: AsyncLLM(stand_in.configuration(steps), logger_class)


@pytest.fixture
def engine(new_engine: Callable[..., AsyncLLM]) -> AsyncLLM:
    return new_engine()


@pytest.fixture
def requests(recorded_spans: SpanRecorder) -> Callable[[], Spans]:
    return lambda: {
        str(span.fields["request_id"]): span
        for span in recorded_spans.spans
        if span.operation == "request"
    }


@pytest.fixture
def steps(recorded_spans: SpanRecorder) -> Callable[[], list[RecordedSpan]]:
    return lambda: [span for span in recorded_spans.spans if span.operation == "step"]


def near(milliseconds: float) -> Any:
    """In nanoseconds, since a test begins: seconds since 1970 are floats, of 256 ns each."""
    return pytest.approx(milliseconds * 1e6, abs=1_000)


def first(request_id: str, scheduled_s: float, queued_s: float = 0.001, **more: Any) -> Output:
    """The first output of a request."""
    return Output(request_id, queued_s=queued_s, scheduled_s=scheduled_s, **more)


def last(request_id: str, reason: FinishReason = FinishReason.LENGTH, **more: Any) -> Output:
    return Output(request_id, finish_reason=reason, **more)


def test_a_request_and_its_steps(engine: AsyncLLM, recorded_spans: SpanRecorder) -> None:
    engine.add("a", prompt_len=30, trace_headers={"traceparent": PARENT})
    prefill = first("a", 0.004, cached_tokens=20)
    engine.step(0.010, prefill, num_running_reqs=1, num_waiting_reqs=2, kv_cache_usage=0.25)
    engine.step(0.012, Output("a"), num_running_reqs=1, num_skipped_waiting_reqs=1)
    engine.step(0.020, last("a", FinishReason.STOP), num_running_reqs=0)
    request, *steps = recorded_spans.spans
    assert (request.trace_id, request.parent_span_id) == ("ab" * 16, "cd" * 8)
    assert (request.model, request.operation, request.status) == ("llama", "request", "OK")
    assert (request.kind, {step.kind for step in steps}) == ("server", {None})
    assert (request.start_ns, request.duration_ns) == (ARRIVAL_NS, near(20))
    assert request.fields == {
        "request_id": "cmpl-a",
        "framework": "vllm",
        "finish_reason": "stop",
        "engine": "0",
        "membership": "inferred",
        "input_tokens": 30,
        "cached_input_tokens": 20,
        "output_tokens": 3,
        "preemption_count": 0,
        "queue_wait_time_ms": pytest.approx(3),
        "scheduled_after_ms": pytest.approx(4, abs=0.001),
        "time_to_first_token_ms": pytest.approx(10, abs=0.001),
        "inter_token_latency_ms": pytest.approx(5),
        "max_inter_token_latency_ms": pytest.approx(8),
        "token_intervals": histogram(2_000_000, 8_000_000),
        "first_step": 1,
        "last_step": 3,
        "step_count": 3,
    }
    assert request.invalid_fields == 0
    assert [(s.start_ns - ARRIVAL_NS, s.duration_ns) for s in steps] == [
        (near(4), near(6)),
        (near(10), near(2)),
        (near(12), near(8)),
    ]
    assert [s.fields for s in steps] == [
        step_fields(1, prefill_tokens=10, decode_tokens=0, queue_depth=2, kv_cache_usage=0.25),
        step_fields(2, prefill_tokens=0, decode_tokens=1, queue_depth=1),
        step_fields(3, prefill_tokens=0, decode_tokens=1),
    ]
    assert {(s.model, s.operation, s.status, s.parent_span_id) for s in steps} == {
        ("llama", "step", "OK", None)
    }
    assert "vllm" in switch.used()


def step_fields(index: int, **more: Any) -> dict[str, Any]:
    return {
        "framework": "vllm",
        "engine": "0",
        "step_index": index,
        "batch_size": 1,
        "batch_fill_ratio": 0.25,
        "queue_depth": 0,
        "kv_cache_usage": 0.0,
        **more,
    }


def histogram(*intervals_ns: int) -> list[int]:
    buckets = [bucket_of(interval) for interval in intervals_ns]
    lowest, highest = min(buckets), max(buckets)
    return [lowest, *(buckets.count(bucket) for bucket in range(lowest, highest + 1))]


def test_requests_that_share_steps(
    engine: AsyncLLM, requests: Callable[[], Spans], steps: Callable[[], list[RecordedSpan]]
) -> None:
    for name in ("a", "b"):
        engine.add(name, prompt_len=40)
    both = first("a", 0.001), first("b", 0.001)
    engine.step(0.010, *both, num_running_reqs=2)
    engine.add("c", arrival_time=ARRIVAL_S + 0.011)
    engine.step(0.020, last("a"), Output("b"), first("c", 0.0101), num_running_reqs=2)
    engine.step(0.030, Output("b"), Output("c"), num_running_reqs=2)
    engine.step(0.040, last("b"), last("c"), num_running_reqs=0, chunk=1)
    members = {
        name: (span.fields["first_step"], span.fields["last_step"])
        for name, span in requests().items()
    }
    assert members == {"cmpl-a": (1, 2), "cmpl-b": (1, 4), "cmpl-c": (2, 4)}
    assert [
        (s.fields["batch_size"], s.fields["prefill_tokens"], s.fields["decode_tokens"])
        for s in steps()
    ] == [(2, 80, 0), (3, 10, 2), (2, 0, 2), (2, 0, 2)]


def test_an_engine_that_rested_begins_with_its_next_request(
    engine: AsyncLLM, steps: Callable[[], list[RecordedSpan]]
) -> None:
    engine.add("a")
    engine.step(0.010, last("a", queued_s=0.001, scheduled_s=0.002), num_running_reqs=0)
    engine.step(0.011, num_running_reqs=0)  # of what it does after a request; no step
    engine.add("b", arrival_time=ARRIVAL_S + 5)
    engine.step(5.010, last("b", queued_s=5.001, scheduled_s=5.002), num_running_reqs=0)
    assert [(s.start_ns - ARRIVAL_NS, s.duration_ns) for s in steps()] == [
        (near(2), near(8)),
        (near(5_002), near(8)),
    ]


def test_a_long_prompt_is_read_in_parts(
    engine: AsyncLLM,
    requests: Callable[[], Spans],
    steps: Callable[[], list[RecordedSpan]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vllm_steps, "TOGETHER_S", 0)
    engine.add("short")
    engine.step(0.010, first("short", 0.001), num_running_reqs=1)
    engine.add("long", prompt_len=250, arrival_time=ARRIVAL_S + 0.010)
    engine.step(0.020, Output("short"), num_running_reqs=2)
    assert len(steps()) == 1  # what it read of the long prompt is not known yet
    engine.step(0.030, Output("short"), num_running_reqs=2)
    engine.step(0.040, Output("short"), first("long", 0.0101), num_running_reqs=2)
    assert [
        (s.fields["batch_size"], s.fields["prefill_tokens"], s.fields["decode_tokens"])
        for s in steps()
    ] == [(1, 10, 0), (2, 99, 1), (2, 99, 1), (2, 52, 1)]
    engine.step(0.050, last("long"), last("short"), num_running_reqs=0)
    fields = requests()["cmpl-long"].fields
    assert [fields[name] for name in ("first_step", "last_step", "step_count")] == [2, 5, 4]


def test_a_long_prompt_alone_has_steps_without_any_output(
    engine: AsyncLLM, requests: Callable[[], Spans], steps: Callable[[], list[RecordedSpan]]
) -> None:
    engine.add("long", prompt_len=230)
    engine.step(0.010, num_running_reqs=1)
    engine.step(0.020, num_running_reqs=1)
    engine.step(0.030, last("long", queued_s=0.001, scheduled_s=0.002), num_running_reqs=0)
    assert [(s.fields["batch_size"], s.fields["prefill_tokens"]) for s in steps()] == [
        (1, 100),
        (1, 100),
        (1, 30),
    ]
    assert steps()[0].start_ns - ARRIVAL_NS == near(2)
    fields = requests()["cmpl-long"].fields
    assert [fields[name] for name in ("first_step", "last_step", "step_count")] == [1, 3, 3]


def test_with_two_steps_under_way_it_came_into_the_later_one(
    new_engine: Callable[..., AsyncLLM], requests: Callable[[], Spans]
) -> None:
    engine = new_engine(2)
    engine.add("a")
    engine.step(0.010, first("a", 0.001), num_running_reqs=1)
    engine.add("b", arrival_time=ARRIVAL_S + 0.011)
    engine.step(0.020, Output("a"), num_running_reqs=2)  # began before b was scheduled
    engine.step(0.030, Output("a"), first("b", 0.012), num_running_reqs=2)
    engine.step(0.040, last("a"), last("b"), num_running_reqs=0)
    assert requests()["cmpl-b"].fields["first_step"] == 3
    assert requests()["cmpl-b"].fields["step_count"] == 2


def test_what_the_engine_says_itself_counts(
    engine: AsyncLLM, steps: Callable[[], list[RecordedSpan]]
) -> None:
    engine.add("a", prompt_len=70)
    details = IterationDetails(2, 60, 1, 1)
    engine.step(0.010, num_running_reqs=1, iteration_details=details)
    rest = IterationDetails(1, 10, 0, 0)
    last_one = last("a", queued_s=0.001, scheduled_s=0.002)
    engine.step(0.020, last_one, num_running_reqs=0, iteration_details=rest)
    dummy = IterationDetails(9, 9, 9, 9, is_dummy=True)
    engine.add("b")
    engine.step(0.030, last("b"), num_running_reqs=0, iteration_details=dummy)
    assert [(s.fields["batch_size"], s.fields["prefill_tokens"]) for s in steps()] == [
        (3, 60),
        (1, 10),
        (1, 10),
    ]


def test_a_preemption(engine: AsyncLLM, requests: Callable[[], Spans]) -> None:
    engine.add("a")
    engine.step(0.010, first("a", 0.001), num_running_reqs=1)
    engine.step(0.020, num_running_reqs=0, num_waiting_reqs=1)
    engine.step(0.050, Output("a", has_been_preempted=True, scheduled_s=0.03), num_running_reqs=1)
    engine.step(0.060, last("a"), num_running_reqs=0)
    fields = requests()["cmpl-a"].fields
    assert fields["preemption_count"] == 1
    assert fields["max_inter_token_latency_ms"] == pytest.approx(40)
    assert fields["scheduled_after_ms"] == pytest.approx(1, abs=0.001)


@pytest.mark.parametrize(
    ("reason", "status"), [(FinishReason.ERROR, "ERROR"), (FinishReason.ABORT, "CANCELLED")]
)
def test_what_the_engine_gives_up(
    engine: AsyncLLM, requests: Callable[[], Spans], reason: FinishReason, status: str
) -> None:
    engine.add("a", trace_headers={"traceparent": PARENT})
    engine.step(0.010, first("a", 0.001), num_running_reqs=1)
    engine.step(0.020, last("a", reason, new_token_ids=()), num_running_reqs=0)
    span = requests()["cmpl-a"]
    assert (span.status, span.fields["finish_reason"]) == (status, str(reason))
    assert (span.duration_ns, span.fields["output_tokens"]) == (near(20), 1)
    assert (span.fields["last_step"], span.parent_span_id) == (2, "cd" * 8)


def test_a_client_that_leaves(engine: AsyncLLM, requests: Callable[[], Spans]) -> None:
    for name in ("a", "b"):
        engine.add(name, prompt_len=33)
    engine.step(0.010, first("a", 0.001), num_running_reqs=1, num_waiting_reqs=1)
    engine.step(0.020, Output("a"), num_running_reqs=1, num_waiting_reqs=1)
    stand_in.CLOCK.engine_s = 0.025
    for name in ("a", "b", "a"):
        engine.output_processor.abort_requests([name], internal=True)
    left, waiting = requests()["cmpl-a"], requests()["cmpl-b"]
    assert (left.status, left.fields["finish_reason"]) == ("CANCELLED", "abort")
    assert (left.duration_ns, waiting.duration_ns) == (near(25), near(25))
    assert (left.fields["output_tokens"], left.fields["last_step"]) == (2, 2)
    assert waiting.fields == {
        "request_id": "cmpl-b",
        "framework": "vllm",
        "finish_reason": "abort",
        "input_tokens": 33,
        "output_tokens": 0,
    }
    assert waiting.model == "llama"


def test_an_engine_that_dies(engine: AsyncLLM, requests: Callable[[], Spans]) -> None:
    engine.add("a")
    engine.step(0.010, first("a", 0.001), num_running_reqs=1)
    engine.output_processor.propagate_error(RuntimeError("of a prompt"))
    engine.output_processor.abort_requests(["a"], internal=True)
    span = requests()["cmpl-a"]
    assert (span.status, span.status_message) == ("ERROR", "RuntimeError")
    assert span.fields["finish_reason"] == "error"


def test_the_current_span_is_the_parent(
    engine: AsyncLLM, requests: Callable[[], Spans], recorded_spans: SpanRecorder
) -> None:
    with recorded_spans.tracer.start_span(operation_name="POST /v1/completions") as server:
        engine.add("a", trace_headers={"traceparent": PARENT})
    engine.add("b", trace_headers={})
    engine.add("unsampled", trace_headers={"traceparent": PARENT[:-1] + "0"})
    names = ("a", "b", "unsampled")
    engine.step(0.010, *(first(name, 0.001) for name in names), num_running_reqs=3)
    engine.step(0.020, *(last(name) for name in names), num_running_reqs=0)
    assert requests()["cmpl-a"].parent_span_id == server.span_id
    assert requests()["cmpl-b"].parent_span_id is None
    assert "cmpl-unsampled" not in requests()


def test_samples_of_one_request_and_an_adapter(
    engine: AsyncLLM, recorded_spans: SpanRecorder
) -> None:
    for name in ("0_a", "1_a"):
        engine.add(name, external_req_id="cmpl-a", lora_name="french")
    engine.step(
        0.010, *(last(name, scheduled_s=0.001) for name in ("0_a", "1_a")), num_running_reqs=0
    )
    found = [span for span in recorded_spans.spans if span.operation == "request"]
    assert [span.fields["request_id"] for span in found] == ["cmpl-a"] * 2
    assert [span.tags for span in found] == [{"vllm.lora_name": "french"}] * 2


def test_tokens_that_come_together_and_none_at_all(
    engine: AsyncLLM, requests: Callable[[], Spans]
) -> None:
    for name in ("drafted", "embedding"):
        engine.add(name)
    engine.step(0.010, first("drafted", 0.001), num_running_reqs=2)
    embedding = last("embedding", FinishReason.STOP, new_token_ids=(), scheduled_s=0.011)
    engine.step(0.020, last("drafted", new_token_ids=(1, 2, 3)), embedding, num_running_reqs=0)
    fields = requests()["cmpl-drafted"].fields
    assert (fields["output_tokens"], fields["step_count"]) == (4, 2)
    assert fields["inter_token_latency_ms"] == pytest.approx(10 / 3)
    assert fields["max_inter_token_latency_ms"] == pytest.approx(10)
    fields = requests()["cmpl-embedding"].fields
    assert fields["output_tokens"] == 0
    assert "time_to_first_token_ms" not in fields


def test_an_engine_on_another_machine(engine: AsyncLLM, requests: Callable[[], Spans]) -> None:
    engine.add("a", arrival_time=ARRIVAL_S + 1_000)
    for engine_s, name in ((1_000.010, first), (1_000.020, last)):
        output = name("a", scheduled_s=1_000.001)
        engine.step(engine_s, output, num_running_reqs=int(name is first))
        stand_in.CLOCK.engine_s = 3.0
    assert requests()["cmpl-a"].fields["scheduled_after_ms"] == pytest.approx(1, abs=0.001)


def test_steps_are_recorded_together(
    engine: AsyncLLM, steps: Callable[[], list[RecordedSpan]]
) -> None:
    engine.add("a")
    engine.step(0.001, first("a", 0.0005), num_running_reqs=1)
    for number in range(2, vllm_steps.STEPS_TOGETHER):
        engine.step(number / 1_000, Output("a"), num_running_reqs=1)
    assert steps() == []
    engine.step(0.040, Output("a"), num_running_reqs=1)
    assert len(steps()) == vllm_steps.STEPS_TOGETHER
    engine.step(0.050, Output("a"), num_running_reqs=1)
    assert len(steps()) == vllm_steps.STEPS_TOGETHER
    engine.step(0.050 + vllm_steps.TOGETHER_S, Output("a"), num_running_reqs=1)
    assert len(steps()) == vllm_steps.STEPS_TOGETHER + 2
    engine.step(0.700, last("a"), num_running_reqs=0)  # it rests
    assert [step.fields["step_index"] for step in steps()] == list(
        range(1, vllm_steps.STEPS_TOGETHER + 4)
    )


def test_steps_are_not_kept_for_ever(
    engine: AsyncLLM, steps: Callable[[], list[RecordedSpan]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_steps, "MAX_KEPT_STEPS", 3)
    monkeypatch.setattr(vllm_steps, "TOGETHER_S", 0)
    engine.add("a")
    engine.step(0.010, first("a", 0.001), num_running_reqs=2)  # one that is not ours never ends
    for number in range(5):
        engine.step(0.020 + number / 100, Output("a"), num_running_reqs=2)
    assert [step.fields["step_index"] for step in steps()] == [1, 2, 3]
    engine.logger._steps.flush()  # as at the exit
    assert [step.fields["step_index"] for step in steps()] == [1, 2, 3, 4, 5, 6]


def test_a_request_that_gets_more_input_is_one(
    engine: AsyncLLM, requests: Callable[[], Spans]
) -> None:
    engine.add("a")
    engine.add("a", external_req_id="other")
    engine.step(0.010, last("a", scheduled_s=0.001), num_running_reqs=0)
    assert list(requests()) == ["cmpl-a"]


def test_what_it_cannot_read_stays_away_from_vllm(
    engine: AsyncLLM, requests: Callable[[], Spans], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "infertrace")
    engine.add("a")
    for _ in range(2):
        engine.logger.record(object(), object())
    assert caplog.messages == ["vllm: cannot be read completely (AttributeError)"]
    engine.step(0.010, last("a", scheduled_s=0.001), num_running_reqs=0)
    assert list(requests()) == ["cmpl-a"]


def test_it_can_be_switched_off_and_on(
    engine: AsyncLLM, requests: Callable[[], Spans], recorded_spans: SpanRecorder
) -> None:
    infertrace.uninstrument("vllm")
    engine.add("a")
    engine.step(0.010, last("a", scheduled_s=0.001), num_running_reqs=0)
    vllm.instrument(recorded_spans.tracer)
    engine.add("b")
    engine.step(0.020, last("b", scheduled_s=0.011), num_running_reqs=0)
    assert list(requests()) == ["cmpl-b"]


@pytest.mark.parametrize(
    ("text", "is_on", "message"),
    [
        ("", True, None),
        ("TRUE", True, None),
        ("false", False, None),
        ("0", True, "INFERTRACE_VLLM: expected true or false, got '0'"),
    ],
)
def test_the_variable(
    load: Callable[[], Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    text: str,
    is_on: bool,
    message: str | None,
) -> None:
    caplog.set_level(logging.WARNING, "infertrace")
    monkeypatch.setenv("INFERTRACE_VLLM", text)
    monkeypatch.setenv("INFERTRACE_ENABLED", "false")
    logger_class = load()
    assert issubclass(logger_class, stand_in.StatLoggerBase)
    assert ("vllm" in switch.activated()) == is_on
    assert hasattr(OutputProcessor.process_outputs, "__wrapped__") == is_on
    engine = AsyncLLM(stand_in.configuration(), logger_class)
    engine.add("a")
    engine.step(0.010, last("a", scheduled_s=0.001), num_running_reqs=0)
    assert caplog.messages == ([] if message is None else [message])


def test_under_infertrace_run_it_is_one_of_those_included(tmp_path: Any) -> None:
    def variable(names: str | None) -> str | None:
        return program.environment({}, names, tmp_path).get("INFERTRACE_VLLM")

    assert [variable(names) for names in (None, "all", "vllm,openai", "openai")] == [
        None,
        None,
        None,
        "false",
    ]


def test_a_version_that_is_too_new_is_traced_and_named(
    load: Callable[[], Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "infertrace")
    monkeypatch.setattr(vllm._SWITCH, "_has_warned", False)
    monkeypatch.setattr(switch, "version", lambda name: "99.0")
    monkeypatch.setenv("INFERTRACE_ENABLED", "false")
    load()
    load()
    (message,) = caplog.messages
    assert "vllm 0.30 to 0.32.0; here it is 99.0, which is traced all the same" in message


def test_a_version_without_the_place_to_look_in_is_left_alone(
    load: Callable[[], Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "infertrace")
    monkeypatch.setattr(vllm._SWITCH, "_has_warned", False)
    monkeypatch.delattr(OutputProcessor, "propagate_error")
    monkeypatch.setenv("INFERTRACE_ENABLED", "false")
    engine = AsyncLLM(stand_in.configuration(), load())
    engine.add("a")
    engine.step(0.010, last("a", scheduled_s=0.001), num_running_reqs=0)
    assert not hasattr(OutputProcessor.process_outputs, "__wrapped__")
    assert "cannot be traced (AttributeError" in caplog.text
