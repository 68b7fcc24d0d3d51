"""Blocks that are entered twice, exit out of order or elsewhere, or never exit."""

from __future__ import annotations

import asyncio
import contextvars
import os
import subprocess
import sys
import threading
from typing import Any

import pytest

from infertrace import backend as backends

# The compiled backend once hung holding the GIL; a hang of another process can time out.
_TIMEOUT_S = 120


def run(program: str, backend: Any, **environ: str) -> str:
    outcome = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ
        | {"INFERTRACE_BACKEND": backend.NAME, "INFERTRACE_ENDPOINT": "127.0.0.1:1"}
        | environ,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
    )
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout.strip()


_TRACER = """
import infertrace
tracer = infertrace.Tracer(export_interval_s=3600, resource_interval_s=0, exit_timeout_s=0)
"""


@pytest.mark.parametrize(
    "entries",
    [
        "with a:\n with a: pass",
        "with a:\n with b:\n  with a: pass",
        "with a:\n with b:\n  with a:\n   with b: pass",
        "a.__enter__(); b.__enter__(); a.__enter__(); a.end(); b.end()",
        "a.end()\nwith a:\n with a: pass",
    ],
)
def test_a_span_that_is_entered_twice_hangs_nothing(backend: Any, entries: str) -> None:
    program = f"""{_TRACER}
a, b = tracer.start_span("a"), tracer.start_span("b")
{entries}
child = tracer.start_span("child")
with child: pass
tracer.start_span("last").end()
print("done")
"""
    assert run(program, backend) == "done"


def test_a_span_is_ended_by_the_first_of_its_blocks_that_is_left(
    recording: Any, backend: Any
) -> None:
    outer = recording.start_span("outer")
    with outer:
        span = recording.start_span("twice")
        with span:
            with span:
                assert backend.current() is span
            assert not span.is_recording
            assert backend.current() is outer
        assert backend.current() is outer
    assert backend.current() is None
    assert [one.inference.model_name for one in recording.take_all()] == ["twice", "outer"]
    assert recording.recorder.counts()[4] == 1  # the second entry, by its name `with`


def test_a_span_in_two_tasks(recording: Any, backend: Any) -> None:
    shared = recording.start_span("shared")
    around: list[bool] = []

    async def work() -> None:
        with recording.start_span("work") as own:
            with shared:
                await asyncio.sleep(0)
                with recording.start_span("inner") as inner:
                    await asyncio.sleep(0)
            around.append(backend.current() is own and inner.trace_id == own.trace_id)

    async def main() -> None:
        with shared:
            await asyncio.gather(work(), work())

    asyncio.run(main())
    assert backend.current() is None
    assert around == [True, True]
    assert len(recording.take_all()) == 5
    assert recording.recorder.counts()[4] == 2


def test_a_span_in_two_traces(recording: Any, backend: Any) -> None:
    """Entered in one context, then in another, whose own current span stays current."""
    shared = recording.start_span("shared")

    def work() -> None:
        with recording.start_span("other") as other:
            with shared:
                assert backend.current() is other
            assert backend.current() is other
            assert recording.start_span("child").trace_id == other.trace_id

    with recording.start_span("one") as one:
        with shared:
            contextvars.Context().run(work)
        assert backend.current() is one


def test_a_span_that_was_current_before_it_was_entered(recording: Any, backend: Any) -> None:
    """As when the body of a decorated generator enters its span by hand."""
    span = recording.start_span("generator")
    backend.set_current(span)
    inner = recording.start_span("inner")
    inner.__enter__()
    span.__enter__()  # would enclose itself
    span.end()
    inner.end()
    with recording.start_span("later"):
        pass
    backend.set_current(None)
    assert len(recording.take_all()) == 3


def test_spans_left_current_do_not_pile_up(recording: Any) -> None:
    """Each ends and no block exits: all but the newest can be freed."""
    spans = 5_000

    def work() -> None:
        for _ in range(spans):
            span = recording.start_span("m")
            span.__enter__()
            span.end()

    context = contextvars.Context()
    context.run(work)
    recording.take_all()
    before = sys.getallocatedblocks()
    context.run(work)
    recording.take_all()
    assert sys.getallocatedblocks() - before < spans


