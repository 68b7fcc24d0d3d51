"""The workloads of the instruction gate: each hot operation of the compiled backend, in a loop.

    python tools/instruction_workloads.py "recorded span"

runs one of them. The gate counts between the two calls of `MARKER`, which excludes the start of
the interpreter and the warm-up. Uses a bare recorder: it runs no thread and sends nothing.
"""

from __future__ import annotations

import gc
import os
import sys
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from infertrace import Tracer, backend

# The defaults of a tracer; the spans of all iterations fit into the first.
MAX_BUFFER_BYTES = 8 * 1024 * 1024
MAX_BATCH_BYTES = 1024 * 1024

ITERATIONS = 1024
WARM_UP_ITERATIONS = 256
BATCH_ROWS = 256  # divides both

START_NS = 1_800_000_000_000_000_000
DURATION_NS = 1_000_000
KEYS = ("region", "zone", "host", "shard")


MARKER = "getpgid"
"""Where callgrind begins and ends a count: a C function that nothing else calls."""


class PythonTracer:
    """The calls of a recorded span on plain Python classes: what the interpreter costs."""

    class Span:
        __slots__ = ("batch_size", "tokens")

        def __enter__(self) -> PythonTracer.Span:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def set_batch_size(self, size: int) -> None:
            self.batch_size = size

        def set_tokens(self, input: int, output: int) -> None:
            self.tokens = (input, output)

    def start_span(self, model_name: str) -> Span:
        return self.Span()


def interpreter(_: Any, times: int) -> None:
    recorded_span(PythonTracer(), times)


def recorded_span(recorder: Any, times: int) -> None:
    start_span = recorder.start_span
    for _ in range(times):
        with start_span("gpt-4") as span:
            span.set_batch_size(8)
            span.set_tokens(input=24, output=100)


def by_its_tracer(recorder: Any, times: int) -> None:
    """As users write it: each iteration looks the method up, which takes the recorder of `self`."""
    base: Any = backend.select("native").TracerBase
    kind = type("Tracer", (base,), {})
    base.add_start_span(kind, "")
    tracer = kind()
    tracer._recorder = recorder
    for _ in range(times):
        with tracer.start_span("gpt-4") as span:
            span.set_batch_size(8)
            span.set_tokens(input=24, output=100)


def bare_span(recorder: Any, times: int) -> None:
    start_span = recorder.start_span
    for _ in range(times):
        with start_span("gpt-4"):
            pass


def child_span(recorder: Any, times: int) -> None:
    with recorder.start_span("gpt-4"):
        recorded_span(recorder, times)


def ended_span(recorder: Any, times: int) -> None:
    start_span = recorder.start_span
    for _ in range(times):
        start_span("gpt-4").end()


def five_fields(recorder: Any, times: int) -> None:
    start_span = recorder.start_span
    for _ in range(times):
        with start_span(
            "gpt-4",
            batch_size=8,
            queue_depth=3,
            sequence_length=512.0,
            cache_hit_rate=0.5,
            batch_fill_ratio=0.25,
        ):
            pass


def five_setters(recorder: Any, times: int) -> None:
    start_span = recorder.start_span
    for _ in range(times):
        with start_span("gpt-4") as span:
            span.set_batch_size(8)
            span.set_queue(depth=3)
            span.set_sequence_length(512.0)
            span.set_cache_hit_rate(0.5)
            span.set_batch_fill_ratio(0.25)


def tags(recorder: Any, times: int) -> None:
    start_span = recorder.start_span
    for _ in range(times):
        with start_span("gpt-4") as span:
            for key in KEYS:
                span.set_tag(key, "eu-west")


def attributes(value: Any) -> Callable[[Any, int], None]:
    def run(recorder: Any, times: int) -> None:
        start_span = recorder.start_span
        for _ in range(times):
            with start_span("gpt-4") as span:
                for key in KEYS:
                    span.set_attribute(key, value)

    return run


def events(recorder: Any, times: int) -> None:
    start_span = recorder.start_span
    for _ in range(times):
        with start_span("gpt-4") as span:
            for name in KEYS:
                span.add_event(name)


