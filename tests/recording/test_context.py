"""The current span and the parents: threads, tasks, blocks that exit out of order."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertrace import current_span
from infertrace.trace_context import TraceContext, parse_traceparent


def parents(recording: Any) -> dict[str, str | None]:
    """Operation -> operation of the parent (None at a root), of all finished spans."""
    spans = recording.take_all()
    names = {span.span_id: span.operation_name for span in spans}
    traces = {span.span_id: span.trace_id for span in spans}
    for span in spans:
        if span.parent_span_id in traces:
            assert traces[span.parent_span_id] == span.trace_id
    return {
        span.operation_name: names[span.parent_span_id] if span.parent_span_id else None
        for span in spans
    }


def test_blocks_nest(recording: Any) -> None:
    assert not current_span().is_recording
    with recording.start_span("m", "a") as a:
        assert current_span() is a
        with recording.start_span("m", "b") as b:
            assert current_span() is b
            assert b.parent_span_id == a.span_id
            recording.start_span("m", "c").end()
        assert current_span() is a
        recording.start_span("m", "d").end()
    assert not current_span().is_recording
    recording.start_span("m", "e").end()
    assert parents(recording) == {"a": None, "b": "a", "c": "b", "d": "a", "e": None}


def test_a_span_that_is_not_entered_is_not_current(recording: Any) -> None:
    span = recording.start_span("m", "a")
    recording.start_span("m", "b").end()
    span.end()
    assert parents(recording) == {"a": None, "b": None}


def test_explicit_parents(recording: Any) -> None:
    far = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
    a = recording.start_span("m", "a")
    with recording.start_span("m", "other"):
        recording.start_span("m", "b", parent=a).end()
        recording.start_span("m", "c", parent=a.traceparent).end()
        remote = recording.start_span("m", "remote", parent=far)
    remote.end()
    assert remote.trace_id == "ab" * 16
    assert remote.parent_span_id == "cd" * 8
    a.end()
    spans = {span.operation_name: span for span in recording.take_all()}
    for name in ("b", "c"):
        assert spans[name].parent_span_id == spans["a"].span_id
        assert spans[name].trace_id == spans["a"].trace_id


def test_a_block_left_out_of_order_leaves_no_ended_span_current(recording: Any) -> None:
    a = recording.start_span("m", "a").__enter__()
    b = recording.start_span("m", "b").__enter__()
    a.__exit__(None, None, None)
    assert current_span() is b
    b.__exit__(None, None, None)
    assert not current_span().is_recording
    recording.start_span("m", "c").end()
    assert parents(recording) == {"a": None, "b": "a", "c": None}


def test_a_thread_has_a_current_span_of_its_own(recording: Any) -> None:
    seen = []

    def work() -> None:
        seen.append(current_span().is_recording)
        with recording.start_span("m", "in thread"):
            pass

    with recording.start_span("m", "outside"):
        thread = threading.Thread(target=contextvars.Context().run, args=(work,))
        thread.start()
        thread.join()
    assert seen == [False]
    assert parents(recording) == {"in thread": None, "outside": None}


def test_a_copied_context_carries_the_span_into_a_thread(recording: Any) -> None:
    with recording.start_span("m", "a"), ThreadPoolExecutor(1) as pool:
        context = contextvars.copy_context()
        pool.submit(context.run, lambda: recording.start_span("m", "b").end()).result()
    assert parents(recording) == {"a": None, "b": "a"}


def test_many_threads(recording: Any) -> None:
    def work(number: int) -> None:
        for _ in range(200):
            with recording.start_span("m", "outer") as outer:
                assert current_span() is outer
                with recording.start_span("m", "inner") as inner:
                    assert inner.parent_span_id == outer.span_id

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    spans = recording.take_all()
    assert len(spans) == 8 * 200 * 2
    assert len({span.span_id for span in spans}) == len(spans)


def test_tasks_inherit_at_creation_and_do_not_disturb_each_other(recording: Any) -> None:
    async def request(name: str) -> None:
        with recording.start_span("m", name) as span:
            for _ in range(5):
                await asyncio.sleep(0)
                assert current_span() is span
                with recording.start_span("m", f"{name} step"):
                    await asyncio.sleep(0)

    async def late(gate: asyncio.Event) -> None:
        await gate.wait()
        recording.start_span("m", "late").end()

    async def serve() -> None:
        gate = asyncio.Event()
        with recording.start_span("m", "server"):
            task = asyncio.create_task(late(gate))
            await asyncio.gather(*(request(f"r{number}") for number in range(20)))
        # The parent has ended when the task runs; it was current when the task was made.
        gate.set()
        await task

    asyncio.run(serve())
    found = parents(recording)
    assert found.pop("server") is None
    assert found.pop("late") == "server"
    for name, parent in found.items():
        assert parent == (name.removesuffix(" step") if name.endswith("step") else "server")


def test_ten_thousand_tasks_some_cancelled(recording: Any) -> None:
    async def request(number: int, gate: asyncio.Event) -> None:
        with recording.start_span("m"):
            await gate.wait()

    async def serve() -> None:
        gate = asyncio.Event()
        tasks = [asyncio.create_task(request(number, gate)) for number in range(10_000)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        gate.set()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(serve())
    statuses = [span.status for span in recording.take_all()]
    assert statuses.count("CANCELLED") == 5_000
    assert statuses.count("OK") == 5_000


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("00-" + "a" * 32 + "-" + "b" * 16 + "-01", True),
        ("00-" + "a" * 32 + "-" + "b" * 16 + "-00", False),
        ("01-" + "a" * 32 + "-" + "b" * 16 + "-01-more", True),
        ("00-" + "a" * 32 + "-" + "b" * 16 + "-01-more", None),
        ("ff-" + "a" * 32 + "-" + "b" * 16 + "-01", None),
        ("00-" + "0" * 32 + "-" + "b" * 16 + "-01", None),
        ("00-" + "a" * 32 + "-" + "0" * 16 + "-01", None),
        ("00-" + "A" * 32 + "-" + "b" * 16 + "-01", None),
        ("00-" + "a" * 31 + "-" + "b" * 16 + "-01", None),
        ("", None),
    ],
)
def test_traceparent(header: str, expected: bool | None) -> None:
    context = parse_traceparent(header)
    assert (context and context.sampled) == expected


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans())
def test_traceparent_round_trip(trace_id: int, span_id: int, sampled: bool) -> None:
    header = f"00-{trace_id:032x}-{span_id:016x}-{sampled:02x}"
    assert parse_traceparent(header) == TraceContext(trace_id, span_id, sampled)


@given(st.text(max_size=80))
def test_traceparent_takes_any_text(header: str) -> None:
    parse_traceparent(header)