@pytest.mark.parametrize("ended", ["span.end()", "pass", "kept.append(span)"])
def test_a_long_chain_is_freed_on_a_small_stack(backend: Any, ended: str) -> None:
    """Spans whose blocks never exit, each holding the only reference to the one around it."""
    program = f"""{_TRACER}
import threading
kept = []
def work():
    for _ in range(200_000):
        span = tracer.start_span("m")
        span.__enter__()
        {ended}
    for span in kept:
        span.end()
    kept.clear()
if infertrace.BACKEND == "native":
    # Python objects in a chain, as the pure ones are, CPython 3.13 frees some 10,000 deep.
    threading.stack_size(256 * 1024)
thread = threading.Thread(target=work)
thread.start()
thread.join()
with tracer.start_span("after"): pass
print("done")
"""
    assert run(program, backend) == "done"


def test_abandoned_generators_cost_no_more_and_more(backend: Any) -> None:
    """A task that breaks out of async generators; each break used to take as long as all before."""
    program = f"""{_TRACER}
import asyncio, time
async def tokens():
    with tracer.start_span("llm"):
        for number in range(3):
            yield number
async def server(count):
    began = time.process_time()
    for number in range(count):
        async for token in tokens():
            break
        if number % 100 == 0:
            await asyncio.sleep(0)
    return time.process_time() - began
async def main():
    first = await asyncio.create_task(server(4_000))
    second = await asyncio.create_task(server(32_000))
    print(second / first)
asyncio.run(main())
"""
    # Eight times the work; with a chain it would take 64 times as long.
    assert float(run(program, backend)) < 32


def test_an_unsampled_root_gives_back_what_was_current(recording: Any, backend: Any) -> None:
    recording.recorder.set_sample_rate(0)
    first, second = recording.start_span("unsampled"), recording.start_span("unsampled")
    recording.recorder.set_sample_rate(1)
    with recording.start_span("sampled") as span:
        with first:
            assert not recording.start_span("inside").is_recording
            with second:
                assert not recording.start_span("inside").is_recording
            assert not recording.start_span("inside").is_recording
            assert not backend.current().is_recording
        assert backend.current() is span
        assert recording.start_span("child").parent_span_id == span.span_id
    assert backend.current() is None
    with first, second:
        assert not recording.start_span("inside").is_recording
    assert backend.current() is None


def test_an_unsampled_root_skips_what_ended_meanwhile(recording: Any, backend: Any) -> None:
    recording.recorder.set_sample_rate(0)
    unsampled = recording.start_span("unsampled")
    recording.recorder.set_sample_rate(1)
    with recording.start_span("outer") as outer:
        span = recording.start_span("inner")
        with span:
            unsampled.__enter__()
            span.end()
            unsampled.__exit__(None, None, None)
            assert backend.current() is outer


def test_a_context_variable_set_from_elsewhere(recording: Any, backend: Any) -> None:
    """Some frameworks copy a context by setting each of its variables."""
    context = contextvars.Context()

    def restore(saved: contextvars.Context) -> None:
        for variable in saved:
            variable.set(saved[variable])

    def work() -> None:
        outer, inner = recording.start_span("outer"), recording.start_span("inner")
        outer.__enter__()
        saved = contextvars.copy_context()
        inner.__enter__()
        restore(saved)
        assert backend.current() is outer
        assert recording.start_span("child").parent_span_id == outer.span_id
        with recording.start_span("another") as another:
            assert backend.current() is another
        assert backend.current() is outer
        assert saved.run(backend.current) is outer

    context.run(work)


