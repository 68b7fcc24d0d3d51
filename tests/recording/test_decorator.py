"""`trace_inference` on functions, coroutines, generators and async generators."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import inspect
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

import pytest

from infertrace import current_span
from infertrace.decorator import traced


@pytest.fixture
def trace(recording: Any) -> Any:
    """The decorator, on the recorder of the test."""
    return lambda function: traced(function, recording.start_span, "m", "inference", {})


def test_a_function(recording: Any, trace: Any) -> None:
    @trace
    def run(a: int, *, b: int = 2) -> int:
        """Docs."""
        current_span().set_batch_size(a + b)
        return a * b

    assert run(3) == 6
    assert run.__name__ == "run"
    assert run.__doc__ == "Docs."
    assert str(inspect.signature(run)) == "(a: 'int', *, b: 'int' = 2) -> 'int'"
    assert recording.take_one().inference.batch_size == 5


def test_a_failing_function(recording: Any, trace: Any) -> None:
    error = KeyError("k")

    @trace
    def run() -> None:
        raise error

    with pytest.raises(KeyError) as caught:
        run()
    assert caught.value is error
    assert recording.take_one().status == "ERROR"


def test_methods(recording: Any, trace: Any) -> None:
    class Server:
        @trace
        def run(self) -> Server:
            return self

        @trace
        @classmethod
        def of_class(cls) -> type:
            return cls

        @trace
        @staticmethod
        def alone() -> int:
            return 1

    server = Server()
    assert server.run() is server
    assert Server.of_class() is Server
    assert server.alone() == 1
    assert len(recording.take_all()) == 3


def test_a_coroutine(recording: Any, trace: Any) -> None:
    @trace
    async def run(n: int) -> int:
        span = current_span()
        await asyncio.sleep(0)
        assert current_span() is span
        return n

    assert inspect.iscoroutinefunction(run)

    async def serve() -> list[int]:
        return await asyncio.gather(*(run(n) for n in range(10)))

    assert asyncio.run(serve()) == list(range(10))
    assert len(recording.take_all()) == 10


def test_a_cancelled_coroutine(recording: Any, trace: Any) -> None:
    @trace
    async def run() -> None:
        await asyncio.sleep(60)

    async def serve() -> None:
        task = asyncio.create_task(run())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(serve())
    assert recording.take_one().status == "CANCELLED"


def test_a_generator(recording: Any, trace: Any) -> None:
    @trace
    def stream(n: int) -> Generator[int, int, int]:
        span = current_span()
        total = 0
        for number in range(n):
            assert current_span() is span
            recording.start_span("m", f"token {number}").end()
            total += (yield number) or 0
        return total

    assert inspect.isgeneratorfunction(stream)
    generator = stream(3)
    assert next(generator) == 0
    assert not current_span().is_recording
    assert generator.send(10) == 1
    with recording.start_span("m", "outside") as outside:
        assert next(generator) == 2
        assert current_span() is outside
        with pytest.raises(StopIteration) as stop:
            next(generator)
        assert stop.value.value == 10
        assert current_span() is outside
    spans = {span.operation_name: span for span in recording.take_all()}
    streamed = spans.pop("inference")
    assert not spans.pop("outside").parent_span_id
    assert {span.parent_span_id for span in spans.values()} == {streamed.span_id}
    assert streamed.status == "OK"
    assert streamed.inference.time_to_first_token_ms > 0
    assert streamed.inference.time_to_first_token_ms <= streamed.duration_nanos / 1e6


def test_a_generator_that_stops_inside_of_a_block(recording: Any, trace: Any) -> None:
    @trace
    def stream() -> Iterator[Any]:
        with recording.start_span("m", "inner") as inner:
            for _ in range(2):
                assert current_span() is inner
                yield
        recording.start_span("m", "last").end()

    with recording.start_span("m", "outside") as outside:
        for _ in stream():
            assert current_span() is outside
            recording.start_span("m", "consumer").end()
        assert current_span() is outside
    assert not current_span().is_recording
    spans = recording.take_all()
    ids = {span.operation_name: span.span_id for span in spans}
    parents = {(span.operation_name, span.parent_span_id) for span in spans}
    assert parents == {
        ("outside", b""),
        ("inference", ids["outside"]),
        ("inner", ids["inference"]),
        ("last", ids["inference"]),
        ("consumer", ids["outside"]),
    }


def test_an_async_generator_that_stops_inside_of_a_block(recording: Any, trace: Any) -> None:
    @trace
    async def stream() -> AsyncIterator[Any]:
        with recording.start_span("m", "inner") as inner:
            for _ in range(2):
                await asyncio.sleep(0)
                assert current_span() is inner
                yield

    async def serve() -> None:
        async for _ in stream():
            assert not current_span().is_recording
        assert not current_span().is_recording

    asyncio.run(serve())
    spans = {span.operation_name: span for span in recording.take_all()}
    assert spans["inner"].parent_span_id == spans["inference"].span_id


def test_an_empty_generator(recording: Any, trace: Any) -> None:
    @trace
    def stream() -> Iterator[int]:
        return
        yield

    assert list(stream()) == []
    sent = recording.take_one()
    assert sent.status == "OK"
    assert not sent.inference.HasField("time_to_first_token_ms")


def test_a_generator_that_is_closed_early(recording: Any, trace: Any) -> None:
    closed = []

    @trace
    def stream() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append(current_span().is_recording)

    generator = stream()
    next(generator)
    generator.close()
    assert closed == [True]
    assert recording.take_one().status == "CANCELLED"


def test_a_generator_that_is_forgotten(recording: Any, trace: Any) -> None:
    @trace
    def stream() -> Iterator[int]:
        yield 1
        yield 2

    next(stream())
    gc.collect()
    assert recording.take_one().status == "CANCELLED"


def test_a_generator_that_is_never_started_records_nothing(recording: Any, trace: Any) -> None:
    @trace
    def stream() -> Iterator[int]:
        yield 1

    stream().close()
    assert recording.take_all() == []


def test_throwing_into_a_generator(recording: Any, trace: Any) -> None:
    @trace
    def stream() -> Iterator[Any]:
        try:
            yield 1
        except KeyError:
            yield "caught"
        yield 3

    generator = stream()
    next(generator)
    assert generator.throw(KeyError("k")) == "caught"
    with pytest.raises(ValueError, match="v"):
        generator.throw(ValueError("v"))
    assert recording.take_one().status == "ERROR"


def test_steps_of_a_generator_in_different_contexts(recording: Any, trace: Any) -> None:
    """A token held across the yield would be "created in a different Context" here."""

    @trace
    def stream() -> Iterator[str]:
        for _ in range(3):
            yield current_span().span_id

    generator = stream()
    seen = {contextvars.copy_context().run(next, generator) for _ in range(3)}
    contextvars.Context().run(generator.close)
    sent = recording.take_one()
    assert seen == {sent.span_id.hex()}
    assert sent.status == "CANCELLED"


def test_an_async_generator(recording: Any, trace: Any) -> None:
    @trace
    async def stream(n: int) -> AsyncIterator[int]:
        span = current_span()
        for number in range(n):
            await asyncio.sleep(0)
            assert current_span() is span
            yield number

    assert inspect.isasyncgenfunction(stream)

    async def serve() -> list[int]:
        found = []
        with recording.start_span("m", "outside") as outside:
            async for number in stream(3):
                assert current_span() is outside
                found.append(number)
        return found

    assert asyncio.run(serve()) == [0, 1, 2]
    spans = {span.operation_name: span for span in recording.take_all()}
    assert spans["inference"].parent_span_id == spans["outside"].span_id
    assert spans["inference"].inference.HasField("time_to_first_token_ms")


def test_an_async_generator_that_is_closed_early(recording: Any, trace: Any) -> None:
    closed = []

    @trace
    async def stream() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append(current_span().is_recording)

    async def serve() -> None:
        generator = stream()
        async for _ in generator:
            break
        await generator.aclose()

    asyncio.run(serve())
    assert closed == [True]
    assert recording.take_one().status == "CANCELLED"


def test_throwing_into_an_async_generator(recording: Any, trace: Any) -> None:
    @trace
    async def stream() -> AsyncIterator[Any]:
        try:
            yield 1
        except KeyError:
            yield "caught"

    async def serve() -> None:
        generator: Any = stream()
        await generator.asend(None)
        assert await generator.athrow(KeyError("k")) == "caught"
        with pytest.raises(StopAsyncIteration):
            await generator.asend(None)

    asyncio.run(serve())
    assert recording.take_one().status == "OK"


def test_streams_of_a_disabled_tracer_pass_through(recording: Any, trace: Any) -> None:
    recording.recorder.enabled = False

    @trace
    def stream() -> Iterator[int]:
        yield 1
        yield 2

    assert list(stream()) == [1, 2]
    assert recording.recorder.counts()[0] == 0


def test_partials_and_callable_objects(recording: Any, trace: Any) -> None:
    async def run(a: int, b: int) -> int:
        return a + b

    class Model:
        def __call__(self, a: int) -> int:
            return a

        async def call(self) -> None: ...

    assert asyncio.run(trace(functools.partial(run, 1))(2)) == 3
    assert trace(Model())(4) == 4
    assert len(recording.take_all()) == 2


def test_what_is_not_callable_is_refused() -> None:
    with pytest.raises(TypeError, match="expected a function, got 7"):
        traced(7, print, None, "inference", {})


def test_on_a_tracer_and_with_fields(tracer: Any, receiver: Any) -> None:
    @tracer.trace_inference(model="gpt-4", framework="vllm", tags={"a": "b"})
    def run() -> None: ...

    @tracer.trace_inference
    def bare() -> None: ...

    run()
    bare()
    assert tracer.flush()
    first, second = receiver.spans
    assert first.inference.model_name == "gpt-4"
    assert first.inference.framework == "vllm"
    assert dict(first.tags) == {"a": "b"}
    assert not second.HasField("inference")


def test_an_unknown_field_fails_when_decorating(tracer: Any) -> None:
    with pytest.raises(TypeError, match="modle"):
        tracer.trace_inference(modle="gpt-4")


CALLS = [
    ("a, b=2", "1", ""),
    ("a, b=2", "1, 3", ""),
    ("a, /, b, *, c=3, d", "1, 2", "d=4"),
    ("*args", "1, 2, 3", ""),
    ("a, *args, b=1, **kwargs", "1, 2, 3", "b=4, c=5"),
    ("a=1, /, **kwargs", "", "a=2"),
    ("self, cls, function, call, args, kwargs", "1, 2, 3, 4, 5", "kwargs=6"),
    ("_start_span, _model, _operation", "1, 2, 3", ""),
]


@pytest.mark.parametrize(("parameters", "arguments", "keywords"), CALLS)
def test_arguments_arrive_as_given(
    recording: Any, parameters: str, arguments: str, keywords: str
) -> None:
    """Whatever the names of the parameters are, with and without fields."""
    given = ", ".join(part for part in (arguments, keywords) if part)
    for fields in ({}, {"batch_size": 3}):
        names: dict[str, Any] = {}
        exec(f"def run({parameters}):\n    return sorted(locals().items())", names)
        expected = eval(f"run({given})", names)
        names["run"] = traced(names["run"], recording.start_span, "m", "inference", fields)
        assert eval(f"run({given})", names) == expected
        span = recording.take_one()
        assert (span.inference.model_name, span.inference.batch_size) == ("m", len(fields) * 3)


def test_wrong_arguments_are_the_callers_error(trace: Any) -> None:
    @trace
    def run(a: int) -> int:
        return a

    with pytest.raises(TypeError, match=r"run\(\) missing 1 required positional argument: 'a'"):
        run()
