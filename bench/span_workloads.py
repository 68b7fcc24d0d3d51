"""What is timed to say what a span costs; a pyperf script, one process for each workload.

A value is the time that the recording thread needs for its bursts of spans. Between two
bursts, untimed, everything recorded is delivered, so that no buffer fills and no span is
dropped: a workload that loses one fails.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter, time_ns
from typing import Any, Protocol

import pyperf

# Fits into OpenTelemetry's default queue of 2048 spans, and into one batch of infertrace.
SPANS_PER_BURST = 1000
BURSTS_PER_VALUE = 10
CALLS_PER_VALUE = 200
FLUSH_TIMEOUT_S = 30
MODULE = "bench.span_workloads"

MODEL, OPERATION, SERVICE = "gpt-4", "inference", "bench"
BATCH_SIZE, INPUT_TOKENS, OUTPUT_TOKENS = 8, 24, 100


class Workload(Protocol):
    def record(self, spans: int) -> float:
        """Record so many spans; the seconds that took."""

    def settle(self) -> None:
        """Deliver what was recorded; raises when some of it is lost."""


def record_spans(tracer: Any, spans: int) -> float:
    start = perf_counter()
    for _ in range(spans):
        with tracer.start_span("gpt-4") as span:
            span.set_batch_size(8)
            span.set_tokens(input=24, output=100)
    return perf_counter() - start


class EmptyClass:
    """An empty `with` block on a Python class."""

    class Block:
        __slots__ = ()

        def __enter__(self) -> EmptyClass.Block:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    def record(self, spans: int) -> float:
        block = self.Block
        start = perf_counter()
        for _ in range(spans):
            with block():
                pass
        return perf_counter() - start

    def settle(self) -> None:
        pass


class Floor:
    """An empty Cython context manager with the same calls, and two clock reads."""

    def __init__(self) -> None:
        from bench.floor_extension import load

        self._tracer = load().Tracer()

    def record(self, spans: int) -> float:
        return record_spans(self._tracer, spans)

    def settle(self) -> None:
        pass


class Infertrace:
    """A tracer with its exporter, delivering to a gRPC server in another process."""

    def __init__(self, backend: str, **settings: Any) -> None:
        os.environ["INFERTRACE_BACKEND"] = backend
        import infertrace

        if backend != infertrace.BACKEND:
            raise RuntimeError(f"the {backend} backend was asked for, {infertrace.BACKEND} runs")
        self._tracer = infertrace.Tracer(service_name=SERVICE, **settings)
        self._recorded = 0

    def record(self, spans: int) -> float:
        self._recorded += spans
        return record_spans(self._tracer, spans)

    def settle(self) -> None:
        self._tracer.flush(FLUSH_TIMEOUT_S)
        self._expect(self._recorded)

    def _expect(self, spans: int) -> None:
        stats = self._tracer.stats()
        if not stats["produced"] == stats["delivered"] == spans:
            raise RuntimeError(f"not every span was delivered: {stats}")


class InfertraceSilent(Infertrace):
    """A tracer that records nothing."""

    def settle(self) -> None:
        self._expect(0)


class OpenTelemetry:
    """Its tracer, and the same values: the model is in the name, the rest are attributes."""

    def __init__(self) -> None:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import (
            BatchSpanProcessor,
            SpanExporter,
            SpanExportResult,
        )

        class NullExporter(SpanExporter):
            exported = 0

            def export(self, spans: Any) -> SpanExportResult:
                self.exported += len(spans)
                return SpanExportResult.SUCCESS

        self._exporter = NullExporter()
        self._provider = TracerProvider()
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer: Any = self._provider.get_tracer("bench")
        self._recorded = 0

    def record(self, spans: int) -> float:
        tracer = self._tracer
        self._recorded += spans
        start = perf_counter()
        for _ in range(spans):
            with tracer.start_as_current_span("inference gpt-4") as span:
                span.set_attribute("infertrace.batch_size", 8)
                span.set_attribute("gen_ai.usage.input_tokens", 24)
                span.set_attribute("gen_ai.usage.output_tokens", 100)
        return perf_counter() - start

    def settle(self) -> None:
        self._provider.force_flush()
        if self._exporter.exported != self._recorded:
            raise RuntimeError(f"{self._exporter.exported} of {self._recorded} spans exported")


class OpenTelemetryNoOp(OpenTelemetry):
    def __init__(self) -> None:
        from opentelemetry.trace import NoOpTracerProvider

        self._tracer = NoOpTracerProvider().get_tracer("bench")
        self._recorded = 0

    def settle(self) -> None:
        pass


def new_message(span_pb2: Any) -> Any:
    """The message that infertrace writes for such a span."""
    now = time_ns()
    return span_pb2.Span(
        trace_id=b"0123456789abcdef",
        span_id=b"01234567",
        service_name=SERVICE,
        operation_name=OPERATION,
        start_time_unix_nano=now,
        duration_nanos=time_ns() - now,
        status="OK",
        inference=span_pb2.InferenceContext(
            model_name=MODEL,
            batch_size=BATCH_SIZE,
            input_tokens=INPUT_TOKENS,
            output_tokens=OUTPUT_TOKENS,
        ),
    )


class Protobuf:
    """The protobuf runtime builds and serializes the same message; nothing is sent."""

    def __init__(self) -> None:
        from infertrace.generated import span_pb2

        self._span_pb2 = span_pb2

    def record(self, spans: int) -> float:
        span_pb2 = self._span_pb2
        start = perf_counter()
        for _ in range(spans):
            new_message(span_pb2).SerializeToString()
        return perf_counter() - start

    def settle(self) -> None:
        pass


class CallPerSpan:
    """One synchronous SendSpan call for each span, to a server in another process."""

    def __init__(self) -> None:
        import grpc

        from infertrace.generated import span_pb2, span_pb2_grpc

        self._span_pb2 = span_pb2
        self._channel = grpc.insecure_channel(os.environ["INFERTRACE_ENDPOINT"])
        self._send = span_pb2_grpc.CollectorServiceStub(self._channel).SendSpan
        self._accepted = True

    def record(self, spans: int) -> float:
        span_pb2, send, accepted = self._span_pb2, self._send, True
        start = perf_counter()
        for _ in range(spans):
            accepted &= send(span_pb2.SendSpanRequest(span=new_message(span_pb2))).accepted
        elapsed = perf_counter() - start
        self._accepted = accepted
        return elapsed

    def settle(self) -> None:
        if not self._accepted:
            raise RuntimeError("a span was not accepted")


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    work: str
    start: Callable[[], Workload]
    spans_per_burst: int = SPANS_PER_BURST
    bursts: int = BURSTS_PER_VALUE


ROWS = (
    Row("empty with, Python class", "make, enter, exit; no calls", EmptyClass),
    Row("floor", "Cython object, the same calls, two clock reads", Floor),
    Row(
        "infertrace native",
        "ids, clock, context, encoding; delivered over gRPC between bursts",
        lambda: Infertrace("native"),
    ),
    Row(
        "infertrace pure",
        "the same on the pure backend; encoded by the exporter between bursts",
        lambda: Infertrace("pure"),
    ),
    Row(
        "infertrace off",
        "native, enabled=False",
        lambda: InfertraceSilent("native", enabled=False),
    ),
    Row(
        "infertrace unsampled",
        "native, sample_rate=0",
        lambda: InfertraceSilent("native", sample_rate=0.0),
    ),
    Row(
        "OpenTelemetry SDK",
        "BatchSpanProcessor, exporter that only counts; three attributes",
        OpenTelemetry,
    ),
    Row("OpenTelemetry no-op", "NoOpTracer, the same calls", OpenTelemetryNoOp),
    Row("protobuf (upb)", "build and serialize the same message, fixed ids", Protobuf),
    Row(
        "one call per span",
        "build the message, SendSpan, wait for the answer",
        CallPerSpan,
        CALLS_PER_VALUE,
        1,
    ),
)


def time_bursts(row: Row) -> Callable[[int], float]:
    workload: Workload | None = None

    def run(loops: int) -> float:
        nonlocal workload
        if workload is None:  # only in the process that runs this row
            workload = row.start()
        elapsed = 0.0
        for _ in range(loops * row.bursts):
            elapsed += workload.record(row.spans_per_burst)
            workload.settle()
        return elapsed

    return run


def main() -> None:
    runner = pyperf.Runner(processes=1, values=10, warmups=2, loops=1, program_args=("-m", MODULE))
    for row in ROWS:
        runner.bench_time_func(
            row.name, time_bursts(row), inner_loops=row.spans_per_burst * row.bursts
        )


if __name__ == "__main__":
    main()
