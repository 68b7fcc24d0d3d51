"""Spans that name no model get that of their service, where it is known."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from infertrace.collector.ingest.otlp import default_models
from infertrace.collector.ingest.otlp.default_models import DefaultModels
from infertrace.collector.store.span_rows import span_rows
from infertrace.generated.span_pb2 import InferenceContext, Span


def span(service: str, model: str = "", **measured: Any) -> Span:
    return Span(
        trace_id=b"t" * 16,
        span_id=b"s" * 8,
        service_name=service,
        start_time_unix_nano=1,
        inference=InferenceContext(model_name=model, **measured),
    )


def models(defaults: DefaultModels, *spans: Span) -> list[str | None]:
    rows = defaults.fill(span_rows(spans))
    assert isinstance(rows, pa.RecordBatch)
    return [value.as_py() for value in rows.column("model_name")]


def test_what_was_given_comes_first() -> None:
    defaults = DefaultModels({"vllm": "given"})
    assert models(defaults, span("vllm", "named"), span("vllm", output_tokens=3)) == [
        "named",
        "given",
    ]


def test_the_only_model_that_a_service_named() -> None:
    defaults = DefaultModels()
    assert models(defaults, span("a", input_tokens=1)) == [None]
    assert models(defaults, span("a", "m"), span("b", "n")) == ["m", "n"]
    for _ in range(2):
        assert models(defaults, span("a", input_tokens=1), span("b", output_tokens=1)) == ["m", "n"]
    assert models(defaults, span("c", queue_wait_time_ms=1)) == [None]


def test_a_service_with_several_models_gets_none() -> None:
    defaults = DefaultModels()
    models(defaults, span("a", "m"))
    models(defaults, span("a", "n"))
    models(defaults, span("a", "m"))
    assert models(defaults, span("a", time_to_first_token_ms=1)) == [None]


def test_a_span_that_is_about_no_model_gets_none() -> None:
    defaults = DefaultModels({"a": "m"})
    assert models(defaults, span("a"), span("a", batch_size=3)) == [None, None]


def test_services_are_forgotten(monkeypatch: Any) -> None:
    monkeypatch.setattr(default_models, "MAX_SERVICES", 2)
    defaults = DefaultModels()
    for service in ("a", "b", "a", "c"):
        models(defaults, span(service, "m"))
    known = models(defaults, *(span(service, input_tokens=1) for service in "abc"))
    assert sorted(map(str, known)) == ["None", "m", "m"]
