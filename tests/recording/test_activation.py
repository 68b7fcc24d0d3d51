"""A span made current without a block of its own, and one that gets its name late."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from infertrace import current_span


def test_it_is_current_inside_and_goes_on_after(recording: Any) -> None:
    span = recording.start_span("m", "request")
    for _ in range(2):
        with span.activate() as entered:
            assert entered is span is current_span()
            recording.start_span("m", "part").end()
        assert not current_span().is_recording
        assert span.is_recording
    recording.start_span("m", "other").end()
    span.end()
    found = {span.operation_name: span.parent_span_id.hex() for span in recording.take_all()}
    assert found == {"part": span.span_id, "other": "", "request": ""}


def test_what_was_current_is_so_again(recording: Any) -> None:
    request = recording.start_span("m", "request")
    with recording.start_span("m", "callback") as callback:
        with request.activate():
            with recording.start_span("m", "part") as part:
                assert part.parent_span_id == request.span_id
            assert current_span() is request
        assert current_span() is callback
    request.end()


def test_no_ended_span_becomes_current(recording: Any) -> None:
    request = recording.start_span("m", "request")
    with recording.start_span("m", "outer") as outer:
        inner = recording.start_span("m", "inner").__enter__()
        with request.activate():
            inner.end()
        assert current_span() is outer
    with recording.start_span("m", "only") as only, request.activate():
        only.end()
    assert not current_span().is_recording
    request.end()


def test_out_of_order(recording: Any) -> None:
    a, b = recording.start_span("m", "a"), recording.start_span("m", "b")
    first, second = a.activate(), b.activate()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert current_span() is b
    second.__exit__(None, None, None)
    assert current_span() is a
    with a.activate():
        a.end()
    b.end()


def test_an_error_passes_and_does_not_fail_the_span(recording: Any) -> None:
    span = recording.start_span("m", "request")
    try:
        with span.activate():
            raise ValueError("of the program")
    except ValueError:
        pass
    span.end()
    assert recording.take_one().status == "OK"


def test_several_threads_and_tasks_at_once(recording: Any) -> None:
    request = recording.start_span("m", "request")
    barrier = threading.Barrier(4)

    def work() -> None:
        with request.activate():
            barrier.wait()
            recording.start_span("m", "part").end()
            barrier.wait()
        assert not current_span().is_recording

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    async def task() -> None:
        with request.activate():
            await asyncio.sleep(0)
            recording.start_span("m", "part").end()

    async def tasks() -> None:
        await asyncio.gather(*(task() for _ in range(4)))
        assert not current_span().is_recording

    asyncio.run(tasks())
    request.end()
    *parts, last = recording.take_all()
    assert {part.parent_span_id for part in parts} == {last.span_id}
    assert len(parts) == 8


def test_a_trace_that_is_not_sampled_has_no_part_that_is(recording: Any) -> None:
    recording.recorder.set_sample_rate(0)
    request = recording.start_span("m", "request")
    recording.recorder.set_sample_rate(1)
    with request.activate():
        recording.start_span("m", "part").end()
    recording.start_span("m", "other").end()
    assert recording.take_one().operation_name == "other"


def test_what_is_switched_off_changes_nothing(recording: Any) -> None:
    recording.recorder.enabled = False
    off = recording.start_span("m", "off")
    recording.recorder.enabled = True
    with recording.start_span("m", "outer") as outer, off.activate():
        assert current_span() is outer


def test_a_name_that_comes_late(recording: Any) -> None:
    with recording.start_span("m", "GET") as span:
        span.set_operation_name("GET /items/{id}")
    assert recording.take_one().operation_name == "GET /items/{id}"


def test_a_name_that_is_none(recording: Any) -> None:
    with recording.start_span("m", "GET") as span:
        for name in (None, "", 8):
            span.set_operation_name(name)
        span.set_operation_name("x" * 40_000)
    span.set_operation_name("late")
    encoded = recording.take_one()
    assert encoded.operation_name == "x" * 32 * 1024
    assert encoded.invalid_field_count == 4
    recording.recorder.enabled = False
    recording.start_span("m").set_operation_name("off")
