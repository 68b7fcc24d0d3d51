"""What the setters of a span put on the wire."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from typing import Any

import numpy as np
import pytest

import infertrace
from infertrace.recording.failure import MAX_CALLS


def test_a_span_carries_what_was_set(recording: Any) -> None:
    before = time.time_ns()
    with recording.start_span("gpt-4", "generate") as span:
        span.set_model_version("0613")
        span.set_batch_size(8)
        span.set_tokens(input=24, output=100)
        span.set_framework("pytorch")
        span.set_sequence_length(124.5)
        span.set_cache_hit_rate(0.25)
        span.set_pipeline_stage("inference")
        span.set_queue(depth=3, wait_time_ms=1.5)
        span.set_batch_fill_ratio(0.5)
        span.set_streaming(time_to_first_token_ms=12.5, inter_token_latency_ms=3.25)
        span.set_tag("tenant", "acme")
        span.set_attribute("text", "t")
        span.set_attribute("truth", True)
        span.set_attribute("count", -(2**63))
        span.set_attribute("ratio", 0.1)
        span.add_event("first token", {"index": 0})
        span.set_status("OK", "fine")
    after = time.time_ns()

    sent = recording.take_one()
    inference = sent.inference
    assert sent.service_name == "tests"
    assert sent.operation_name == "generate"
    assert sent.trace_id.hex() == span.trace_id
    assert sent.span_id.hex() == span.span_id
    assert sent.parent_span_id == b""
    assert sent.status == "OK"
    assert sent.status_message == "fine"
    # The wall clock may be slewed against the monotonic one meanwhile.
    assert abs(sent.start_time_unix_nano - before) < 1e9 + (after - before)
    assert 0 < sent.duration_nanos <= after - before + 1_000_000
    assert dict(sent.tags) == {"tenant": "acme"}
    assert inference.model_name == "gpt-4"
    assert inference.model_version == "0613"
    assert inference.batch_size == 8
    assert (inference.input_tokens, inference.output_tokens) == (24, 100)
    assert inference.framework == "pytorch"
    assert inference.sequence_length == 124.5
    assert inference.cache_hit_rate == 0.25
    assert inference.pipeline_stage == "inference"
    assert inference.queue_depth == 3
    assert inference.queue_wait_time_ms == 1.5
    assert inference.batch_fill_ratio == 0.5
    assert inference.time_to_first_token_ms == 12.5
    assert inference.inter_token_latency_ms == 3.25
    values = {key: (v.WhichOneof("value"), v) for key, v in sent.attributes.items()}
    assert values["text"][1].string_value == "t"
    assert values["truth"] == ("bool_value", values["truth"][1])
    assert values["truth"][1].bool_value is True
    assert values["count"][1].int_value == -(2**63)
    assert values["ratio"][1].double_value == 0.1
    (event,) = sent.events
    assert event.name == "first token"
    assert event.attributes["index"].WhichOneof("value") == "int_value"
    assert sent.start_time_unix_nano <= event.time_unix_nano
    assert sent.invalid_field_count == 0


def test_fields_given_at_start_equal_fields_set(recording: Any) -> None:
    fields = {
        "model_version": "v",
        "framework": "onnx",
        "pipeline_stage": "postprocessing",
        "batch_size": 1,
        "input_tokens": 2,
        "output_tokens": 3,
        "sequence_length": 4.0,
        "cache_hit_rate": 0.5,
        "queue_depth": 6,
        "queue_wait_time_ms": 7.0,
        "batch_fill_ratio": 0.75,
    }
    far = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
    recording.start_span("m", tags={"a": "b"}, attributes={"c": 1.5}, links=[far], **fields).end()
    sent = recording.take_one()
    for name, value in fields.items():
        assert getattr(sent.inference, name) == value, name
    assert dict(sent.tags) == {"a": "b"}
    assert sent.attributes["c"].double_value == 1.5
    assert sent.links[0].span_id.hex() == "2" * 16
    assert sent.invalid_field_count == 0


def test_what_was_not_set_is_absent(recording: Any) -> None:
    recording.start_span().end()
    sent = recording.take_one()
    assert not sent.HasField("inference")
    assert not sent.HasField("resources")
    assert sent.operation_name == "inference"


def test_zero_is_a_value(recording: Any) -> None:
    recording.start_span(batch_size=0, cache_hit_rate=0.0).end()
    inference = recording.take_one().inference
    assert inference.HasField("batch_size")
    assert inference.HasField("cache_hit_rate")
    assert not inference.HasField("queue_depth")


def test_the_last_value_counts(recording: Any) -> None:
    with recording.start_span("m") as span:
        for size in (1, 2, 3):
            span.set_batch_size(size)
            span.set_tag("k", str(size))
    sent = recording.take_one()
    assert sent.inference.batch_size == 3
    assert dict(sent.tags) == {"k": "3"}


def test_ids_are_lower_case_hex(recording: Any) -> None:
    span = recording.start_span("m")
    assert re.fullmatch("[0-9a-f]{32}", span.trace_id)
    assert re.fullmatch("[0-9a-f]{16}", span.span_id)
    assert span.traceparent == f"00-{span.trace_id}-{span.span_id}-01"
    assert span.parent_span_id is None
    assert isinstance(span, infertrace.Span)


def test_end_is_idempotent_and_final(recording: Any) -> None:
    span = recording.start_span("m")
    assert span.is_recording
    span.end()
    span.end()
    assert not span.is_recording
    span.set_batch_size(1)
    span.set_tag("late", "x")
    with span:
        pass
    sent = recording.take_one()
    assert not sent.inference.HasField("batch_size")
    assert recording.recorder.counts()[4] == 2


def test_an_exception_sets_error_and_goes_on(recording: Any) -> None:
    error = ValueError("no such model")
    with pytest.raises(ValueError, match="no such model") as caught, recording.start_span("m"):
        raise error
    assert caught.value is error
    sent = recording.take_one()
    assert sent.status == "ERROR"
    assert sent.status_message == "ValueError: no such model"
    (event,) = sent.events
    assert event.name == "exception"
    assert event.attributes["exception.type"].string_value == "ValueError"
    assert event.attributes["exception.message"].string_value == "no such model"
    assert "test_an_exception_sets_error" in event.attributes["exception.stacktrace"].string_value


def test_an_unprintable_exception_goes_on_unchanged(recording: Any) -> None:
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("in __str__")

    with pytest.raises(Unprintable), recording.start_span("m"):
        raise Unprintable
    assert recording.take_one().status_message == "Unprintable: <unprintable>"


def test_a_deep_stack_is_told_from_its_inside(recording: Any) -> None:
    def fall(depth: int) -> None:
        if depth:
            fall(depth - 1)
        else:
            raise ValueError("at the ground")

    with contextlib.suppress(ValueError), recording.start_span("m"):
        fall(MAX_CALLS + 9)
    stack = recording.take_one().events[0].attributes["exception.stacktrace"].string_value
    # The call of this function, and all but 64 of `fall`.
    assert stack.startswith("  [11 outer calls left out]\n")
    assert "fall(MAX_CALLS + 9)" not in stack
    assert stack.endswith('raise ValueError("at the ground")\n')


@pytest.mark.parametrize("kind", [asyncio.CancelledError, GeneratorExit])
def test_cancellation_is_not_an_error(recording: Any, kind: type[BaseException]) -> None:
    with pytest.raises(kind), recording.start_span("m"):
        raise kind
    sent = recording.take_one()
    assert sent.status == "CANCELLED"
    assert not sent.events


def test_record_exception_leaves_the_status(recording: Any) -> None:
    with recording.start_span("m") as span:
        span.record_exception(KeyError("k"))
    sent = recording.take_one()
    assert sent.status == "OK"
    assert sent.events[0].attributes["exception.type"].string_value == "KeyError"


def test_async_with(recording: Any) -> None:
    async def request() -> None:
        async with recording.start_span("m") as span:
            span.set_batch_size(1)
            await asyncio.sleep(0)
            assert infertrace.current_span() is span

    asyncio.run(request())
    assert recording.take_one().inference.batch_size == 1


def test_links(recording: Any) -> None:
    first = recording.start_span("m")
    second = recording.start_span("m")
    second.add_link(first, {"why": "same batch"})
    second.end()
    (link,) = recording.take_one().links
    assert link.trace_id.hex() == first.trace_id
    assert link.span_id.hex() == first.span_id
    assert link.attributes["why"].string_value == "same batch"


def test_a_parent_elsewhere_is_marked(recording: Any) -> None:
    """So that the collector can tell the spans at which requests enter a process."""
    header = f"00-{'1' * 32}-{'2' * 16}-01"
    with recording.start_span("entry", parent=header) as entry:
        recording.start_span("inside").end()
    recording.start_span("near", parent=entry).end()
    recording.start_span("wrong", parent="00-0-0-00").end()
    flags = {span.inference.model_name: span.flags for span in recording.take_all()}
    assert flags == {"entry": 0x301, "inside": 0, "near": 0, "wrong": 0}


def test_a_kind(recording: Any) -> None:
    header = f"00-{'1' * 32}-{'2' * 16}-01"
    kinds = ["internal", "server", "client", "producer", "consumer"]
    for number, kind in enumerate(kinds, 1):
        recording.start_span("m", kind=kind, parent=header).end()
        span = recording.take_one()
        assert (span.kind, span.flags, span.invalid_field_count) == (number, 0x301, 0)
    recording.start_span("m", kind=None).end()
    recording.recorder.start_step("m", kind="consumer").end()
    recording.recorder.record("m", start_ns=10**18, duration_ns=1, kind="client")
    assert [span.kind for span in recording.take_all()] == [0, 5, 3]


def test_numpys_bool_is_a_bool(recording: Any) -> None:
    with recording.start_span("m") as span:
        span.set_attribute("truth", np.bool_(True))
        span.set_batch_size(np.bool_(True))
        span.set_cache_hit_rate(np.bool_(True))
    sent = recording.take_one()
    assert sent.attributes["truth"].bool_value is True
    assert sent.attributes["truth"].WhichOneof("value") == "bool_value"
    assert not sent.inference.HasField("batch_size")
    assert not sent.inference.HasField("cache_hit_rate")


def test_the_resource_snapshot_and_its_age(recording: Any, backend: Any) -> None:
    from infertrace.recording.encoder import resource_metrics

    block = resource_metrics({"gpu_utilization_percent": 0.0, "gpu_device_id": "GPU-1"})
    recording.recorder.sample = (block, backend.monotonic_ns() - 5_000_000)
    recording.start_span("m").end()
    resources = recording.take_one().resources
    assert resources.HasField("gpu_utilization_percent")
    assert resources.gpu_utilization_percent == 0.0
    assert not resources.HasField("gpu_memory_used_bytes")
    assert resources.gpu_device_id == "GPU-1"
    assert resources.sample_age_ms >= 5.0


def test_durations_survive_a_stepped_wall_clock(recording: Any) -> None:
    span = recording.start_span("m")
    recording.recorder.anchor -= 3600 * 10**9
    span.end()
    assert recording.take_one().duration_nanos > 0


def test_unknown_keywords_are_a_type_error(recording: Any) -> None:
    with pytest.raises(TypeError, match="batchsize"):
        recording.start_span("m", batchsize=1)


def test_a_span_in_an_exit_stack(recording: Any) -> None:
    with contextlib.ExitStack() as stack:
        span = stack.enter_context(recording.start_span("m"))
        assert infertrace.current_span() is span
    assert not infertrace.current_span().is_recording

    def fail() -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(recording.start_span("m"))
            raise KeyError("k")

    with pytest.raises(KeyError):
        fail()
    assert [span.status for span in recording.take_all()] == ["OK", "ERROR"]


def test_entering_and_leaving_by_hand(recording: Any) -> None:
    span: Any = recording.start_span("m")
    assert span.__enter__() is span
    current: Any = infertrace.current_span()
    assert current is span
    assert span.__exit__(None, None, None) is None
    other = recording.start_span("m")
    assert type(other).__enter__(other) is other
    type(other).__exit__(other, None, None, None)
    assert len(recording.take_all()) == 2
    with pytest.raises((TypeError, AttributeError)):
        type(span).__enter__(object())
    with pytest.raises(TypeError):
        span.__enter__(1)
    with pytest.raises(TypeError):
        span.__exit__(None)


def test_a_block_does_not_swallow_exceptions(recording: Any, backend: Any) -> None:
    for span in (recording.start_span("m"), backend.NOOP):
        with pytest.raises(ValueError, match="v"), span:
            raise ValueError("v")
