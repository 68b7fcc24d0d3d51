"""Runs each kind of operation many times and prints what it left behind, as JSON.

    python -X dev tests/native/count_references.py TIMES

For each kind: by how much its spans changed the reference counts of the objects that they
share, and the memory in use. `spans` is how many were made in all.
"""

from __future__ import annotations

import gc
import json
import math
import sys
import tracemalloc
from array import array
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

from infertrace import Tracer, backend
from infertrace.generated.field_names import (
    COUNT_FIELDS,
    INTERVALS_FIELDS,
    MEASURE_FIELDS,
    ORDINAL_FIELDS,
    TEXT_FIELDS,
)
from infertrace.generated.span_setters import SETTERS

MAX_BUFFER_BYTES = 8 * 1024 * 1024
MAX_BATCH_BYTES = 64 * 1024
# How often an operation runs between two drains of the buffer.
ROUND = 1000

NATIVE: Any = backend.select("native")
Kind = Callable[[Any], Any]  # runs its operation once, with the start_span of a recorder

# The caller's objects that the backend might keep, and singletons that it returns.
MODEL, KEY, TEXT = "model of the test", "key of the test", "text of the test"
SNOWMAN, NUMBER, REAL = "\N{SNOWMAN} of the test", 123_456_789, 0.123
ATTRIBUTES = {KEY: TEXT, "number": NUMBER, "real": REAL, "flag": True}
LINK = f"00-{'1' * 32}-{'2' * 16}-01"
ERROR = ValueError(TEXT)


class HostileError(Exception):
    def __str__(self) -> str:
        raise ValueError


class HostileNumber:
    def __index__(self) -> int:
        raise ValueError

    def __float__(self) -> float:
        raise ValueError


HOSTILE = (
    None,
    HostileNumber(),
    "\ud800",
    "x" * 40_000,
    type("Text", (str,), {})("x"),
    -1,
    2**70,
    math.nan,
    b"x",
    [1],
    True,
)


FIELDS: dict[str, Any] = {
    **dict.fromkeys(TEXT_FIELDS, SNOWMAN),
    **dict.fromkeys(COUNT_FIELDS, NUMBER),
    **dict.fromkeys(MEASURE_FIELDS, REAL),
    **dict.fromkeys(ORDINAL_FIELDS, NUMBER),
    **{name: [100, NUMBER] for name in INTERVALS_FIELDS},
}


def bare(start: Any) -> None:
    with start(MODEL):
        pass


def setters(start: Any) -> None:
    with start(MODEL, KEY) as span:
        for field, (method, parameter) in SETTERS.items():
            getattr(span, method)(**{parameter: FIELDS[field]})
        span.set_status("ERROR", TEXT)


def fields_at_start(start: Any) -> None:
    with start(
        MODEL,
        KEY,
        tags={KEY: TEXT},
        attributes=ATTRIBUTES,
        links=[LINK],
        **FIELDS,
    ):
        pass


def unknown_keyword(start: Any) -> None:
    try:
        start(MODEL, batch_sise=NUMBER)
    except TypeError:
        pass
    else:
        raise AssertionError


def tags(start: Any) -> None:
    with start(MODEL) as span:
        span.set_tag(KEY, TEXT)
        span.set_tag(KEY, SNOWMAN)
        span.set_tag(SNOWMAN, TEXT)


def attributes(start: Any) -> None:
    with start(MODEL) as span:
        for key, value in ATTRIBUTES.items():
            span.set_attribute(key, value)


def events(start: Any) -> None:
    with start(MODEL) as span:
        span.add_event(TEXT)
        span.add_event(SNOWMAN, ATTRIBUTES)


def links(start: Any) -> None:
    with start(MODEL) as span:
        span.add_link(LINK, ATTRIBUTES)
        span.add_link(span)
        span.add_link(NATIVE.NOOP)


def raises(error: BaseException) -> Kind:
    def kind(start: Any) -> None:
        try:
            with start(MODEL):
                raise error
        except BaseException:
            error.__traceback__ = None  # it grows with each frame that it passes

    return kind


def recorded_exception(start: Any) -> None:
    with start(MODEL) as span:
        span.record_exception(ERROR)
        span.record_exception(TEXT)


def hostile_values(start: Any) -> None:
    for value in HOSTILE:
        with start(value, value, batch_size=value, framework=value, parent=value) as span:
            span.set_tokens(value, value)
            span.set_queue(value, value)
            span.set_cache_hit_rate(value)
            span.set_tag(value, value)
            span.set_tag(KEY, value)
            span.set_attribute(value, value)
            span.set_attribute(KEY, value)
            span.add_event(value, value)
            span.add_link(value, value)
            span.set_status(value, value)
            span.record_exception(value)


