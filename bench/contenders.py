"""The tracers that are compared, each with the code that makes a span of the same content.

The content: a span of model gpt-4 around the timed block, with the batch size and the
numbers of input and output tokens.
"""

from __future__ import annotations

import os
from typing import Any

FLUSH_TIMEOUT_S = 30
SERVICE, MODEL, OPERATION = "bench", "gpt-4", "inference"
BATCH_SIZE, INPUT_TOKENS, OUTPUT_TOKENS = 8, 24, 100


class Contender:
    """Traces nothing. The timed loop gets `tracer`."""

    tracer: Any = None
    start = "nullcontext()"
    """Makes the span, which a `with` statement then enters."""
    values = "pass"
    """Sets the values on `span`."""

    def flush(self) -> None:
        """Deliver what was recorded."""

    def settle(self) -> None:
        """The same; raises if a span is lost, as far as the tracer knows."""
        self.flush()

    def delivered(self) -> int:
        """How many spans left this process, as far as the tracer knows."""
        return 0

    def lost(self) -> int | None:
        """How many spans it counts as lost; None if it keeps no count."""
        return None


class Infertrace(Contender):
    """With its exporter, which delivers to the receiver in another process."""

    start = "tracer.start_span('gpt-4')"
    values = "span.set_batch_size(8)\nspan.set_tokens(input=24, output=100)"

    def __init__(self, backend: str, **settings: Any) -> None:
        os.environ["INFERTRACE_BACKEND"] = backend
        import infertrace

        if backend != infertrace.BACKEND:
            raise RuntimeError(f"the {backend} backend was asked for, {infertrace.BACKEND} runs")
        self.tracer = infertrace.Tracer(service_name=SERVICE, **settings)

    def flush(self) -> None:
        self.tracer.flush(FLUSH_TIMEOUT_S)

    def settle(self) -> None:
        self.flush()
        stats = self.tracer.stats()
        if not stats["produced"] == stats["delivered"] > 0:
            raise RuntimeError(f"not every span was delivered: {stats}")

    def delivered(self) -> int:
        return int(self.tracer.stats()["delivered"])

    def lost(self) -> int:
        return sum(self.tracer.stats()["dropped"].values())


class InfertraceSilent(Infertrace):
    """Switched off, or sampling nothing."""

    def settle(self) -> None:
        if self.tracer.stats()["produced"]:
            raise RuntimeError(f"a span was recorded: {self.tracer.stats()}")


class OpenTelemetry(Contender):
    """Its SDK with the batch processor; the model is in the name, the rest are attributes.

    The exporter only counts, or it sends OTLP over gRPC to the receiver.
    """

    start = "tracer.start_as_current_span('inference gpt-4')"
    values = (
        "span.set_attribute('infertrace.batch_size', 8)\n"
        "span.set_attribute('gen_ai.usage.input_tokens', 24)\n"
        "span.set_attribute('gen_ai.usage.output_tokens', 100)"
    )

    def __init__(self, *, sending: bool = False) -> None:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import (
            BatchSpanProcessor,
            SpanExporter,
            SpanExportResult,
        )

        inner: SpanExporter | None = None
        if sending:
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

            inner = OTLPSpanExporter(insecure=True)

        class CountingExporter(SpanExporter):
            exported = 0

            def export(self, spans: Any) -> SpanExportResult:
                result = inner.export(spans) if inner else SpanExportResult.SUCCESS
                if result is SpanExportResult.SUCCESS:
                    self.exported += len(spans)
                return result

        self.exporter = CountingExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(BatchSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("bench")

    def flush(self) -> None:
        self.provider.force_flush()

    def delivered(self) -> int:
        return self.exporter.exported


class OpenTelemetryNoOp(Contender):
    start, values = OpenTelemetry.start, OpenTelemetry.values

    def __init__(self) -> None:
        from opentelemetry.trace import NoOpTracerProvider

        self.tracer = NoOpTracerProvider().get_tracer("bench")


class Datadog(Contender):
    """With its own writer, which sends to a stand-in for its agent in another process."""

    start = "tracer.trace('inference', resource='gpt-4')"
    values = (
        "span.set_metric('infertrace.batch_size', 8)\n"
        "span.set_metric('gen_ai.usage.input_tokens', 24)\n"
        "span.set_metric('gen_ai.usage.output_tokens', 100)"
    )

    def __init__(self) -> None:
        from ddtrace.trace import tracer

        self.tracer = tracer

    def flush(self) -> None:
        self.tracer.flush()


class Floor(Contender):
    """The minimum cost of such a span: see floor.pyx."""

    start, values = Infertrace.start, Infertrace.values

    def __init__(self) -> None:
        from bench.floor_extension import load

        self.tracer = load().Tracer()


def recorded(contender: type[Contender]) -> str:
    """The statement that records one span."""
    values = contender.values.replace("\n", "\n    ")
    return f"with {contender.start} as span:\n    {values}"


def native(**settings: Any) -> Infertrace:
    return Infertrace("native", **settings)


def pure(**settings: Any) -> Infertrace:
    return Infertrace("pure", **settings)


def off() -> InfertraceSilent:
    return InfertraceSilent("native", enabled=False)


def unsampled() -> InfertraceSilent:
    return InfertraceSilent("native", sample_rate=0.0)
