"""What answers say of spans that came as OTLP: where fields are from, what is counted once."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from collector_client import Client, NewSpan
from infertrace.collector.query.explanation import DEFAULT_MODEL, RECORDED
from infertrace.generated.span_pb2 import AttributeValue, Event, InferenceContext, Span, SpanKind

TRACE = os.urandom(16)
FOREIGN: dict[str, Any] = {"scope_name": "vllm.tracing.otel", "kind": SpanKind.SPAN_KIND_SERVER}


def text(value: str) -> AttributeValue:
    return AttributeValue(string_value=value)


def test_which_attribute_a_field_came_from(client: Client, new_span: NewSpan) -> None:
    start_ns = time.time_ns()
    span = new_span(
        trace_id=TRACE,
        start_time_unix_nano=start_ns,
        duration_nanos=10**9,
        scope_name="opentelemetry.instrumentation.openai.v1",
        attributes={
            "gen_ai.request.model": text("asked"),
            "gen_ai.response.model": text("given"),
            "gen_ai.usage.prompt_tokens": AttributeValue(int_value=7),
            "gen_ai.latency.time_in_queue": AttributeValue(double_value=0.1),
        },
        events=[Event(time_unix_nano=start_ns + 3 * 10**8, name="First Token Stream Event")],
        inference=InferenceContext(
            model_name="given",
            input_tokens=7,
            batch_size=3,
            time_to_first_token_ms=300,
            queue_wait_time_ms=100,
        ),
    )
    client.send(span)
    (found,) = client.get(f"/traces/{TRACE.hex()}", explain="1")["spans"]
    assert found["explain"] == {
        "model_name": "attribute gen_ai.response.model",
        "input_tokens": "attribute gen_ai.usage.prompt_tokens",
        "time_to_first_token_ms": "event First Token Stream Event, after the start",
        "queue_wait_time_ms": "attribute gen_ai.latency.time_in_queue",
        "batch_size": RECORDED,
    }
    (plain,) = client.get(f"/traces/{TRACE.hex()}", explain="0")["spans"]
    assert "explain" not in plain
    status, error = client.error(f"/traces/{TRACE.hex()}", explain="yes")
    assert (status, error) == (400, "explain: expected 0 or 1, got 'yes'")


def test_a_model_that_no_attribute_says(client: Client, new_span: NewSpan) -> None:
    client.send(new_span(trace_id=TRACE, **FOREIGN))
    (found,) = client.get(f"/traces/{TRACE.hex()}", explain="1")["spans"]
    assert found["explain"] == {"model_name": DEFAULT_MODEL}


def member(new_span: NewSpan, number: int, parent: int = 0, **fields: Any) -> Span:
    tokens = {
        name: fields.pop(name)
        for name in ("input_tokens", "output_tokens", "request_id")
        if name in fields
    }
    return new_span(
        trace_id=TRACE,
        span_id=number.to_bytes(8, "big"),
        parent_span_id=parent.to_bytes(8, "big") if parent else b"",
        inference=InferenceContext(model_name="gpt-4", **tokens),
        **fields,
    )


def totals_of(client: Client) -> dict[str, int]:
    found = client.get(f"/traces/{TRACE.hex()}")["totals"]
    assert "each request once" in found.pop("counted")
    return dict(found)


def test_client_and_engine_tell_of_one_request(client: Client, new_span: NewSpan) -> None:
    client.send(
        member(new_span, 1),
        member(new_span, 2, 1, input_tokens=7, output_tokens=20),
        member(new_span, 3, 2),
        member(new_span, 4, 3, input_tokens=7, output_tokens=20, request_id="a", **FOREIGN),
    )
    assert totals_of(client) == {"requests": 1, "input_tokens": 7, "output_tokens": 20}


def test_two_choices_of_one_request(client: Client, new_span: NewSpan) -> None:
    start_ns = time.time_ns()
    choices = {"input_tokens": 8, "request_id": "a", "start_time_unix_nano": start_ns, **FOREIGN}
    client.send(
        member(new_span, 1),
        member(new_span, 2, 1, output_tokens=12, **choices),
        member(new_span, 3, 1, output_tokens=10, **choices),
        member(
            new_span, 4, 1, output_tokens=1, **{**choices, "start_time_unix_nano": start_ns + 9}
        ),
    )
    assert totals_of(client) == {"requests": 2, "input_tokens": 16, "output_tokens": 23}


def test_parents_in_a_circle(client: Client, new_span: NewSpan) -> None:
    client.send(
        member(new_span, 1, 2, input_tokens=1), member(new_span, 2, 1), member(new_span, 3, 3)
    )
    assert totals_of(client) == {"requests": 1, "input_tokens": 1, "output_tokens": 0}


def test_a_trace_without_tokens_has_no_totals(client: Client, new_span: NewSpan) -> None:
    client.send(member(new_span, 1))
    assert "totals" not in client.get(f"/traces/{TRACE.hex()}")


@pytest.mark.parametrize("operation", [None, "*"])
def test_a_models_tokens_count_once_in_a_trace(
    client: Client, new_span: NewSpan, operation: str | None
) -> None:
    """Of the services that tell of a call by OTLP, the one that tells most."""
    start_ns = time.time_ns() - 10**9
    times = {"start_time_unix_nano": start_ns, "duration_nanos": 10**9}
    client.send(
        member(new_span, 1, service_name="app", kind=SpanKind.SPAN_KIND_CLIENT, **times),
        member(new_span, 2, 1, output_tokens=22, service_name="app", **FOREIGN, **times),
        member(new_span, 3, 2, output_tokens=12, service_name="engine", **FOREIGN, **times),
        member(new_span, 4, 2, output_tokens=10, service_name="engine", **FOREIGN, **times),
        new_span(inference=InferenceContext(output_tokens=5), **times),
    )
    chosen = {} if operation is None else {"operation": operation}
    (model,) = client.get("/models", **chosen)
    assert model["tokens_per_second"] == pytest.approx(27)
    assert model["sample_count"] == 5
    series = client.get("/models/gpt-4/series", metric="tokens_per_second", step="1s", **chosen)
    assert sum(point["value"] or 0 for point in series["points"]) == pytest.approx(27)
    assert sum(point["sample_count"] for point in series["points"]) == 5