def late_setters(start: Any) -> None:
    with start(MODEL) as span:
        pass
    span.set_batch_size(NUMBER)
    span.set_tag(KEY, TEXT)
    span.set_attribute(KEY, TEXT)
    span.set_framework(TEXT)
    span.add_event(TEXT, ATTRIBUTES)
    span.end()


def children(start: Any) -> None:
    with start(MODEL) as parent, start(MODEL), start(MODEL, parent=parent.traceparent):
        start(MODEL, parent=parent).end()


def left_out_of_order(start: Any) -> None:
    outer, inner = start(MODEL), start(MODEL)
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)
    inner.__exit__(None, None, None)


def forgotten(start: Any) -> None:
    start(MODEL).set_tag(KEY, TEXT)


def properties(start: Any) -> None:
    with start(MODEL) as outer, start(MODEL) as span:
        assert span.trace_id == outer.trace_id != span.span_id != span.parent_span_id
        assert span.context.span_id
        assert span.is_recording
        assert span.propagates
        assert NATIVE.current() is span


def awaited(step: Any) -> None:
    """Run a coroutine that waits for nothing."""
    try:
        step.send(None)
    except StopIteration:
        pass
    else:
        raise AssertionError


def async_with(start: Any) -> None:
    async def step() -> None:
        async with start(MODEL):
            pass

    awaited(step())


def traced(function: Any, start: Any) -> Any:
    stand_in: Any = SimpleNamespace(start_span=start)  # a tracer's exporter has a thread
    return Tracer.trace_inference(stand_in, MODEL, KEY, model_version=TEXT)(function)


def decorated(start: Any) -> None:
    assert traced(lambda text: text, start)(TEXT) is TEXT


def decorated_coroutine(start: Any) -> None:
    async def step() -> str:
        return TEXT

    awaited(traced(step, start)())


def numbers() -> Iterable[int]:
    yield NUMBER
    yield NUMBER


def decorated_generator(start: Any) -> None:
    assert list(traced(numbers, start)()) == [NUMBER, NUMBER]


def closed_generator(start: Any) -> None:
    generator = traced(numbers, start)()
    assert next(generator) == NUMBER
    generator.close()


def decorated_async_generator(start: Any) -> None:
    async def texts() -> Any:
        yield TEXT

    async def step() -> None:
        async for text in traced(texts, start)():
            assert text is TEXT

    awaited(step())


def record(start: Any) -> None:
    start.__self__.record(
        MODEL,
        KEY,
        start_ns=NUMBER,
        duration_ns=NUMBER,
        parent=LINK,
        status="ERROR",
        status_message=TEXT,
        framework=TEXT,
        batch_size=NUMBER,
        attributes=ATTRIBUTES,
    )
    for value in HOSTILE:
        start.__self__.record(value, value, start_ns=value, duration_ns=value, parent=value)


def requests_and_steps(start: Any) -> None:
    step, record_step = start.__self__.start_step, start.__self__.record_step
    one, other = start(MODEL, request_id=SNOWMAN, input_tokens=4), start(MODEL)
    one.scheduled()
    with step(MODEL, prefill=[(one, 2)], decode=[other, (other, 2)], capacity=8, engine=KEY):
        pass
    with step(MODEL, prefill=[(one, 2, True), 7, (7, 7)], decode=(7, one, None), capacity=TEXT):
        pass
    record_step(MODEL, start_ns=NUMBER * 10**10, duration_ns=NUMBER, decode=[one], tags={KEY: TEXT})
    for value in HOSTILE:
        step(MODEL, prefill=value, decode=value, capacity=value, engine=value).end()
        one.token(value)
    for token in (one.token, lambda: other.token(3), lambda: other.token(count=NUMBER)):
        token()
    for chunk in one.stream([TEXT, SNOWMAN]):
        assert chunk
    stream = one.stream(letter for letter in TEXT)
    stream.send(None)
    stream.close()
    step(MODEL, decode=[one])  # never ends
    one.end()
    other.end()
    one.token()


NUMBERS, REALS, SMALL = array("q", [NUMBER] * 4), array("d", [REAL] * 4), array("i", [-1] * 4)


def record_batch(start: Any) -> None:
    batch = start.__self__.record_batch
    times = {"start_ns": NUMBERS, "duration_ns": NUMBERS}
    assert batch(MODEL, KEY, **times, input_tokens=SMALL, cache_hit_rate=REALS) == len(NUMBERS)
    assert batch(MODEL, KEY, **times, parent=LINK) == len(NUMBERS)
    texts: Any = [SNOWMAN, None, 7, TEXT]
    tags: Any = [{KEY: TEXT}, None, 7, {7: TEXT}]
    given: Any = [LINK, None, 7, "x"]
    columns = {"request_id": texts, "engine": texts, "tags": tags, "trace_ids": given}
    assert batch(MODEL, KEY, **times, parents=given, **columns) == len(NUMBERS)
    assert batch(MODEL, KEY, **times, token_intervals=[[100, NUMBER], None, 7, []]) == len(NUMBERS)
    for wrong in ({"tags": SNOWMAN}, {"batch_size": REALS}, {"queue_depth": NUMBERS[:1]}):
        try:
            batch(MODEL, KEY, **times, **wrong)
        except (TypeError, ValueError):
            pass
        else:
            raise AssertionError(wrong)


