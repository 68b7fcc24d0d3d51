"""Our spans as OTLP's bytes: both translators write the same, and the protobuf runtime reads it."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from drawn_fields import intervals
from drawn_otlp_spans import ATTRIBUTES, encode, entries, envelope, scalar, spans
from infertrace import backend as backends
from infertrace.generated import span_pb2
from infertrace.generated.otlp_attributes import CONVENTIONS, INFERENCE_FIELDS, RESOURCE_FIELDS
from infertrace.otlp import conventions, translator_choice
from infertrace.otlp.rejection_reasons import REASONS
from infertrace.otlp.translated import Translated
from infertrace.otlp.translator_choice import Translator
from infertrace.wire.protobuf import delimited, varint

START_NS = 1_700_000_000_000_000_000
SPAN: dict[str, Any] = {
    "trace_id": bytes(range(16)),
    "span_id": bytes(range(8)),
    "operation_name": "inference",
    "start_time_unix_nano": START_NS,
    "duration_nanos": 1_500_000_000,
    "status": "OK",
}
MODEL = {**SPAN, "inference": span_pb2.InferenceContext(model_name="gpt-4")}
OTEL = conventions.bits(["otel"])


def translators() -> list[Translator]:
    names = ["native", "pure"] if backends.selected.NAME == "native" else ["pure"]
    return [translator_choice.select(name) for name in names]


def translated(raw: bytes, bits: int = OTEL) -> Translated:
    """What all translators make of it, which is the same."""
    found = {it.translate(raw, bits, b"infertrace", b"1.2") for it in translators()}
    assert len(found) == 1
    return found.pop()


def read(raw: bytes, bits: int = OTEL) -> ExportTraceServiceRequest:
    return ExportTraceServiceRequest.FromString(translated(raw, bits).request)


def one(span: dict[str, Any], bits: int = OTEL) -> Span:
    (group,) = read(envelope(encode(span)), bits).resource_spans
    return group.scope_spans[0].spans[0]


def plain(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(it) for it in value.array_value.values]
    if kind == "kvlist_value":
        return attributes_of(value.kvlist_value.values)
    return getattr(value, kind) if kind else None


def attributes_of(pairs: Any) -> dict[str, Any]:
    found: list[KeyValue] = list(pairs)
    assert len({it.key for it in found}) == len(found)
    return {it.key: plain(it.value) for it in found}


def attributes(span: dict[str, Any], bits: int = OTEL) -> dict[str, Any]:
    return attributes_of(one(span, bits).attributes)


def test_a_typical_span() -> None:
    inference = span_pb2.InferenceContext(
        model_name="gpt-4", batch_size=8, input_tokens=24, output_tokens=100, framework="vllm"
    )
    span = one({**SPAN, "inference": inference})
    assert span.name == "text_completion gpt-4"
    assert span.kind == Span.SPAN_KIND_INTERNAL
    assert span.end_time_unix_nano - span.start_time_unix_nano == 1_500_000_000
    assert not span.HasField("status")
    assert attributes_of(span.attributes) == {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "gpt-4",
        "gen_ai.response.model": "gpt-4",
        "gen_ai.usage.input_tokens": 24,
        "gen_ai.usage.output_tokens": 100,
        "infertrace.batch_size": 8,
        "infertrace.operation_name": "inference",
    }


def test_a_stream() -> None:
    inference = span_pb2.InferenceContext(
        model_name="m", time_to_first_token_ms=250, queue_wait_time_ms=125
    )
    found = attributes({**SPAN, "inference": inference})
    assert found["gen_ai.request.stream"] is True
    assert found["gen_ai.response.time_to_first_chunk"] == 0.25
    assert found["gen_ai.latency.time_to_first_token"] == 0.25
    assert found["gen_ai.latency.time_in_queue"] == 0.125
    assert found["gen_ai.latency.e2e"] == 1.5


@pytest.mark.parametrize(
    ("changes", "name", "operation"),
    [
        ({}, "inference gpt-4", "inference"),
        ({"operation_name": "embeddings"}, "embeddings", "embeddings"),
        ({"operation_name": ""}, "inference gpt-4", "inference"),
        ({"scope_name": "vllm"}, "inference", "inference"),
        ({"inference": span_pb2.InferenceContext()}, "inference", None),
    ],
)
def test_names(changes: dict[str, Any], name: str, operation: str | None) -> None:
    span = one({**MODEL, **changes})
    found = attributes_of(span.attributes)
    assert (span.name, found.get("gen_ai.operation.name")) == (name, operation)


@pytest.mark.parametrize(
    ("changes", "code", "expected"),
    [
        ({}, 0, {}),
        ({"status_code": 1}, 1, {}),
        ({"status": "ERROR", "status_code": 2}, 2, {}),
        ({"status": "ERROR"}, 2, {"error.type": "_OTHER"}),
        (
            {"status": "CANCELLED"},
            2,
            {"error.type": "cancelled", "infertrace.status": "CANCELLED"},
        ),
        (
            {
                "status": "ERROR",
                "events": [
                    (1, "exception", {"exception.type": "KeyError"}, 0),
                    (2, "exception", {"exception.message": "x", "exception.type": "OSError"}, 0),
                    (3, "other", {"exception.type": "None"}, 0),
                ],
            },
            2,
            {"error.type": "OSError"},
        ),
    ],
)
def test_statuses(changes: dict[str, Any], code: int, expected: dict[str, Any]) -> None:
    span = one({**SPAN, **changes, "status_message": "why"})
    assert (span.status.code, span.status.message) == (code, "why")
    assert attributes_of(span.attributes) == expected


@pytest.mark.parametrize(
    ("kind", "flags", "expected"), [(0, 0, 1), (0, 0x101, 1), (0, 0x301, 2), (3, 0x301, 3)]
)
def test_kinds(kind: int, flags: int, expected: int) -> None:
    span = one({**SPAN, "kind": kind, "flags": flags})
    assert (span.kind, span.flags) == (expected, flags)


def test_what_the_user_has_set_wins() -> None:
    given_attributes = {"gen_ai.request.model": "mine", "both": 1}
    span = one({**MODEL, "tags": {"both": "tag", "t": "x"}, "attributes": given_attributes})
    found = attributes_of(span.attributes)
    assert found["gen_ai.request.model"] == "mine"
    assert found["gen_ai.response.model"] == "gpt-4"
    assert (found["both"], found["t"]) == (1, "x")


def test_many_attributes_with_a_key_of_ours_among_them() -> None:
    given_attributes = {f"key {number}": number for number in range(500)}
    found = attributes({**MODEL, "attributes": {**given_attributes, "gen_ai.request.model": "x"}})
    assert found["gen_ai.request.model"] == "x"
    assert len(found) == 500 + 4


def restored(name: str, read_as: str, found: dict[str, Any]) -> Any:
    """The field as a reader of the attributes restores it, which knows the names of `otel`."""
    in_seconds = {
        "time_to_first_token_ms": "gen_ai.response.time_to_first_chunk",
        "queue_wait_time_ms": "gen_ai.latency.time_in_queue",
    }
    alike = {
        "model_name": "gen_ai.request.model",
        "framework": "gen_ai.provider.name",
        "input_tokens": "gen_ai.usage.input_tokens",
        "output_tokens": "gen_ai.usage.output_tokens",
        "cached_input_tokens": "gen_ai.usage.cache_read.input_tokens",
        "reasoning_output_tokens": "gen_ai.usage.reasoning.output_tokens",
        "request_id": "gen_ai.response.id",
    }
    if name in in_seconds:
        return as_float(found[in_seconds[name]] * 1e3)
    if name == "finish_reason":
        return ",".join(found["gen_ai.response.finish_reasons"])
    value = found[alike.get(name, f"infertrace.{name}")]
    return as_float(value) if read_as == "FLOAT" else value


def as_float(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


DRAWN: dict[str, st.SearchStrategy[Any]] = {
    "TEXT": st.text(min_size=1, max_size=200),
    "INT32": st.integers(-(2**31), 2**31 - 1),
    "INT64": st.integers(-(2**63), 2**63 - 1),
    "FLOAT": st.floats(0, 2.0**100, width=32),
    "DOUBLE": st.floats(allow_nan=False),
    "INTERVALS": intervals(),
}


def encoded_field(number: int, read_as: str, value: Any) -> bytes:
    if read_as == "TEXT":
        return delimited(varint(number << 3 | 2), value.encode())
    if read_as == "INTERVALS":
        message = span_pb2.TokenIntervals(offset=value[0], counts=value[1:])
        return delimited(varint(number << 3 | 2), message.SerializeToString())
    if read_as == "FLOAT":
        return varint(number << 3 | 5) + struct.pack("<f", value)
    if read_as == "DOUBLE":
        return varint(number << 3 | 1) + struct.pack("<d", value)
    return varint(number << 3) + varint(value)


@pytest.mark.parametrize(
    ("message", "number", "name", "read_as"),
    [(10, number, *field) for number, field in INFERENCE_FIELDS.items()]
    + [(11, number, *field) for number, field in RESOURCE_FIELDS.items()],
)
@given(data=st.data())
def test_every_field_comes_back(
    message: int, number: int, name: str, read_as: str, data: st.DataObject
) -> None:
    value = data.draw(DRAWN[read_as])
    field = delimited(varint(message << 3 | 2), encoded_field(number, read_as, value))
    (group,) = read(envelope(encode(SPAN) + field)).resource_spans
    found = attributes_of(group.scope_spans[0].spans[0].attributes)
    assert restored(name, read_as, found) == value


def test_fields_that_no_chosen_convention_carries_keep_our_names() -> None:
    inference = span_pb2.InferenceContext(
        model_name="m", input_tokens=3, output_tokens=4, time_to_first_token_ms=1500
    )
    span = {**SPAN, "inference": inference}
    found = attributes(span, conventions.bits(["openinference"]))
    assert found == {
        "openinference.span.kind": "LLM",
        "llm.model_name": "m",
        "llm.token_count.prompt": 3,
        "llm.token_count.completion": 4,
        "llm.token_count.total": 7,
        "infertrace.time_to_first_token_ms": 1500.0,
        "infertrace.operation_name": "inference",
    }
    (event,) = one(span, conventions.bits(["openinference"])).events
    assert event.name == "First Token Stream Event"
    assert event.time_unix_nano == START_NS + 1_500_000_000
    found = attributes(span, conventions.bits(["langfuse"]))
    assert found["langfuse.observation.type"] == "generation"
    assert found["langfuse.observation.completion_start_time"] == "2023-11-14T22:13:21.500000000Z"
    usage = json.loads(found["langfuse.observation.usage_details"])
    assert usage == {"input": 3, "output": 4, "total": 7}
    assert found["infertrace.input_tokens"] == 3
    assert not any(key.startswith(("gen_ai", "llm")) for key in found)


def test_unknown_conventions_are_named() -> None:
    assert conventions.bits(CONVENTIONS) == 7
    with pytest.raises(ValueError, match="expected some of otel, openinference, langfuse, got 'x'"):
        conventions.bits(["otel", "x"])


@pytest.mark.parametrize("delay_ms", [math.nan, math.inf, -1.0, 3e38])
def test_a_delay_that_is_no_time(delay_ms: float) -> None:
    inference = span_pb2.InferenceContext(time_to_first_token_ms=delay_ms)
    span = one({**SPAN, "inference": inference}, conventions.bits(CONVENTIONS))
    assert not span.events
    assert "langfuse.observation.completion_start_time" not in attributes_of(span.attributes)


RESOURCE = {"service.name": "a", "process.pid": 7}
PRODUCER = bytes(range(16))


def test_services_and_scopes_make_groups() -> None:
    raw = envelope(
        encode({**SPAN, "service_name": "a"}),
        encode({**SPAN, "service_name": "a", "scope_name": "vllm", "scope_version": "1"}),
        encode({**SPAN, "service_name": "b", "scope_name": "vllm", "scope_version": "1"}),
        encode({**SPAN, "service_name": "b", "scope_name": "vllm", "scope_attributes": {"k": 1}}),
        resource=RESOURCE,
        producer=PRODUCER,
    )
    groups = read(raw).resource_spans
    instance = {"service.instance.id": "00010203-0405-0607-0809-0a0b0c0d0e0f"}
    assert [attributes_of(group.resource.attributes) for group in groups] == [
        {**RESOURCE, **instance},
        {**RESOURCE, **instance, "service.name": "b"},
    ]
    scopes = [(it.scope.name, it.scope.version) for group in groups for it in group.scope_spans]
    assert scopes == [("infertrace", "1.2"), ("vllm", "1"), ("vllm", "1"), ("vllm", "")]
    assert attributes_of(groups[1].scope_spans[1].scope.attributes) == {"k": 1}
    assert [len(it.spans) for group in groups for it in group.scope_spans] == [1, 1, 1, 1]


def test_an_instance_that_names_itself_keeps_its_name() -> None:
    raw = envelope(encode(SPAN), resource={"service.instance.id": "mine"}, producer=PRODUCER)
    (group,) = read(raw).resource_spans
    assert attributes_of(group.resource.attributes) == {"service.instance.id": "mine"}


def test_a_damaged_resource_leaves_the_spans() -> None:
    raw = delimited(b"\x0a", encode({**SPAN, "service_name": "a"})) + b"\x3a\x02\x0a\x09"
    (group,) = read(raw).resource_spans
    assert attributes_of(group.resource.attributes) == {"service.name": "a"}


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(spans(), min_size=1, max_size=3), ATTRIBUTES, st.integers(1, 7))
def test_any_spans(drawn: list[dict[str, Any]], resource: dict[str, Any], bits: int) -> None:
    encoded = [encode(span) for span in drawn]
    result = translated(envelope(*encoded, resource=resource, producer=PRODUCER), bits)
    assert (result.span_count, result.reason) == (len(drawn), "")
    request = ExportTraceServiceRequest.FromString(result.request)
    assert request.SerializeToString(deterministic=True)
    found = [
        (group, scope.scope, span)
        for group in request.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]
    for given_span, (_, scope, span) in zip(drawn, found, strict=True):
        assert scope.name == (given_span["scope_name"] or "infertrace")
        expect_same(given_span, span)
    for group in request.resource_spans:
        assert (
            attributes_of(group.resource.attributes).items()
            >= {
                key: value for key, value in plain_values(resource).items() if key != "service.name"
            }.items()
        )


def plain_values(values: dict[str, Any]) -> dict[str, Any]:
    """As OTLP's classes give them back, after both were read by one function."""
    return {key: plain(any_value(value)) for key, value in values.items()}


