"""The names that `conventions="otel"` writes are those of OpenTelemetry's own models.

The models are those of `opentelemetry-semantic-conventions`, which the SDK brings.
"""

from __future__ import annotations

from typing import Any, Final

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as model
from opentelemetry.semconv.attributes import error_attributes

from infertrace import Tracer
from otlp_receiver import GrpcOtlpReceiver

# What inference engines write; no model has them. docs/otlp.md lists them.
OF_ENGINES: Final = {
    "gen_ai.latency.e2e",
    "gen_ai.latency.time_in_queue",
    "gen_ai.latency.time_to_first_token",
}
MODELS: Final = {
    value
    for value in vars(model).values()
    if isinstance(value, str) and value.startswith("gen_ai.")
}
REPLACED: Final = {
    model.GEN_AI_SYSTEM,
    model.GEN_AI_PROMPT,
    model.GEN_AI_COMPLETION,
    model.GEN_AI_USAGE_PROMPT_TOKENS,
    model.GEN_AI_USAGE_COMPLETION_TOKENS,
}
OPERATIONS: Final = {value.value for value in model.GenAiOperationNameValues}
# By name; what is an integer there is no double here.
TYPES: Final = {
    model.GEN_AI_OPERATION_NAME: "string_value",
    model.GEN_AI_PROVIDER_NAME: "string_value",
    model.GEN_AI_REQUEST_MODEL: "string_value",
    model.GEN_AI_REQUEST_STREAM: "bool_value",
    model.GEN_AI_RESPONSE_FINISH_REASONS: "array_value",
    model.GEN_AI_RESPONSE_ID: "string_value",
    model.GEN_AI_RESPONSE_MODEL: "string_value",
    model.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: "double_value",
    model.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: "int_value",
    model.GEN_AI_USAGE_INPUT_TOKENS: "int_value",
    model.GEN_AI_USAGE_OUTPUT_TOKENS: "int_value",
    model.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: "int_value",
}
EVERYTHING: Final[dict[str, Any]] = {
    "model_version": "2.1",
    "batch_size": 8,
    "input_tokens": 24,
    "output_tokens": 100,
    "cached_input_tokens": 3,
    "reasoning_output_tokens": 5,
    "framework": "openai",
    "sequence_length": 512.5,
    "cache_hit_rate": 0.5,
    "pipeline_stage": "inference",
    "queue_depth": 3,
    "queue_wait_time_ms": 1.5,
    "batch_fill_ratio": 0.5,
    "time_to_first_token_ms": 12.25,
    "inter_token_latency_ms": 2.125,
    "request_id": "chatcmpl-1",
    "finish_reason": "stop",
}


@pytest.fixture
def receiver() -> Any:
    found = GrpcOtlpReceiver()
    yield found
    found.stop()


@pytest.fixture
def tracer(new_tracer: Any, receiver: Any) -> Any:
    return new_tracer(receiver.endpoint, protocol="otlp/grpc", conventions="otel")


def exported(tracer: Tracer, receiver: GrpcOtlpReceiver) -> Span:
    assert tracer.flush(30)
    (span,) = receiver.spans
    return span


def kinds(span: Span) -> dict[str, str | None]:
    """The type of each attribute."""
    return {it.key: it.value.WhichOneof("value") for it in span.attributes}


def texts(span: Span) -> dict[str, str]:
    return {it.key: it.value.string_value for it in span.attributes}


def record(tracer: Any, *operation: str, **fields: Any) -> None:
    tracer.record("gpt-4", *operation, start_ns=10**18, duration_ns=10**9, **fields)


def test_each_name_is_one_of_the_model(tracer: Any, receiver: GrpcOtlpReceiver) -> None:
    record(tracer, **EVERYTHING)
    found = kinds(exported(tracer, receiver))
    names = {name for name in found if name.startswith("gen_ai.")}
    assert names == TYPES.keys() | OF_ENGINES
    assert names - OF_ENGINES <= MODELS - REPLACED
    assert {name: found[name] for name in TYPES} == TYPES
    assert {found[name] for name in OF_ENGINES} == {"double_value"}
    others = found.keys() - names
    assert all(name.startswith("infertrace.") for name in others), others


@pytest.mark.parametrize(
    "fields", [{}, {"input_tokens": 24}, {"time_to_first_token_ms": 12.25}, EVERYTHING]
)
def test_what_a_span_has_to_have(
    tracer: Any, receiver: GrpcOtlpReceiver, fields: dict[str, Any]
) -> None:
    record(tracer, **fields)
    span = exported(tracer, receiver)
    found = texts(span)
    operation = found[model.GEN_AI_OPERATION_NAME]
    # Nothing says what a span without tokens does; the model allows names of one's own.
    assert operation in (OPERATIONS if fields else {"inference"})
    assert found[model.GEN_AI_REQUEST_MODEL] == "gpt-4"
    assert found.get(model.GEN_AI_PROVIDER_NAME) == fields.get("framework")
    assert span.name == f"{operation} gpt-4"


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_an_operation_of_the_model(tracer: Any, receiver: GrpcOtlpReceiver, operation: str) -> None:
    """The span keeps the name that its author gave it."""
    record(tracer, operation, input_tokens=24)
    span = exported(tracer, receiver)
    assert texts(span)[model.GEN_AI_OPERATION_NAME] == span.name == operation


def test_an_error_has_a_type(tracer: Any, receiver: GrpcOtlpReceiver) -> None:
    record(tracer, status="ERROR", status_message="out of memory")
    found = texts(exported(tracer, receiver))
    assert found[error_attributes.ERROR_TYPE] == error_attributes.ErrorTypeValues.OTHER.value


def test_the_models_judge() -> None:
    assert "gen_ai.usage.input_tokens" in MODELS
    assert not OF_ENGINES & MODELS
