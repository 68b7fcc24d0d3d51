"""What does a token of a request cost, a chunk of its stream, and a step with its members?

The work: that one call or step, less the same loop without it; both alternate in one process. A
chunk is one of a generator that yields a constant. A step is a `with` block around nothing, its
members are requests that have not ended, and each gets its step, a token and an interval. What
OpenTelemetry's SDK has for these is an event of a span, and links, of which it keeps 128.
"""

from __future__ import annotations

from pathlib import Path

from bench import contenders
from bench.harness import Answer, Row, measure_rows, time_rows, verdict
from bench.loops import loop_of
from bench.markdown import median_and_spread, table
from bench.receiver import running_receiver

TOKEN_BUDGET_US, CHUNK_BUDGET_US = 0.03, 0.05
STEP_BUDGET_US, MEMBER_BUDGET_US = 0.15, 0.012
MEMBERS = (0, 1, 16, 256)
MOST = MEMBERS[-1]
STEPS_PER_BURST = 500  # they fit into the buffer
TOKENS_PER_BURST = 10_000

# A contender wants a span delivered after each burst.
DELIVERED = "tracer.start_span('gpt-4').end()"
REQUEST = f"request = tracer.start_span('gpt-4')\n{DELIVERED}"
CHUNKS = """def generated():
    for _ in range(count):
        yield 1
chunks = generated()"""
STEP = f"""with tracer.start_step('gpt-4', decode=requests, capacity={MOST}):
    pass"""
LINKED = """with tracer.start_as_current_span('step gpt-4', links=[Link(it) for it in contexts]):
    pass"""

bare = loop_of("pass", setup=DELIVERED)
bare_chunks = loop_of("pass", setup=f"{DELIVERED}\n{CHUNKS}", head="for _ in chunks:")


def requests(count: int) -> str:
    return f"requests = [tracer.start_span('gpt-4') for _ in range({count})]"


def contexts(count: int) -> str:
    started = f"tracer.start_span('gpt-4').get_span_context() for _ in range({count})"
    return f"from opentelemetry.trace import Link\ncontexts = [{started}]"


def _rows() -> list[Row]:
    rows = []
    for side, make in (("native", contenders.native), ("pure", contenders.pure)):
        streamed = loop_of(
            "pass", setup=f"{REQUEST}\n{CHUNKS}", head="for _ in request.stream(chunks):"
        )
        rows += [
            Row(
                f"{side}: token",
                "request.token()",
                make,
                loop_of("request.token()", setup=REQUEST),
                bare,
                TOKENS_PER_BURST,
                3,
            ),
            Row(
                f"{side}: chunk",
                "for chunk in request.stream(chunks)",
                make,
                streamed,
                bare_chunks,
                TOKENS_PER_BURST,
                3,
            ),
            *(
                Row(
                    f"{side}: step of {members}",
                    f"tracer.start_step(), {members} members",
                    make,
                    loop_of(STEP, setup=requests(members)),
                    bare,
                    STEPS_PER_BURST,
                    3,
                )
                for members in MEMBERS
            ),
        ]
    event = "request.add_event('token')"
    rows += [
        Row(
            "OpenTelemetry SDK: event",
            event,
            contenders.OpenTelemetry,
            loop_of(event, setup=REQUEST),
            bare,
            STEPS_PER_BURST,
            3,
        ),
        Row(
            f"OpenTelemetry SDK: {MOST} links",
            f"a span with {MOST} links",
            contenders.OpenTelemetry,
            loop_of(LINKED, setup=contexts(MOST)),
            bare,
            STEPS_PER_BURST,
            3,
        ),
    ]
    return rows


ROWS = _rows()


def measure(folder: Path, fast: bool) -> Answer:
    rounds, values = (1, 2) if fast else (5, 5)
    with running_receiver() as addresses:
        seconds = measure_rows(
            "bench.request_cost", ROWS, folder, rounds=rounds, values=values, addresses=addresses
        )
    tables = table(
        ["", "work", "µs beyond the bare loop", "rounds, µs"],
        [[row.name, row.work, *median_and_spread(seconds[row.name], 1e6, 3)] for row in ROWS],
    )
    budgets = {
        "token": TOKEN_BUDGET_US,
        "chunk": CHUNK_BUDGET_US,
        f"step of {MOST}": STEP_BUDGET_US + MEMBER_BUDGET_US * MOST,
    }
    verdicts = [
        verdict(
            f"{name}, native",
            [value * 1e6 for value in seconds[f"native: {name}"]],
            "µs",
            at_most=budget,
        )
        for name, budget in budgets.items()
    ]
    return Answer({"rounds": rounds, "seconds": seconds}, tables, verdicts)


if __name__ == "__main__":
    time_rows("bench.request_cost", ROWS)
