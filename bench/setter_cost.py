"""What does each setter, tag, attribute and event add to a span?

The work: a span with that one call in its block, less the same span without it, encoding
included. Both alternate in one process. The tables of growth show whole spans.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench import contenders
from bench.contenders import Contender
from bench.harness import Answer, Row, measure_rows, ratios, time_rows, verdict
from bench.loops import Loop, loop_of
from bench.markdown import table, with_spread
from bench.receiver import running_receiver

CALLS = (
    "set_batch_size(8)",
    "set_tokens(input=24, output=100)",
    "set_queue(depth=3, wait_time_ms=1.5)",
    "set_streaming(time_to_first_token_ms=41.5, inter_token_latency_ms=7.25)",
    "set_sequence_length(512.0)",
    "set_cache_hit_rate(0.5)",
    "set_batch_fill_ratio(0.75)",
    "set_model_version('0613')",
    "set_framework('vllm')",
    "set_pipeline_stage('inference')",
    "set_tag('tenant', 'acme')",
    "set_attribute('text', 'value')",
    "set_attribute('truth', True)",
    "set_attribute('integer', 8)",
    "set_attribute('real', 0.5)",
    "add_event('token')",
    "add_event('token', {'index': 8})",
    "set_status('ERROR', 'out of memory')",
)
# Those of CALLS that OpenTelemetry has too, with the same name and meaning.
OTEL_CALLS = tuple(call for call in CALLS if call.startswith(("set_attribute", "add_event")))

FIVE_FIELDS = {
    "at start": """with tracer.start_span(
    'm', batch_size=8, queue_depth=3, input_tokens=24, output_tokens=100, framework='vllm'
):
    pass""",
    # One field per call, as the budget says; users mostly set both token counts in one call.
    "by five setters": """with tracer.start_span('m') as span:
    span.set_batch_size(8)
    span.set_queue(depth=3)
    span.set_tokens(input=24)
    span.set_tokens(output=100)
    span.set_framework('vllm')""",
    "by four setters": """with tracer.start_span('m') as span:
    span.set_batch_size(8)
    span.set_queue(depth=3)
    span.set_tokens(input=24, output=100)
    span.set_framework('vllm')""",
}

ATTRIBUTE_COUNTS = (0, 1, 4, 16, 64)
PAYLOAD_BYTES = (16, 256, 4096, 32768)
GROWING_BURST = 100  # this many spans of 32 KiB fit into the buffer of 8 MiB

NATIVE, PURE, OTEL = "native", "pure", "OpenTelemetry"
SIDES: dict[str, tuple[type[Contender], Callable[[], Contender]]] = {
    NATIVE: (contenders.Infertrace, contenders.native),
    PURE: (contenders.Infertrace, contenders.pure),
    OTEL: (contenders.OpenTelemetry, contenders.OpenTelemetry),
}


def block(side: str, *calls: str) -> Loop:
    body = "\n".join(f"    span.{call}" for call in calls) or "    pass"
    return loop_of(f"with {SIDES[side][0].start} as span:\n{body}")


def attributes(side: str, count: int) -> Loop:
    return block(side, *(f"set_attribute('key{i}', {i})" for i in range(count)))


def payload(side: str, size: int) -> Loop:
    return loop_of(
        f"with {SIDES[side][0].start} as span:\n    span.set_attribute('prompt', text)",
        text="x" * size,
    )


def _rows() -> list[Row]:
    rows = []
    for side, (_, make) in SIDES.items():
        bare = block(side)
        rows += [
            Row(f"{side}: {call}", "", make, block(side, call), bare, bursts=5)
            for call in (OTEL_CALLS if side == OTEL else CALLS)
        ]
        growing = {
            **{f"{count} attributes": attributes(side, count) for count in ATTRIBUTE_COUNTS},
            **{f"{size} bytes": payload(side, size) for size in PAYLOAD_BYTES},
        }
        rows += [
            Row(f"{side}: {name}", "", make, loop, burst=GROWING_BURST)
            for name, loop in growing.items()
        ]
        if side != OTEL:
            rows += [
                Row(f"{side}: {name}", "", make, loop_of(body), bursts=5)
                for name, body in FIVE_FIELDS.items()
            ]
    return rows


ROWS = _rows()


def measure(folder: Path, fast: bool) -> Answer:
    rounds, values = (1, 2) if fast else (3, 3)
    with running_receiver() as addresses:
        seconds = measure_rows(
            "bench.setter_cost", ROWS, folder, rounds=rounds, values=values, addresses=addresses
        )

    def cells(pattern: str) -> list[str]:
        names = [f"{side}: {pattern}" for side in SIDES]
        return [with_spread(seconds[name], 1e9, 0) if name in seconds else "" for name in names]

    def grown(counts: tuple[int, ...], what: str) -> list[list[str]]:
        return [[str(count), *cells(f"{count} {what}")] for count in counts]

    tables = "\n".join(
        table([f"{what}, ns (rounds)", *SIDES], rows)
        for what, rows in (
            ("added by one call", [[f"`{call}`", *cells(call)] for call in CALLS]),
            ("a span with N attributes", grown(ATTRIBUTE_COUNTS, "attributes")),
            ("a span with an ASCII text of N bytes", grown(PAYLOAD_BYTES, "bytes")),
            ("a span with five fields", [[name, *cells(name)] for name in FIVE_FIELDS]),
        )
    )
    verdicts = [
        verdict(
            f"five fields at start, {side}",
            ratios(seconds[f"{side}: at start"], seconds[f"{side}: by five setters"]),
            "x",
            at_most=1,
            of="the same by five setters",
        )
        for side in (NATIVE, PURE)
    ]
    return Answer({"rounds": rounds, "seconds": seconds}, tables, verdicts)


if __name__ == "__main__":
    time_rows("bench.setter_cost", ROWS)