def any_value(value: Any) -> AnyValue:
    if isinstance(value, list):
        made = AnyValue()
        made.array_value.SetInParent()
        made.array_value.values.extend(any_value(it) for it in value)
        return made
    if isinstance(value, dict):
        made = AnyValue()
        made.kvlist_value.SetInParent()
        made.kvlist_value.values.extend(
            KeyValue(key=key, value=any_value(it)) for key, it in value.items()
        )
        return made
    kinds = {bool: "bool", str: "string", int: "int", float: "double", bytes: "bytes"}
    return AnyValue(**({} if value is None else {f"{kinds[type(value)]}_value": value}))


def expect_same(given_span: dict[str, Any], span: Span) -> None:
    for ours, theirs in (
        ("trace_id", "trace_id"),
        ("span_id", "span_id"),
        ("parent_span_id", "parent_span_id"),
        ("trace_state", "trace_state"),
        ("start_time_unix_nano", "start_time_unix_nano"),
        ("dropped_attributes_count", "dropped_attributes_count"),
        ("dropped_events_count", "dropped_events_count"),
        ("dropped_links_count", "dropped_links_count"),
        ("flags", "flags"),
    ):
        assert getattr(span, theirs) == given_span[ours]
    assert span.end_time_unix_nano - span.start_time_unix_nano == given_span["duration_nanos"]
    assert span.status.message == given_span["status_message"]
    found = attributes_of(span.attributes)
    assert found.items() >= plain_values({**given_span["tags"], **given_span["attributes"]}).items()
    own = [it for it in span.events if it.name != "First Token Stream Event"]
    for (time_ns, name, values, dropped), event in zip(given_span["events"], own, strict=True):
        assert (event.time_unix_nano, event.name) == (time_ns, name)
        assert event.dropped_attributes_count == dropped
        assert attributes_of(event.attributes) == plain_values(values)
    for (trace_id, span_id, values, state, dropped, flags), link in zip(
        given_span["links"], span.links, strict=True
    ):
        assert (link.trace_id, link.span_id, link.trace_state) == (trace_id, span_id, state)
        assert (link.dropped_attributes_count, link.flags) == (dropped, flags)
        assert attributes_of(link.attributes) == plain_values(values)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


