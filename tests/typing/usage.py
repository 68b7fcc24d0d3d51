"""Code as a user writes it: correct lines, with their types, and wrong ones.

test_typing.py checks this file and never runs it. A `type: ignore` marks a line that must be an
error: both checkers also report an unneeded one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from typing import Any, Literal

from typing_extensions import assert_type

import infertrace
from infertrace import Span, Tracer, configure, current_span, get_gpu_metrics, trace_inference

infertrace.instrument("openai", tracer=Tracer())
infertrace.uninstrument()
infertrace.instrument(["openai"])  # type: ignore[arg-type]

tracer = Tracer(endpoint="localhost:4317").configure(service_name="demo", sample_rate=0.5)
assert_type(tracer, Tracer)
assert_type(configure(endpoint="localhost:4317"), Tracer)
assert_type(infertrace.__version__, str)
assert_type(infertrace.BACKEND, str)
assert_type(current_span(), Span)
assert_type(get_gpu_metrics().get("gpu_memory_used_bytes"), int | None)
Tracer(4317)  # type: ignore[arg-type]
Tracer(sample_rate="all")  # type: ignore[arg-type]
Tracer(endpont="localhost:4317")  # type: ignore[call-arg]


def spans() -> None:
    with tracer.start_span("gpt-4", "decode", batch_size=8, tags={"tier": "free"}) as span:
        assert_type(span, Span)
        span.set_batch_size(8)
        span.set_tokens(input=24, output=100)
        span.set_model_version("2026-01")
        span.set_framework("vllm")
        span.set_pipeline_stage("inference")
        span.set_sequence_length(512.5)
        span.set_cache_hit_rate(0.5)
        span.set_batch_fill_ratio(0.5)
        span.set_queue(depth=3, wait_time_ms=1.5)
        span.set_streaming(time_to_first_token_ms=31.5)
        span.set_tag("tenant", "a")
        span.set_attribute("temperature", 0.7)
        span.add_event("swapped", {"blocks": 3})
        span.add_link("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        span.set_status("ERROR", "out of memory")
        span.set_operation_name("prefill")
        with span.activate() as active:
            assert_type(active, Span)
        span.record_exception(ValueError())
        assert_type(span.trace_id, str)
        assert_type(span.parent_span_id, str | None)
        assert_type(span.traceparent, str)
        assert_type(span.is_recording, bool)
        span.set_batch_size("8")  # type: ignore[arg-type]
        span.set_tag("tenant", 1)  # type: ignore[arg-type]
        span.set_attribute("tensor", object())  # type: ignore[arg-type]
        span.set_status()  # type: ignore[call-arg]
        span.set_batchsize(8)  # type: ignore[attr-defined]
    child = tracer.start_span("gpt-4", parent=span)
    child.end()
    tracer.start_span("gpt-4", batchsize=8)  # type: ignore[call-arg]
    tracer.start_span("gpt-4", batch_size="8")  # type: ignore[arg-type]
    tracer.start_span("gpt-4", parent=1)  # type: ignore[arg-type]


def swallowing() -> int:
    # A span does not swallow exceptions, so the end of this function is not reachable.
    with tracer.start_span("gpt-4"):
        return 1


async def asynchronous() -> None:
    async with tracer.start_span("gpt-4") as span:
        assert_type(span, Span)


def requests_and_steps(chunks: Generator[str, int, bool], words: list[bytes]) -> None:
    request = tracer.start_span("gpt-4", request_id="a")
    with tracer.start_step("gpt-4", prefill=[(request, 8)], decode=[request], capacity=8) as step:
        assert_type(step, Span)
    tracer.start_step("gpt-4", prefill=[(request, 8, True)], decode=[(request, 2)])
    assert_type(tracer.record_step("gpt-4", start_ns=1, duration_ns=2, decode=[request]), Span)
    assert_type(request.stream(chunks), Generator[str, int, bool])
    assert_type(request.stream(words), Iterator[bytes])
    assert_type(request.token_count, int)
    tracer.start_step("gpt-4", decode=7)  # type: ignore[arg-type]
    tracer.start_step("gpt-4", prefill=[request])  # type: ignore[list-item]
    request.token("x")  # type: ignore[arg-type]


def finished_spans() -> None:
    assert_type(tracer.record("gpt-4", start_ns=1, duration_ns=2, output_tokens=3), Span)
    assert_type(tracer.record_batch("gpt-4", start_ns=[1], duration_ns=[2]), int)
    tracer.record("gpt-4", start_ns=1)  # type: ignore[call-arg]
    tracer.record("gpt-4", start_ns=1, duration_ns=2, batchsize=3)  # type: ignore[call-arg]
    tracer.record_batch(start_ns=[1], duration_ns=[2], batchsize=[3])  # type: ignore[call-arg]
    trace_inference(model="gpt-4", batch_size=8, parent=None, tags={"a": "b"})
    trace_inference(model="gpt-4", batchsize=8)  # type: ignore[call-overload]


def ledger() -> None:
    stats = tracer.stats()
    assert_type(stats["produced"], int)
    assert_type(stats["delivered"], int)
    assert_type(stats["pending"], int)
    assert_type(stats["invalid_fields"], int)
    assert_type(
        stats["dropped"],
        dict[Literal["buffer_full", "oversize", "invalid", "rejected", "shutdown"], int],
    )
    assert_type(tracer.flush(timeout=1.5), bool)
    assert_type(tracer.shutdown(timeout=1.5), bool)
    stats["lost"]  # type: ignore[typeddict-item]


@trace_inference
def bare(text: str, *, beams: int = 1) -> list[float]:
    return [float(text)] * beams


@trace_inference(model="gpt-4", framework="vllm")
def function(text: str, *, beams: int = 1) -> list[float]:
    return [float(text)] * beams


@tracer.trace_inference(model="gpt-4", operation_name="decode")
async def coroutine(text: str, *, beams: int = 1) -> list[float]:
    return [float(text)] * beams


@trace_inference(model="gpt-4")
def generator(text: str, *, limit: int = 1) -> Generator[str, int, bool]:
    yield text * limit
    return True


@trace_inference(model="gpt-4")
def iterator(text: str) -> Iterator[str]:
    yield text


@tracer.trace_inference(model="gpt-4")
async def async_generator(text: str, *, limit: int = 1) -> AsyncGenerator[str, int]:
    yield text * limit


@tracer.trace_inference
async def async_iterator(text: str) -> AsyncIterator[str]:
    yield text


class Model:
    @trace_inference(model="gpt-4")
    def method(self, text: str) -> int:
        return len(text)

    @staticmethod
    @trace_inference
    def static(text: str) -> int:
        return len(text)

    @classmethod
    @trace_inference(model="gpt-4")
    def of_class(cls, text: str) -> Model:
        return cls()


async def decorated() -> None:
    assert_type(bare("1", beams=2), list[float])
    assert_type(function("1", beams=2), list[float])
    assert_type(await coroutine("1", beams=2), list[float])
    assert_type(generator("1", limit=2), Generator[str, int, bool])
    assert_type(iterator("1"), Iterator[str])
    assert_type(async_generator("1", limit=2), AsyncGenerator[str, int])
    assert_type(async_iterator("1"), AsyncIterator[str])
    async for token in async_iterator("1"):
        assert_type(token, str)
    assert_type(Model().method("1"), int)
    assert_type(Model.static("1"), int)
    assert_type(Model.of_class("1"), Model)
    function(1)  # type: ignore[arg-type]
    function("1", beams="2")  # type: ignore[arg-type]
    await coroutine("1", beam=2)  # type: ignore[call-arg]
    generator()  # type: ignore[call-arg]
    async_generator("1", limit="2")  # type: ignore[arg-type]
    Model().method(1)  # type: ignore[arg-type]
    trace_inference(model=1)  # type: ignore[call-overload]


class OwnSpan:
    """Not a span: it lacks nearly every method of one."""

    def end(self) -> None: ...


def takes_a_span(span: Span) -> Any:
    takes_a_span(OwnSpan())  # type: ignore[arg-type]