@pytest.mark.parametrize("value", [None, 7, "span", object()])
def test_a_context_variable_set_to_something_else(backend: Any, value: Any) -> None:
    """Code that sets all variables of a context to its own value finds ours too."""
    if backend.NAME == "pure":  # its variable holds the span itself, so this sets a span
        value = None
    native = backends.select(backend.NAME)
    context = contextvars.Context()

    def work() -> Any:
        recorder = native.Recorder(max_buffer_bytes=65536, max_batch_bytes=4096, wake=lambda: None)
        recorder.start_span("m").__enter__()
        for variable in contextvars.copy_context():
            variable.set(value)
        assert native.current() is None
        with recorder.start_span("m") as span:
            assert native.current() is span
            assert span.parent_span_id is None

    context.run(work)


def test_threads_that_set_each_others_spans(recording: Any, backend: Any) -> None:
    """One thread's cached lookup is not taken for another thread's value."""
    mine, theirs = recording.start_span("mine"), recording.start_span("theirs")
    seen: list[Any] = []
    turn = [threading.Semaphore(0), threading.Semaphore(0)]

    def other() -> None:
        theirs.__enter__()
        for _ in range(50):
            turn[0].acquire()
            seen.append(backend.current() is theirs)
            turn[1].release()

    thread = threading.Thread(target=other)
    thread.start()
    mine.__enter__()
    for _ in range(50):
        turn[0].release()
        turn[1].acquire()
        seen.append(backend.current() is mine)
    thread.join()
    backend.set_current(None)
    assert seen == [True] * 100


def test_finalizers_that_record_while_the_current_span_is_set(backend: Any) -> None:
    """With the GC at work at each allocation; before 3.12 CPython crashes there."""
    program = f"""{_TRACER}
import contextvars, gc, random
class Finalized:
    def __init__(self):
        self.cycle = self
    def __del__(self):
        with tracer.start_span("finalizer"):
            pass
def work(variables):
    gc.collect()  # or a finalizer left from before sets a variable within other.set()
    others = [contextvars.ContextVar(str(number)) for number in range(variables)]
    for number, other in enumerate(others):
        other.set(number)
    draw, aging = random.Random(variables), []
    for _ in range(1_000):
        aging.append(Finalized())
        with tracer.start_span("m"):
            while len(aging) > draw.randrange(8):
                aging.pop(draw.randrange(len(aging)))
gc.set_threshold(1, 1, 1)
for variables in range(10, 100, 3):
    contextvars.Context().run(work, variables)
gc.disable()
with tracer.start_span("m"):
    assert not gc.isenabled()
assert not gc.isenabled()
print("done")
"""
    assert run(program, backend, PYTHONMALLOC="debug") == "done"


def test_a_span_cannot_be_made_by_hand(backend: Any) -> None:
    program = """
import copy, pickle
from infertrace import backend
recorder = backend.selected.Recorder(max_buffer_bytes=65536, max_batch_bytes=4096, wake=bool)
recorder.set_sample_rate(0)
noop = type(recorder.start_span())
recorder.set_sample_rate(1)
span = type(recorder.start_span())
for make in (
    lambda: span.__new__(span).end(),
    lambda: object.__new__(span).end(),
    lambda: span().end(),
    lambda: copy.copy(recorder.start_span()).end(),
    lambda: pickle.loads(pickle.dumps(recorder.start_span())).end(),
):
    try:
        make()
    except (TypeError, AttributeError, pickle.PicklingError):
        print("refused")
"""
    assert run(program, backend).split() == ["refused"] * 5


def test_spans_at_the_recursion_limit_are_counted(backend: Any) -> None:
    program = f"""{_TRACER}
import sys
entered = 0
def recurse():
    global entered
    span = tracer.start_span("m")
    with span:
        entered += 1
        recurse()
for limit in (1000, 400, 333):
    sys.setrecursionlimit(limit)
    try:
        recurse()
    except RecursionError:
        pass
sys.setrecursionlimit(1000)
tracer.start_span("last").end()
stats = tracer.stats()
assert stats["produced"] == stats["delivered"] + stats["pending"] + sum(stats["dropped"].values())
print(entered + 1 - stats["produced"])
"""
    assert run(program, backend) == "0"
