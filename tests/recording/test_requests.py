"""Requests and their tokens: when work on them began, and when each token came."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from backend_recording import Recording
from infertrace import Tracer
from infertrace.wire import token_intervals

WAIT_S = 0.002
NS_PER_MS = 1e6


def intervals_of(sent: Any) -> dict[int, int]:
    given = sent.inference.token_intervals
    return {given.offset + place: count for place, count in enumerate(given.counts) if count}


def test_a_request_has_its_phases_and_its_tokens(recording: Recording) -> None:
    span = recording.start_span("m", input_tokens=8)
    time.sleep(WAIT_S)
    span.scheduled()
    time.sleep(WAIT_S)
    span.token()
    for _ in range(3):
        time.sleep(WAIT_S)
        span.token()
    assert span.token_count == 4
    span.end()
    assert span.token_count == 4
    sent = recording.take_one()
    inference = sent.inference
    assert inference.output_tokens == 4
    duration_ms = sent.duration_nanos / NS_PER_MS
    assert WAIT_S * 1e3 <= inference.scheduled_after_ms <= inference.time_to_first_token_ms
    assert inference.time_to_first_token_ms >= 2e3 * WAIT_S
    assert inference.inter_token_latency_ms >= WAIT_S * 1e3
    assert inference.max_inter_token_latency_ms >= inference.inter_token_latency_ms
    rest_ms = 3 * inference.inter_token_latency_ms
    assert inference.time_to_first_token_ms + rest_ms <= duration_ms * 1.001
    counts = intervals_of(sent)
    assert sum(counts.values()) == 3
    longest_ns = round(inference.max_inter_token_latency_ms * NS_PER_MS)
    assert abs(max(counts) - token_intervals.bucket_of(longest_ns)) <= 1


def test_a_span_without_tokens_has_none_of_it(recording: Recording) -> None:
    recording.start_span("m").end()
    inference = recording.take_one().inference
    assert [field.name for field, _ in inference.ListFields()] == ["model_name"]


def test_one_token_has_no_interval(recording: Recording) -> None:
    span = recording.start_span("m")
    span.token()
    span.end()
    inference = recording.take_one().inference
    assert inference.output_tokens == 1
    assert inference.HasField("time_to_first_token_ms")
    for field in ("inter_token_latency_ms", "max_inter_token_latency_ms", "token_intervals"):
        assert not inference.HasField(field)


def test_tokens_that_come_together_are_one_interval(recording: Recording) -> None:
    span = recording.start_span("m")
    span.token(count=2)
    time.sleep(WAIT_S)
    span.token(3)
    span.token(0)
    span.end()
    sent = recording.take_one()
    assert sent.inference.output_tokens == 5
    assert sum(intervals_of(sent).values()) == 1
    assert sent.inference.inter_token_latency_ms == pytest.approx(
        sent.inference.max_inter_token_latency_ms / 4
    )


def test_what_its_user_says_counts(recording: Recording) -> None:
    given = {
        "output_tokens": 100,
        "time_to_first_token_ms": 0.5,
        "inter_token_latency_ms": 0.25,
        "max_inter_token_latency_ms": 0.75,
        "token_intervals": [160, 7],
        "scheduled_after_ms": 0.125,
    }
    span = recording.start_span("m", **given)
    span.scheduled()
    for _ in range(3):
        span.token()
        time.sleep(WAIT_S)
    span.end()
    inference = recording.take_one().inference
    for field, value in given.items():
        kept = getattr(inference, field)
        if field == "token_intervals":
            kept = [kept.offset, *kept.counts]
        assert kept == value


def test_only_the_first_scheduled_counts(recording: Recording) -> None:
    span = recording.start_span("m")
    span.scheduled()
    time.sleep(20 * WAIT_S)
    span.scheduled()
    span.end()
    assert recording.take_one().inference.scheduled_after_ms < 20e3 * WAIT_S


@pytest.mark.parametrize("wrong", [-1, 2**31, "x", 1.5, None, True, object()])
def test_a_wrong_number_of_tokens_is_counted(recording: Recording, wrong: Any) -> None:
    span = recording.start_span("m")
    span.token(wrong)
    span.token()
    span.end()
    sent = recording.take_one()
    assert sent.invalid_field_count == 1
    assert sent.inference.output_tokens == (2**31 - 1 if wrong == 2**31 else 1)


def test_a_wrong_call_is_an_error(recording: Recording) -> None:
    with recording.start_span("m") as span:
        for call in (lambda: span.token(1, 2), lambda: span.token(cuont=1)):
            with pytest.raises(TypeError, match=r"token\(\)"):
                call()


def test_what_comes_after_the_end_is_counted(recording: Recording) -> None:
    span = recording.start_span("m")
    span.end()
    span.token()
    span.scheduled()
    assert list(span.stream([1])) == [1]
    assert recording.take_one().inference.output_tokens == 0
    assert recording.recorder.counts()[4] == 3


def test_a_span_that_is_not_recorded(recording: Recording) -> None:
    recording.recorder.set_sample_rate(0)
    span = recording.start_span("m")
    span.scheduled()
    span.token()
    span.token(count=7)
    assert list(span.stream([1, 2])) == [1, 2]
    assert span.token_count == 0
    span.end()
    assert recording.take_all() == []
    assert recording.recorder.counts()[4] == 0


def test_the_histogram_of_a_long_stall_stays_small(recording: Recording) -> None:
    """Whoever has one interval far above the rest keeps the rest as it is."""
    recorder = recording.recorder
    span = recording.start_span("m")
    now_ns = time.time_ns()
    for interval_ns in [0, *[20_000_000 + 100_000 * at for at in range(30)], 60_000_000_000]:
        now_ns += interval_ns
        recorder.record_step("m", start_ns=now_ns, duration_ns=0, decode=[span])
    span.end()
    sent = recording.take_all()[-1]
    encoded = sent.inference.token_intervals.SerializeToString()
    assert len(encoded) <= 60
    assert sent.inference.max_inter_token_latency_ms == 60_000
    counts = intervals_of(sent)
    assert sum(counts.values()) == 31
    usual = range(token_intervals.bucket_of(20_000_000), token_intervals.bucket_of(22_900_000) + 1)
    assert sum(counts.get(bucket, 0) for bucket in usual) == 30


class TestStream:
    def test_each_chunk_is_a_token(self, recording: Recording) -> None:
        span = recording.start_span("m")
        chunks = span.stream([b"a", b"b", b"c"])
        assert iter(chunks) is chunks
        assert list(chunks) == [b"a", b"b", b"c"]
        assert span.is_recording
        span.end()
        assert recording.take_one().inference.output_tokens == 3

    def test_no_iterable(self, recording: Recording) -> None:
        with recording.start_span("m") as span, pytest.raises(TypeError, match="not iterable"):
            span.stream(7)

    def test_a_generator_stays_one(self, recording: Recording) -> None:
        seen: list[Any] = []

        def chunks() -> Generator[int, str, None]:
            for number in itertools.count():
                try:
                    seen.append((yield number))
                except KeyError as error:
                    seen.append(error)
                except GeneratorExit:
                    seen.append("closed")
                    raise

        span = recording.start_span("m")
        stream = span.stream(chunks())
        assert next(stream) == 0
        assert stream.send("x") == 1
        thrown = KeyError()
        assert stream.throw(thrown) == 2
        assert stream.gi_frame is not None
        stream.close()
        assert seen == ["x", thrown, "closed"]
        assert span.token_count == 3

    def test_what_a_generator_returns(self, recording: Recording) -> None:
        def chunks() -> Generator[int, None, str]:
            yield 1
            return "usage"

        def consumer() -> Generator[int, None, None]:
            returned.append((yield from span.stream(chunks())))

        returned: list[str] = []
        with recording.start_span("m") as span:
            assert list(consumer()) == [1]
        assert returned == ["usage"]

    def test_an_exception_of_the_chunks(self, recording: Recording) -> None:
        def chunks() -> Iterator[int]:
            yield 1
            raise ValueError("theirs")

        span = recording.start_span("m")
        stream = span.stream(chunks())
        next(stream)
        with pytest.raises(ValueError, match="theirs"):
            next(stream)
        assert span.token_count == 1
        span.end()
        assert recording.take_one().status == "OK"

    def test_asynchronous_chunks(self, recording: Recording) -> None:
        async def chunks() -> AsyncIterator[int]:
            for number in range(3):
                await asyncio.sleep(0)
                yield number

        async def main() -> list[int]:
            return [chunk async for chunk in span.stream(chunks())]

        with recording.start_span("m") as span:
            assert asyncio.run(main()) == [0, 1, 2]
        assert recording.take_one().inference.output_tokens == 3

    def test_an_asynchronous_generator_stays_one(self, recording: Recording) -> None:
        seen: list[Any] = []

        async def chunks() -> Any:
            try:
                while True:
                    try:
                        seen.append((yield len(seen)))
                    except KeyError:
                        seen.append("thrown")
            finally:
                seen.append("closed")

        async def main() -> None:
            stream = span.stream(chunks())
            assert await stream.asend(None) == 0
            assert await stream.asend("x") == 1
            assert await stream.athrow(KeyError()) == 2
            await stream.aclose()
            with pytest.raises(StopAsyncIteration):
                await stream.__anext__()

        with recording.start_span("m") as span:
            asyncio.run(main())
        assert seen == ["x", "thrown", "closed"]
        assert recording.take_one().inference.output_tokens == 3

    def test_of_a_span_that_is_not_recorded(self, recording: Recording) -> None:
        async def chunks() -> AsyncIterator[int]:
            yield 1

        async def main() -> list[int]:
            return [chunk async for chunk in span.stream(chunks())]

        recording.recorder.enabled = False
        span = recording.start_span("m")
        assert next(span.stream([1])) == 1
        assert asyncio.run(main()) == [1]


class TestDecorator:
    @pytest.fixture
    def decorated(self, recording: Recording) -> Callable[[Any], Any]:
        stand_in: Any = SimpleNamespace(start_span=recording.start_span)
        return lambda function: Tracer.trace_inference(stand_in, "m")(function)

    def test_a_generator_gives_tokens(self, recording: Recording, decorated: Any) -> None:
        @decorated
        def chunks() -> Iterator[int]:
            for number in range(4):
                time.sleep(WAIT_S)
                yield number

        assert list(chunks()) == [0, 1, 2, 3]
        sent = recording.take_one()
        assert sent.inference.output_tokens == 4
        assert sent.inference.time_to_first_token_ms >= WAIT_S * 1e3
        assert sum(intervals_of(sent).values()) == 3
        assert sent.inference.HasField("max_inter_token_latency_ms")

    def test_an_asynchronous_one(self, recording: Recording, decorated: Any) -> None:
        @decorated
        async def chunks() -> AsyncIterator[int]:
            for number in range(4):
                await asyncio.sleep(0)
                yield number

        async def main() -> list[int]:
            return [chunk async for chunk in chunks()]

        assert asyncio.run(main()) == [0, 1, 2, 3]
        assert recording.take_one().inference.output_tokens == 4

    def test_one_that_counts_its_tokens_itself(
        self, backend: Any, recording: Recording, decorated: Any
    ) -> None:
        @decorated
        def chunks() -> Iterator[int]:
            for number in range(4):
                backend.current().token(10)
                yield number

        assert list(chunks()) == [0, 1, 2, 3]
        assert recording.take_one().inference.output_tokens == 40