def decorated(recorder: Any, times: int) -> None:
    # Not a tracer's recorder: a tracer has an exporter with a thread.
    stand_in: Any = SimpleNamespace(start_span=recorder.start_span)
    step = Tracer.trace_inference(stand_in, "gpt-4")(lambda: None)
    for _ in range(times):
        step()


def tokens(recorder: Any, times: int) -> None:
    request = recorder.start_span("gpt-4")
    for _ in range(times):
        request.token()
    request.end()


def chunks(recorder: Any, times: int) -> None:
    request = recorder.start_span("gpt-4")
    for _ in request.stream(range(times)):
        pass
    request.end()


def step(members: int) -> Callable[[Any, int], None]:
    def run(recorder: Any, times: int) -> None:
        start_step = recorder.start_step
        requests = [recorder.start_span("gpt-4") for _ in range(members)]
        for _ in range(times):
            with start_step("gpt-4", decode=requests, capacity=256):
                pass
        for request in requests:
            request.end()

    return run


def record(recorder: Any, times: int) -> None:
    record = recorder.record
    for _ in range(times):
        record(
            "gpt-4",
            start_ns=START_NS,
            duration_ns=DURATION_NS,
            batch_size=8,
            input_tokens=24,
            output_tokens=100,
        )


def record_batch(recorder: Any, times: int) -> None:
    columns = {
        "start_ns": array("q", [START_NS]) * BATCH_ROWS,
        "duration_ns": array("q", [DURATION_NS]) * BATCH_ROWS,
        "batch_size": array("i", [8]) * BATCH_ROWS,
        "input_tokens": array("i", [24]) * BATCH_ROWS,
        "output_tokens": array("i", [100]) * BATCH_ROWS,
    }
    for _ in range(times // BATCH_ROWS):
        recorder.record_batch("gpt-4", **columns)


def off(recorder: Any, times: int) -> None:
    recorder.enabled = False
    recorded_span(recorder, times)


def unsampled(recorder: Any, times: int) -> None:
    recorder.set_sample_rate(0.0)
    recorded_span(recorder, times)


@dataclass(frozen=True)
class Operation:
    """A loop, and how to get from the instructions of one iteration to those of one call."""

    run: Callable[[Any, int], None]
    calls: int = 1
    beyond: str | None = None  # the operation that an iteration contains besides


# The plain Python loop distinguishes another build of the interpreter from a change of ours.
INTERPRETER = "plain Python (reference)"
OPERATIONS = {
    INTERPRETER: Operation(interpreter),
    "recorded span": Operation(recorded_span),
    "recorded span, by its tracer": Operation(by_its_tracer),
    "bare span": Operation(bare_span),
    "child span": Operation(child_span),
    "end() without with": Operation(ended_span),
    "five fields at start": Operation(five_fields, beyond="bare span"),
    "five setters": Operation(five_setters, beyond="bare span"),
    "set_tag": Operation(tags, len(KEYS), "bare span"),
    "set_attribute, str": Operation(attributes("eu-west"), len(KEYS), "bare span"),
    "set_attribute, int": Operation(attributes(70), len(KEYS), "bare span"),
    "set_attribute, float": Operation(attributes(0.5), len(KEYS), "bare span"),
    "add_event": Operation(events, len(KEYS), "bare span"),
    "decorated function": Operation(decorated),
    "token": Operation(tokens),
    "chunk of a stream": Operation(chunks),
    "step": Operation(step(0)),
    "member of a step": Operation(step(256), 256, "step"),
    "record": Operation(record),
    "record_batch, one row": Operation(record_batch),
    "off": Operation(off),
    "unsampled": Operation(unsampled),
}


def count(operation: Operation) -> None:
    recorder: Any = backend.select("native").Recorder(
        max_buffer_bytes=MAX_BUFFER_BYTES, max_batch_bytes=MAX_BATCH_BYTES, wake=lambda: None
    )
    gc.disable()  # when the GC would run depends on what was imported
    operation.run(recorder, WARM_UP_ITERATIONS)
    os.getpgid(0)
    operation.run(recorder, ITERATIONS)
    os.getpgid(0)
    _, _, _, dropped, invalid_fields = recorder.counts()
    if any(dropped) or invalid_fields:
        raise RuntimeError(f"dropped {dropped}, {invalid_fields} invalid fields: another path")


if __name__ == "__main__":
    count(OPERATIONS[sys.argv[1]])
