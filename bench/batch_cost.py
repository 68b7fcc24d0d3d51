"""What does a span cost that is recorded after it ended, alone or many in one call?

The work: spans of given start and duration with both counts of tokens. A batch is one call on
NumPy columns of int64 that were made before; the span alone is one call each.
"""

from __future__ import annotations

from pathlib import Path

from bench import contenders
from bench.harness import Answer, Row, measure_rows, time_rows, verdict
from bench.loops import Loop, loop_of
from bench.markdown import median_and_spread, table
from bench.receiver import running_receiver

START_NS, DURATION_NS = 1_700_000_000_000_000_000, 41_000_000
SIZES = (1, 16, 256, 4096)
BUDGET_SIZE, BUDGET_US = 256, 0.08
SPANS_PER_BURST = 8192  # two of the largest batches, one eighth of the buffer

BLOCK = f"with {contenders.Infertrace.start} as span:\n    span.set_tokens(input=24, output=100)"
ALONE = f"""tracer.record(
    'gpt-4', start_ns={START_NS}, duration_ns={DURATION_NS}, input_tokens=24, output_tokens=100
)"""
BATCH = """tracer.record_batch(
    'gpt-4', start_ns=start, duration_ns=duration, input_tokens=input, output_tokens=output
)"""
OTEL_ALONE = f"""span = tracer.start_span('inference gpt-4', start_time={START_NS})
span.set_attribute('gen_ai.usage.input_tokens', 24)
span.set_attribute('gen_ai.usage.output_tokens', 100)
span.end({START_NS + DURATION_NS})"""


def batch(size: int) -> Loop:
    columns = f"""import numpy
start = numpy.full({size}, {START_NS})
duration = numpy.full({size}, {DURATION_NS})
input, output = numpy.full({size}, 24), numpy.full({size}, 100)"""
    return loop_of(BATCH, setup=columns, head=f"for _ in range(count // {size}):")


SIDES = (("native", contenders.native), ("pure", contenders.pure))
ROWS = [
    row
    for side, make in SIDES
    for row in (
        Row(f"{side}: with block", "for comparison; reads the clock", make, loop_of(BLOCK)),
        Row(f"{side}: record", "one call a span", make, loop_of(ALONE)),
        *(
            Row(
                f"{side}: record_batch of {size}",
                f"one call for {size}",
                make,
                batch(size),
                burst=SPANS_PER_BURST,
                bursts=2,
            )
            for size in SIZES
        ),
    )
]
ROWS.append(
    Row(
        "OpenTelemetry SDK",
        "start_span(start_time=), two attributes, end(end_time); exporter that only counts",
        contenders.OpenTelemetry,
        loop_of(OTEL_ALONE),
    )
)


def measure(folder: Path, fast: bool) -> Answer:
    rounds, values = (2, 2) if fast else (5, 5)
    with running_receiver() as addresses:
        seconds = measure_rows(
            "bench.batch_cost", ROWS, folder, rounds=rounds, values=values, addresses=addresses
        )
    tables = table(
        ["", "work", "µs per span", "rounds, µs"],
        [[row.name, row.work, *median_and_spread(seconds[row.name], 1e6)] for row in ROWS],
    )
    measured = [value * 1e6 for value in seconds[f"native: record_batch of {BUDGET_SIZE}"]]
    what = f"span in record_batch of {BUDGET_SIZE}, native"
    verdicts = [verdict(what, measured, "µs", at_most=BUDGET_US)]
    return Answer({"rounds": rounds, "seconds": seconds}, tables, verdicts)


if __name__ == "__main__":
    time_rows("bench.batch_cost", ROWS)