BAD = [
    ("not a Span message", b"\x0a\x20"),
    ("not a Span message", encode(SPAN) + b"\x2a\x01\xff"),
    ("not a Span message", encode(SPAN) + b"\x6a\x07\x0a\x01k\x12\x02\x0a\x09"),
    ("not a Span message", encode(SPAN) + entries(b"\x6a", {"k": nested(31)})),
    ("not a Span message", encode(SPAN) + delimited(b"\x72", b"\x12\x01\xff")),
    ("trace_id: expected 16 bytes", encode({**SPAN, "trace_id": b"short"})),
    ("trace_id: expected 16 bytes", encode({**SPAN, "trace_id": bytes(16)})),
    ("span_id: expected 8 bytes", encode({**SPAN, "span_id": b""})),
    ("parent_span_id: expected none or", encode({**SPAN, "parent_span_id": b"x"})),
    ("links: expected ids", encode({**SPAN, "links": [(b"x", b"y", {}, "", 0, 0)]})),
    ("start_time_unix_nano: expected", encode({**SPAN, "start_time_unix_nano": 0})),
    ("duration_nanos: expected at least 0", encode({**SPAN, "duration_nanos": -1})),
    ("duration_nanos: the span ends", encode({**SPAN, "duration_nanos": 2**63 - 1})),
    ("status: expected OK", encode({**SPAN, "status": "FINE"})),
]


