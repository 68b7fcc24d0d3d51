"""OpenTelemetry's spans through our buffer, spool and ledger.

    OTEL_TRACES_EXPORTER=infertrace opentelemetry-instrument python app.py
    provider.add_span_processor(InfertraceSpanProcessor())

Each span that comes here is counted in the ledger, and delivered or dropped for a reason. With the
processor, and with the variable, that is each span that ends: the batches of OpenTelemetry's own
processor, which another exporter is behind, drop spans uncounted when their queue is full or a
signal ends the process.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from infertrace.external_span import record_encoded
from infertrace.integrations.opentelemetry_spans import encode
from infertrace.integrations.other_instrumentation import note_road
from infertrace.integrations.switch import logger
from infertrace.tracer import Tracer

_MS_PER_S = 1000
_TIMEOUT_MS = 30_000


class InfertraceSpanExporter(SpanExporter):
    """Puts finished spans into the buffer of a tracer; never waits for the collector.

    tracer: default one for each resource, which has its attributes and is otherwise configured by
        the environment.
    """

    def __init__(self, tracer: Tracer | None = None) -> None:
        self._given = tracer
        self._tracers: dict[Resource, Tracer] = {}
        self._lock = threading.Lock()
        self._has_failed = False
        note_road()

    @property
    def tracers(self) -> tuple[Tracer, ...]:
        """Those that it has used; their `stats()` are the ledger."""
        return (self._given,) if self._given else tuple(self._tracers.values())

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        for span in spans:
            self.record(span)
        return SpanExportResult.SUCCESS

    def record(self, span: ReadableSpan) -> None:
        """One span; never raises."""
        try:
            tracer = self._given or self._tracer_of(span.resource)
            record_encoded(tracer, encode(span))
        except Exception as error:
            # Only a tracer that cannot be made comes here: `encode` takes what it is given.
            if not self._has_failed:
                self._has_failed = True
                logger.warning("opentelemetry: spans are lost (%r)", error)

    def _tracer_of(self, resource: Resource) -> Tracer:
        tracer = self._tracers.get(resource)
        if tracer is None:
            with self._lock:
                tracer = self._tracers.get(resource)
                if tracer is None:
                    tracer = self._tracers[resource] = _new_tracer(resource.attributes)
        return tracer

    def force_flush(self, timeout_millis: int = _TIMEOUT_MS) -> bool:
        delivered = [tracer.flush(timeout_millis / _MS_PER_S) for tracer in self.tracers]
        return all(delivered)

    def shutdown(self) -> None:
        """Deliver what it has; a tracer that was given goes on."""
        for tracer in self._tracers.values():
            tracer.flush(tracer._settings.exit_timeout_s)


class InfertraceSpanProcessor(SpanProcessor):
    """The same for each sampled span at the moment of its end, without a queue in between."""

    def __init__(self, tracer: Tracer | None = None) -> None:
        self.exporter = InfertraceSpanExporter(tracer)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        pass

    def on_end(self, span: ReadableSpan) -> None:
        context = span.context
        if context is not None and context.trace_flags.sampled:
            self.exporter.record(span)

    def shutdown(self) -> None:
        self.exporter.shutdown()

    def force_flush(self, timeout_millis: int = _TIMEOUT_MS) -> bool:
        return self.exporter.force_flush(timeout_millis)


class ImmediateSpanExporter(InfertraceSpanExporter):
    """What OTEL_TRACES_EXPORTER=infertrace names: spans come at their end, and wait in no queue.

    OpenTelemetry puts an exporter that a variable names behind its batch processor. The provider
    that it does this for is already the program's, and gets a processor of ours as well; what then
    comes out of the queue has come before.
    """

    def __init__(self) -> None:
        super().__init__()
        provider = trace.get_tracer_provider()
        self._has_processor = isinstance(provider, TracerProvider)
        if isinstance(provider, TracerProvider):
            provider.add_span_processor(_AtOnce(self))

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS if self._has_processor else super().export(spans)


class _AtOnce(InfertraceSpanProcessor):
    def __init__(self, exporter: InfertraceSpanExporter) -> None:
        self.exporter = exporter

    def shutdown(self) -> None:
        """That of the batch processor shuts the exporter down."""


def span_processors() -> list[SpanProcessor]:
    """For Ray Serve, which calls what RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH names."""
    return [InfertraceSpanProcessor()]


def _new_tracer(attributes: Mapping[str, Any]) -> Tracer:
    texts = {key: str(value) for key, value in attributes.items()}
    name = texts.pop("service.name", "")
    known = name and not name.startswith("unknown_service")
    return Tracer(service_name=name if known else None, resource_attributes=texts)
