"""What does one recorded span cost the thread that records it?

The work: start a span, set batch size and tokens, end it. Between two bursts, untimed,
everything is delivered; a row of infertrace's fails when a span is lost.
"""

from __future__ import annotations

import os
from pathlib import Path
from time import time_ns
from typing import Any

from bench import contenders, floor_extension
from bench.contenders import Contender, recorded
from bench.harness import Answer, Row, measure_rows, ratios, time_rows, verdict
from bench.loops import loop_of
from bench.markdown import median_and_spread, table
from bench.receiver import running_receiver

FLOOR, SDK, NO_OP = "floor", "OpenTelemetry SDK", "OpenTelemetry no-op"
NATIVE, PURE = "infertrace native", "infertrace pure"
OFF, UNSAMPLED = "infertrace off", "infertrace unsampled"


class EmptyBlock:
    __slots__ = ()

    def __enter__(self) -> EmptyBlock:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Protobuf(Contender):
    """The protobuf runtime; `tracer` builds the same message as infertrace writes."""

    def __init__(self) -> None:
        from infertrace.generated import span_pb2

        def new_message() -> Any:
            now = time_ns()
            return span_pb2.Span(
                trace_id=b"0123456789abcdef",
                span_id=b"01234567",
                service_name=contenders.SERVICE,
                operation_name=contenders.OPERATION,
                start_time_unix_nano=now,
                duration_nanos=time_ns() - now,
                status="OK",
                inference=span_pb2.InferenceContext(
                    model_name=contenders.MODEL,
                    batch_size=contenders.BATCH_SIZE,
                    input_tokens=contenders.INPUT_TOKENS,
                    output_tokens=contenders.OUTPUT_TOKENS,
                ),
            )

        self.tracer = new_message


class CallPerSpan(Protobuf):
    """`tracer` sends one span to the receiver and waits for the answer."""

    def __init__(self) -> None:
        import grpc

        from infertrace.generated import span_pb2, span_pb2_grpc

        super().__init__()
        new_message = self.tracer
        channel = grpc.insecure_channel(os.environ["INFERTRACE_ENDPOINT"])
        send = span_pb2_grpc.CollectorServiceStub(channel).SendSpan

        def send_span() -> None:
            if not send(span_pb2.SendSpanRequest(span=new_message())).accepted:
                raise RuntimeError("a span was not accepted")

        self.tracer = send_span


SPAN = loop_of(recorded(contenders.Infertrace))
OTEL_SPAN = loop_of(recorded(contenders.OpenTelemetry))

ROWS = (
    Row(
        "empty with, Python class",
        "make, enter, exit; no calls",
        Contender,
        loop_of("with EmptyBlock():\n    pass", EmptyBlock=EmptyBlock),
    ),
    Row(FLOOR, "Cython object, the same calls, two clock reads", contenders.Floor, SPAN),
    Row(
        NATIVE,
        "ids, clock, context, encoding; delivered over gRPC between bursts",
        contenders.native,
        SPAN,
    ),
    Row(
        PURE,
        "the same on the pure backend; packed by the exporter between bursts",
        contenders.pure,
        SPAN,
    ),
    Row(OFF, "native, enabled=False", contenders.off, SPAN),
    Row(UNSAMPLED, "native, sample_rate=0", contenders.unsampled, SPAN),
    Row(
        SDK,
        "BatchSpanProcessor, exporter that only counts; three attributes",
        contenders.OpenTelemetry,
        OTEL_SPAN,
    ),
    Row(NO_OP, "NoOpTracer, the same calls", contenders.OpenTelemetryNoOp, OTEL_SPAN),
    Row(
        "protobuf (upb)",
        "build and serialize the same message, fixed ids",
        Protobuf,
        loop_of("tracer().SerializeToString()"),
    ),
    Row(
        "one call per span",
        "build the message, SendSpan, wait for the answer",
        CallPerSpan,
        loop_of("tracer()"),
        burst=200,
        bursts=1,
    ),
)


def measure(folder: Path, fast: bool) -> Answer:
    floor_extension.build()
    rounds, values = (2, 3) if fast else (5, 10)
    with running_receiver() as addresses:
        seconds = measure_rows(
            "bench.span_cost", ROWS, folder, rounds=rounds, values=values, addresses=addresses
        )
    compared = {
        row.name: {
            "work": row.work,
            "seconds": seconds[row.name],
            "times_floor": ratios(seconds[row.name], seconds[FLOOR]),
            "times_less_than_sdk": ratios(seconds[SDK], seconds[row.name]),
            "times_less_than_no_op": ratios(seconds[NO_OP], seconds[row.name]),
        }
        for row in ROWS
    }
    tables = table(
        ["", "work", "µs per span", "rounds, µs", "x floor", "SDK ÷ it", "no-op ÷ it"],
        [
            [
                name,
                row["work"],
                *median_and_spread(row["seconds"], 1e6),
                median_and_spread(row["times_floor"], digits=2)[0],
                median_and_spread(row["times_less_than_sdk"], digits=2)[0],
                median_and_spread(row["times_less_than_no_op"], digits=2)[0],
            ]
            for name, row in compared.items()
        ],
    )
    native, pure = compared[NATIVE], compared[PURE]
    verdicts = [
        verdict("recorded span, native", native["times_floor"], "x", at_most=1.3, of="the floor"),
        verdict(
            "recorded span, native",
            native["times_less_than_sdk"],
            "x",
            at_least=60,
            of="less than OpenTelemetry's SDK",
        ),
        verdict(
            "recorded span, native",
            native["times_less_than_no_op"],
            "x",
            at_least=9,
            of="less than OpenTelemetry's no-op",
        ),
        verdict(
            "recorded span, pure",
            pure["times_less_than_sdk"],
            "x",
            at_least=12,
            of="less than OpenTelemetry's SDK",
        ),
        *(
            verdict(
                f"span {name.removeprefix('infertrace ')}",
                compared[name]["times_floor"],
                "x",
                at_most=0.8,
                of="the floor",
            )
            for name in (OFF, UNSAMPLED)
        ),
    ]
    return Answer(
        {"rounds": rounds, "values_per_round": values, "rows": compared}, tables, verdicts
    )


if __name__ == "__main__":
    time_rows("bench.span_cost", ROWS)
