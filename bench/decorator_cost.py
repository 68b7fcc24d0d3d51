"""What does `trace_inference` cost, for each kind of function that it decorates?

The work: one call of a function that does nothing, or one item of a generator of a thousand.
Coroutines and async generators run on an event loop that has nothing else to do. No fields
are set.
"""

from __future__ import annotations

from pathlib import Path

from bench import contenders
from bench.harness import Answer, Row, differences, measure_rows, ratios, time_rows, verdict
from bench.loops import Loop, async_loop_of, loop_of
from bench.markdown import median_and_spread, table
from bench.receiver import running_receiver

FUNCTION = "def work():\n    pass"
GENERATOR = "def work():\n    for item in range(count):\n        yield item"
UNWRAPPED = ""
DECORATED = "@tracer.trace_inference(model='gpt-4')\n"
OTEL_DECORATED = "@tracer.start_as_current_span('inference gpt-4')\n"
KINDS = ("function", "coroutine", "generator, an item", "async generator, an item")


def kinds(decorator: str) -> dict[str, Loop]:
    function, generator = decorator + FUNCTION, decorator + GENERATOR
    asynchronous = decorator + "async "
    return {
        "function": loop_of("work()", setup=function),
        "coroutine": async_loop_of("await work()", setup=asynchronous + FUNCTION),
        "generator, an item": loop_of("pass", setup=generator, head="for _ in work():"),
        "async generator, an item": async_loop_of(
            "pass", setup=asynchronous + GENERATOR, head="async for _ in work():"
        ),
    }


WITH_BLOCK = loop_of(f"with {contenders.Infertrace.start}:\n    work()", setup=FUNCTION)
DECORATED_LOOPS = kinds(DECORATED)
OTEL_FUNCTION = loop_of("work()", setup=OTEL_DECORATED + FUNCTION)

SIDES = (("native", contenders.native), ("pure", contenders.pure))
UNWRAPPED_ROWS = [
    Row(f"unwrapped: {kind}", "no tracer", contenders.Contender, loop)
    for kind, loop in kinds(UNWRAPPED).items()
]
OWN_ROWS = [
    row
    for side, make in SIDES
    for row in (
        Row(f"{side}: with block", "the call in a `with` block", make, WITH_BLOCK),
        *(Row(f"{side}: {kind}", "decorated", make, DECORATED_LOOPS[kind]) for kind in KINDS),
    )
]
OFF, OTEL_NO_OP = "off: function", "OpenTelemetry no-op: function"
OTHER_ROWS = [
    Row(OFF, "native, enabled=False, decorated", contenders.off, DECORATED_LOOPS["function"]),
    Row(OTEL_NO_OP, "NoOpTracer, decorated", contenders.OpenTelemetryNoOp, OTEL_FUNCTION),
    Row(
        "OpenTelemetry SDK: function",
        "BatchSpanProcessor, exporter that only counts, decorated",
        contenders.OpenTelemetry,
        OTEL_FUNCTION,
    ),
]
ROWS = (*UNWRAPPED_ROWS, *OWN_ROWS, *OTHER_ROWS)


def measure(folder: Path, fast: bool) -> Answer:
    rounds, values = (1, 2) if fast else (3, 5)
    with running_receiver() as addresses:
        seconds = measure_rows(
            "bench.decorator_cost", ROWS, folder, rounds=rounds, values=values, addresses=addresses
        )

    def added(row: Row) -> str:
        kind = row.name.partition(": ")[2]
        bare = seconds[f"unwrapped: {kind if kind in KINDS else 'function'}"]
        return median_and_spread(differences(seconds[row.name], bare), 1e9, 0)[0]

    tables = table(
        ["", "work", "ns", "rounds, ns", "added to the unwrapped, ns"],
        [
            [row.name, row.work, *median_and_spread(seconds[row.name], 1e9, 0), added(row)]
            for row in ROWS
        ],
    )
    verdicts = [
        verdict(
            f"decorated function, {side}",
            ratios(seconds[f"{side}: function"], seconds[f"{side}: with block"]),
            "x",
            at_most=1,
            of="the call in a with block",
        )
        for side, _ in SIDES
    ]
    verdicts.append(
        verdict(
            "decorated function, off",
            ratios(seconds[OFF], seconds[OTEL_NO_OP]),
            "x",
            at_most=1,
            of="OpenTelemetry's no-op decorator",
        )
    )
    return Answer({"rounds": rounds, "seconds": seconds}, tables, verdicts)


if __name__ == "__main__":
    time_rows("bench.decorator_cost", ROWS)