KINDS: dict[str, Kind] = {
    kind.__name__: kind
    for kind in (
        bare,
        setters,
        fields_at_start,
        unknown_keyword,
        tags,
        requests_and_steps,
        attributes,
        events,
        links,
        recorded_exception,
        hostile_values,
        late_setters,
        children,
        left_out_of_order,
        forgotten,
        properties,
        async_with,
        decorated,
        decorated_coroutine,
        decorated_generator,
        closed_generator,
        decorated_async_generator,
        record,
        record_batch,
    )
}
KINDS["error"] = raises(ERROR)
KINDS["error that cannot be printed"] = raises(HostileError())
KINDS["cancelled"] = raises(GeneratorExit())


def no_thread() -> None:
    raise RuntimeError("can't start new thread")


def new_recorder(**settings: Any) -> Any:
    sizes = {"max_buffer_bytes": MAX_BUFFER_BYTES, "max_batch_bytes": MAX_BATCH_BYTES}
    recorder = NATIVE.Recorder(**{"wake": lambda: None, **sizes, **settings})
    recorder.service_name = "tests"
    recorder.sample = (b"\x0a\x00", 0)
    return recorder


def unsampled() -> Any:
    recorder = new_recorder()
    recorder.set_sample_rate(0.0)
    return recorder


def off() -> Any:
    recorder = new_recorder()
    recorder.enabled = False
    return recorder


def closed() -> Any:
    recorder = new_recorder()
    recorder.close()
    return recorder


# Other ways for the spans of `setters_and_children` to end than in a batch of many.
RECORDERS: dict[str, Callable[[], Any]] = {
    "unsampled": unsampled,
    "off": off,
    "closed": closed,
    "a full buffer": lambda: new_recorder(max_buffer_bytes=2000),
    "no thread": lambda: new_recorder(wake=no_thread),
    "a batch for each span": lambda: new_recorder(max_batch_bytes=1),
}


def setters_and_children(start: Any) -> None:
    setters(start)
    children(start)


class Planted:
    """A leak, to prove that the counting finds one."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def __call__(self, start: Any) -> None:
        with start(MODEL) as span:
            self.kept.append(span)


def drain(recorder: Any) -> None:
    while (batch := recorder.take()) is not None:
        recorder.settle(batch, batch.span_count, "rejected")
    recorder.sample = (b"\x0a\x00", 0)
    recorder.discard()


def held(recorder: Any) -> dict[str, int]:
    gc.collect()
    shared = {
        "None": None,
        "True": True,
        "recorder": recorder,
        "start_span's model": MODEL,
        "key": KEY,
        "text": TEXT,
        "text that is not ASCII": SNOWMAN,
        "integer": NUMBER,
        "float": REAL,
        "attributes": ATTRIBUTES,
        "link": LINK,
        "error": ERROR,
        "column of int64": NUMBERS,
        "column of double": REALS,
        "column of int32": SMALL,
        "no-op span": NATIVE.NOOP,
        "class of the spans": NATIVE.Span,
    }
    counts = {f"references to {name}": sys.getrefcount(it) for name, it in shared.items()}
    if hasattr(sys, "gettotalrefcount"):  # a debug build
        counts["references in all"] = sys.gettotalrefcount()
    counts["bytes"] = tracemalloc.get_traced_memory()[0]
    return counts


def growth(recorder: Any, kind: Kind, times: int) -> dict[str, int]:
    def rounds(count: int) -> None:
        for _ in range(count):
            for _ in range(ROUND):
                kind(recorder.start_span)
            drain(recorder)

    rounds(1)  # caches and free lists fill
    before = held(recorder)
    rounds(max(1, times // ROUND))
    after = held(recorder)
    return {name: after[name] - before[name] for name in before}


def main(times: int) -> None:
    tracemalloc.start()
    grown, spans = {}, 0
    kinds: dict[str, Kind] = {**KINDS, "planted": Planted()}
    for name, kind in kinds.items():
        recorder = new_recorder()
        grown[name] = growth(recorder, kind, times)
        spans += recorder.counts()[0]
    for name, make in RECORDERS.items():
        recorder = make()
        grown[name] = growth(recorder, setters_and_children, times)
        spans += recorder.counts()[0]
    print(json.dumps({"spans": spans, "grown": grown}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
