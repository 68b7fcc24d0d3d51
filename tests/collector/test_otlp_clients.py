"""The exporters of the OpenTelemetry SDK send to a collector: through outages too."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from collector_process import CollectorProcess
from lasting_address import lasting_address

EXPORTERS: dict[str, Callable[[CollectorProcess], SpanExporter]] = {
    "grpc": lambda collector: GrpcExporter(endpoint=f"http://{collector.endpoint}", insecure=True),
    "http": lambda collector: HttpExporter(endpoint=f"http://{collector.otlp_http}/v1/traces"),
    "http-gzip": lambda collector: HttpExporter(
        endpoint=f"http://{collector.otlp_http}/v1/traces", compression=Compression.Gzip
    ),
    "http-root": lambda collector: HttpExporter(endpoint=f"http://{collector.otlp_http}"),
}


class Collectors:
    """One collector after another on the same addresses and the same store."""

    def __init__(self, store: str) -> None:
        self._store = store
        self._addresses = (lasting_address(), lasting_address())
        self.running = self.start()

    def start(self) -> CollectorProcess:
        grpc_address, otlp_http = self._addresses
        self.running = CollectorProcess(self._store, grpc_address, otlp_http)
        return self.running


@pytest.fixture
def collectors(tmp_path: Path) -> Iterator[Collectors]:
    found = Collectors(f"duckdb:///{tmp_path / 'spans.duckdb'}")
    yield found
    found.running.kill()


@pytest.fixture(
    params=[
        pytest.param(name, marks=[] if name in ("grpc", "http") else [pytest.mark.nightly])
        for name in EXPORTERS
    ]
)
def exporter(request: pytest.FixtureRequest, collectors: Collectors) -> Iterator[SpanExporter]:
    found = EXPORTERS[request.param](collectors.running)
    yield found
    found.shutdown()


def finished_spans(count: int) -> list[ReadableSpan]:
    memory = InMemorySpanExporter()
    resource = Resource.create({"service.name": "chat-app", "service.instance.id": "one"})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    tracer = provider.get_tracer("test")
    for number in range(count):
        with tracer.start_as_current_span(f"chat {number % 5}") as span:
            span.set_attribute("gen_ai.request.model", "gpt-4")
            span.set_attribute("number", number)
    return list(memory.get_finished_spans())


def ids(spans: list[ReadableSpan]) -> set[str]:
    contexts = [span.get_span_context() for span in spans]
    return {f"{context.span_id:016x}" for context in contexts if context is not None}


def test_each_span_arrives(collectors: Collectors, exporter: SpanExporter) -> None:
    spans = finished_spans(300)
    assert exporter.export(spans) is SpanExportResult.SUCCESS
    found = collectors.running.spans()
    assert {span["span_id"] for span in found} == ids(spans)
    assert {span["service_name"] for span in found} == {"chat-app"}
    (account,) = collectors.running.producers()
    assert (account["stored"], account["numbered"], account["state"]) == (300, False, "active")


def test_what_was_acknowledged_outlasts_a_kill(
    collectors: Collectors, exporter: SpanExporter
) -> None:
    """The collector dies by SIGKILL in between; the exporter tries again by itself."""
    acknowledged: list[ReadableSpan] = []
    for round_ in range(6):
        if round_ in (2, 4):
            collectors.running.kill()
            collectors.start()
        spans = finished_spans(50)
        # An exporter gives up ten seconds after it began, and its pauses are random.
        for _ in range(3):
            if exporter.export(spans) is SpanExportResult.SUCCESS:
                acknowledged += spans
                break
    assert len(acknowledged) == 300
    stored = {span["span_id"] for span in collectors.running.spans()}
    assert ids(acknowledged) <= stored
    (account,) = collectors.running.producers()
    assert account["stored"] == len(stored)
    assert account["received"] == account["stored"] + account["duplicates"]


@pytest.mark.parametrize("kind", EXPORTERS)
def test_a_collector_that_starts_after_its_senders(collectors: Collectors, kind: str) -> None:
    exporter: Any = EXPORTERS[kind](collectors.running)
    collectors.running.kill()
    spans = finished_spans(20)
    with ThreadPoolExecutor(1) as thread:
        began = time.monotonic()
        sending = thread.submit(exporter.export, spans)
        collectors.start()
        result = sending.result(60)
        while result is not SpanExportResult.SUCCESS:
            assert time.monotonic() - began < 60
            result = exporter.export(spans)
    exporter.shutdown()
    assert {span["span_id"] for span in collectors.running.spans()} == ids(spans)
