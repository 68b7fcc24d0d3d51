"""The current span in threads and pools."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import infertrace
from infertrace.integrations.threads import executor
from infertrace.testing import RecordedSpan, SpanRecorder

Ended = Callable[[int], list[RecordedSpan]]


def work() -> None:
    infertrace.configure().start_span("m", "work").end()


def is_child(ended: Ended) -> bool:
    spans = {span.operation: span for span in ended(2)}
    return spans["work"].parent is spans["request"]


def in_a_thread() -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def in_a_subclass() -> None:
    class Worker(threading.Thread):
        def run(self) -> None:
            work()

    worker = Worker()
    worker.start()
    worker.join()
    assert "run" not in vars(worker)


def in_a_timer() -> None:
    timer = threading.Timer(0, work)
    timer.start()
    timer.join()


def by_submit() -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()


def by_map() -> None:
    with ThreadPoolExecutor(1) as pool:
        list(pool.map(lambda _: work(), range(1)))


def by_run_in_executor() -> None:
    async def ask() -> None:
        await asyncio.get_running_loop().run_in_executor(None, work)

    asyncio.run(ask())


WAYS = [in_a_thread, in_a_subclass, in_a_timer, by_submit, by_map, by_run_in_executor]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("is_on", [True, False])
def test_work_is_a_child(
    recorded_spans: SpanRecorder, ended: Ended, way: Callable[[], None], is_on: bool
) -> None:
    if is_on:
        infertrace.instrument("threads")
    with recorded_spans.tracer.start_span("m", "request"):
        way()
    assert is_child(ended) == is_on


def test_a_pool_of_its_own(recorded_spans: SpanRecorder, ended: Ended) -> None:
    with recorded_spans.tracer.start_span("m", "request"), executor(ThreadPoolExecutor(1)) as pool:
        assert pool.submit(lambda number: number + 1, 1).result() == 2
        pool.submit(work).result()
    assert is_child(ended)


def test_a_thread_of_a_pool_forgets_its_first_request(
    recorded_spans: SpanRecorder, ended: Ended
) -> None:
    infertrace.instrument("threads")
    with ThreadPoolExecutor(1) as pool:
        with recorded_spans.tracer.start_span("m", "request"):
            pool.submit(int).result()
        pool.submit(work).result()
    assert not is_child(ended)


def test_many_requests_share_a_pool(recorded_spans: SpanRecorder, ended: Ended) -> None:
    infertrace.instrument("threads")
    with ThreadPoolExecutor(4) as pool:

        def request(_: int) -> None:
            with recorded_spans.tracer.start_span("m", "request"):
                for future in [pool.submit(work) for _ in range(3)]:
                    future.result()

        threads = [threading.Thread(target=request, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for span in ended(16):
        if span.operation == "request":
            assert [child.operation for child in span.children] == ["work"] * 3


def test_an_error_is_that_of_the_work(recorded_spans: SpanRecorder) -> None:
    infertrace.instrument("threads")

    def fail() -> Any:
        raise KeyError("of the program")

    with recorded_spans.tracer.start_span("m", "request"), ThreadPoolExecutor(1) as pool:
        with pytest.raises(KeyError):
            pool.submit(fail).result()
        with pytest.raises(TypeError):
            pool.submit()  # type: ignore[call-arg]