@pytest.mark.parametrize(("reason", "bad"), BAD)
def test_a_bad_span_rejects_itself(reason: str, bad: bytes) -> None:
    result = translated(envelope(encode(SPAN), bad, encode(MODEL), bad))
    assert result.span_count == 2
    assert result.reason.startswith(reason)
    assert result.reason in REASONS
    (group,) = ExportTraceServiceRequest.FromString(result.request).resource_spans
    names = [span.name for scope in group.scope_spans for span in scope.spans]
    assert names == ["inference", "inference gpt-4"]
    assert translated(envelope(bad)) == Translated(b"", 0, result.reason)


def test_values_as_deep_as_receivers_read() -> None:
    found = attributes({**SPAN, "attributes": {"k": nested(30)}})
    assert found == {"k": nested(30)}


def test_an_envelope_that_is_cut_short() -> None:
    raw = envelope(encode(SPAN), encode(MODEL))
    whole = len(delimited(b"\x0a", encode(SPAN)))
    for size in range(whole, len(raw)):
        result = translated(raw[:size])
        assert result.span_count >= 1
    assert translated(raw[: whole + 3]).reason == "not a Span message"


@given(st.binary(max_size=200), st.integers(0, 7))
def test_any_bytes(raw: bytes, bits: int) -> None:
    translated(raw, bits)
    translated(delimited(b"\x0a", raw) + raw, bits)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(spans(), st.data())
def test_damaged_spans(drawn: dict[str, Any], data: st.DataObject) -> None:
    raw = bytearray(envelope(encode(drawn), encode(drawn), resource=RESOURCE))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    result = translated(bytes(raw), 7)
    ExportTraceServiceRequest.FromString(result.request)


@given(st.lists(st.sampled_from([scalar(1), scalar("x"), scalar([1]), b"\x42\x01x"]), max_size=4))
def test_of_several_values_the_last_counts(parts: list[bytes]) -> None:
    attribute = delimited(b"\x0a", b"k") + delimited(b"\x12", b"".join(parts))
    raw = envelope(encode(SPAN) + delimited(b"\x6a", attribute))
    (group,) = read(raw).resource_spans
    known = [part for part in parts if part != b"\x42\x01x"]
    expected = {scalar(1): 1, scalar("x"): "x", scalar([1]): [1]}
    found = attributes_of(group.scope_spans[0].spans[0].attributes)
    assert found == {"k": expected[known[-1]] if known else None}


def test_the_translator_of_the_backend(backend: Any) -> None:
    assert translator_choice.select().NAME == backend.NAME
