"""Both translators make the same spans of OTLP, and protobuf reads them field for field."""

from __future__ import annotations

import math
import re
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    InstrumentationScope,
    KeyValue,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from drawn_otlp_values import ATTRIBUTES, EVENT_NAMES, LANGFUSE, TEXT, UINT32, scalar
from infertrace.collector.ingest import decoder_choice
from infertrace.collector.ingest.otlp import export_request
from infertrace.collector.ingest.otlp.attribute_values import MAX_VALUE_DEPTH
from infertrace.collector.ingest.otlp.export_request import (
    ExportedSpans,
    decode_export_request,
    read_export_request,
)
from infertrace.collector.ingest.otlp.pure_translator import MALFORMED_SPAN
from infertrace.collector.ingest.wire_fields import RequestError
from infertrace.generated import span_pb2 as ours

TIME = st.integers(0, 2**64 - 1) | st.integers(10**18, 10**18 + 10**10)
EVENT = st.builds(
    Span.Event,
    time_unix_nano=TIME,
    name=TEXT | st.sampled_from(EVENT_NAMES),
    attributes=ATTRIBUTES,
    dropped_attributes_count=UINT32,
)
LINK = st.builds(
    Span.Link,
    trace_id=st.binary(max_size=17),
    span_id=st.binary(max_size=9),
    trace_state=TEXT,
    attributes=ATTRIBUTES,
    dropped_attributes_count=UINT32,
    flags=UINT32,
)
SPAN = st.builds(
    Span,
    trace_id=st.binary(max_size=17),
    span_id=st.binary(max_size=9),
    trace_state=TEXT,
    parent_span_id=st.binary(max_size=9),
    name=TEXT,
    kind=st.integers(-1, 7),
    start_time_unix_nano=TIME,
    end_time_unix_nano=TIME,
    attributes=ATTRIBUTES,
    dropped_attributes_count=UINT32,
    events=st.lists(EVENT, max_size=2),
    dropped_events_count=UINT32,
    links=st.lists(LINK, max_size=2),
    dropped_links_count=UINT32,
    status=st.builds(Status, message=TEXT, code=st.integers(0, 4)),
    flags=UINT32,
)
SCOPE = st.builds(
    InstrumentationScope,
    name=TEXT | st.sampled_from(["vllm.tracing.otel", "litellm"]),
    version=TEXT,
    attributes=ATTRIBUTES,
)
SCOPE_SPANS = st.builds(ScopeSpans, scope=SCOPE, spans=st.lists(SPAN, max_size=3))
RESOURCE = st.builds(Resource, attributes=ATTRIBUTES, dropped_attributes_count=UINT32)
RESOURCE_SPANS = st.builds(
    ResourceSpans, resource=RESOURCE, scope_spans=st.lists(SCOPE_SPANS, max_size=2)
)
REQUEST = st.builds(ExportTraceServiceRequest, resource_spans=st.lists(RESOURCE_SPANS, max_size=2))


def both(raw: bytes) -> ExportedSpans | str:
    outcomes: list[ExportedSpans | str] = []
    for name in ("native", "pure"):
        try:
            outcomes.append(read_export_request(raw, name))
        except RequestError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1], raw
    decoded_alike(raw, outcomes[0])
    return outcomes[0]


def decoded_alike(raw: bytes, expected: ExportedSpans | str) -> None:
    """The decoders of OTLP make the rows that ours makes of what was translated."""
    for name in ("native", "pure"):
        if isinstance(expected, str):
            with pytest.raises(RequestError, match=re.escape(expected)):
                decode_export_request(raw, name)
            continue
        found, groups = decode_export_request(raw, name)
        spans = decoder_choice.select("native").decode(expected.spans)
        assert found.rows.equals(spans.rows), (name, raw)
        assert (found.span_count, found.rejections) == (spans.span_count, spans.rejections)
        assert groups == expected.groups


def translated(raw: bytes) -> list[ours.Span]:
    exported = both(raw)
    assert isinstance(exported, ExportedSpans)
    return list(ours.SendSpanBatchRequest.FromString(exported.spans).spans)


def request_of(*spans: Span, scope: str = "", service: str = "s") -> bytes:
    resource = Resource(attributes=[KeyValue(key="service.name", value=scalar(service))])
    group = ScopeSpans(scope=InstrumentationScope(name=scope), spans=spans)
    return ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(resource=resource, scope_spans=[group])]
    ).SerializeToString()


def span_with(**attributes: Any) -> Span:
    """One second long, with these attributes; `__` in a name is a dot."""
    return Span(
        trace_id=b"t" * 16,
        span_id=b"s" * 8,
        name="POST",
        start_time_unix_nano=10**18,
        end_time_unix_nano=10**18 + 10**9,
        attributes=[
            KeyValue(key=key.replace("__", "."), value=scalar(value))
            for key, value in attributes.items()
        ],
    )


def same_value(given: AnyValue, found: ours.AttributeValue) -> bool:
    kind = given.WhichOneof("value")
    if kind == "array_value":
        members = zip(given.array_value.values, found.array_value.values, strict=True)
        return all(same_value(one, other) for one, other in members)
    if kind == "kvlist_value":
        return all(
            one.key == other.key and same_value(one.value, other.value)
            for one, other in zip(
                given.kvlist_value.values, found.key_value_list.values, strict=True
            )
        )
    if kind is None:
        return found.WhichOneof("value") is None
    expected, value = getattr(given, kind), getattr(found, kind)
    if kind == "double_value":
        return struct.pack("d", expected) == struct.pack("d", value)
    return found.WhichOneof("value") == kind and bool(expected == value)


def same_attributes(given: Any, found: Any) -> bool:
    last = {pair.key: pair.value for pair in given}
    return last.keys() == set(found) and all(
        same_value(value, found[key]) for key, value in last.items()
    )


@given(REQUEST)
def test_protobuf_reads_what_was_sent(request: ExportTraceServiceRequest) -> None:
    spans = translated(request.SerializeToString())
    sent = [
        (group.resource, scope.scope, span)
        for group in request.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]
    assert len(spans) == len(sent)
    for (_, scope, otlp), found in zip(sent, spans, strict=True):
        assert (found.trace_id, found.span_id, found.parent_span_id) == (
            otlp.trace_id,
            otlp.span_id,
            otlp.parent_span_id,
        )
        own = {pair.key: pair.value.string_value for pair in otlp.attributes}
        assert found.operation_name == (own.get("infertrace.operation_name") or otlp.name)
        assert found.start_time_unix_nano % 2**64 == otlp.start_time_unix_nano
        expected_ns = max(0, otlp.end_time_unix_nano - otlp.start_time_unix_nano)
        assert found.duration_nanos == min(expected_ns, 2**63 - 1)
        if own.get("infertrace.status") != "CANCELLED" and LANGFUSE[0] not in own:
            assert found.status == {1: "OK", 2: "ERROR"}.get(otlp.status.code, "")
        assert found.status_code == otlp.status.code
        if LANGFUSE[0] not in own:
            assert found.status_message == otlp.status.message
        for name in ("kind", "trace_state", "flags", "dropped_attributes_count"):
            assert getattr(found, name) == getattr(otlp, name)
        assert found.dropped_events_count == otlp.dropped_events_count
        assert found.dropped_links_count == otlp.dropped_links_count
        assert found.scope_name == scope.name
        assert found.scope_version == scope.version
        assert same_attributes(otlp.attributes, found.attributes)
        for event, kept in zip(otlp.events, found.events, strict=True):
            assert kept.time_unix_nano == min(event.time_unix_nano, 2**63 - 1)
            assert kept.name == event.name
            assert kept.dropped_attributes_count == event.dropped_attributes_count
            assert same_attributes(event.attributes, kept.attributes)
        for link, kept_link in zip(otlp.links, found.links, strict=True):
            for name in ("trace_id", "span_id", "trace_state", "flags"):
                assert getattr(kept_link, name) == getattr(link, name)
            assert kept_link.dropped_attributes_count == link.dropped_attributes_count
            assert same_attributes(link.attributes, kept_link.attributes)


@given(REQUEST, st.data())
def test_damaged_requests(request: ExportTraceServiceRequest, data: st.DataObject) -> None:
    damaged = bytearray(request.SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    both(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))


@given(SPAN, st.data())
def test_a_damaged_span_spoils_no_other(span: Span, data: st.DataObject) -> None:
    damaged = bytearray(span.SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    good = span_with().SerializeToString()
    scope = b"".join(b"\x12" + varint(len(one)) + one for one in (good, bytes(damaged), good))
    raw = delimited(delimited(scope, 0x12), 0x0A)
    exported = both(raw)
    assert isinstance(exported, ExportedSpans)
    (alone,) = translated(delimited(delimited(b"\x12" + varint(len(good)) + good, 0x12), 0x0A))
    alone_raw = alone.SerializeToString()
    assert exported.spans.startswith(b"\x0a" + varint(len(alone_raw)) + alone_raw)
    assert exported.spans.endswith(b"\x0a" + varint(len(alone_raw)) + alone_raw)


@given(st.binary(max_size=100))
def test_any_bytes(raw: bytes) -> None:
    both(raw)
    both(delimited(raw, 0x0A))
    both(delimited(delimited(raw, 0x12), 0x0A))
    both(delimited(delimited(delimited(raw, 0x12), 0x12), 0x0A))


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def delimited(payload: bytes, tag: int) -> bytes:
    return bytes([tag]) + varint(len(payload)) + payload


def field_of(field: str, *spans: Span, scope: str = "") -> Any:
    (found,) = translated(request_of(*spans, scope=scope))
    part = found.inference if field in found.inference.DESCRIPTOR.fields_by_name else found
    is_there = not part.DESCRIPTOR.fields_by_name[field].has_presence or part.HasField(field)
    return getattr(part, field) if is_there else None


@pytest.mark.parametrize(
    ("field", "attributes", "expected"),
    [
        ("model_name", {"gen_ai__request__model": "a", "gen_ai__response__model": "b"}, "b"),
        ("model_name", {"gen_ai__request__model": "a", "gen_ai__response__model": ""}, "a"),
        ("model_name", {"mlflow__llm__model": '"m"'}, "m"),
        ("model_name", {"model": "plain"}, "plain"),
        ("model_version", {"triton__model_version": 3}, "3"),
        ("input_tokens", {"gen_ai__usage__prompt_tokens": 7}, 7),
        ("input_tokens", {"gen_ai__usage__prompt_tokens": "7"}, 7),
        ("input_tokens", {"gen_ai__usage__prompt_tokens": 7.0}, 7),
        ("input_tokens", {"gen_ai__usage__prompt_tokens": -7}, None),
        ("input_tokens", {"gen_ai__usage__prompt_tokens": 2**31}, None),
        ("input_tokens", {"gen_ai__usage__prompt_tokens": True}, None),
        (
            "input_tokens",
            {"gen_ai__usage__input_tokens": "many", "gen_ai__usage__prompt_tokens": 7},
            7,
        ),
        ("output_tokens", {"langfuse__observation__usage_details": '{"output": 9}'}, 9),
        ("cached_input_tokens", {"mlflow__chat__tokenUsage": '{"cache_read_input_tokens": 2}'}, 2),
        (
            "finish_reason",
            {"gen_ai__response__finish_reasons": '["stop", "length"]'},
            "stop,length",
        ),
        ("finish_reason", {"llm__finish_reason": "stop"}, "stop"),
        ("time_to_first_token_ms", {"gen_ai__latency__time_to_first_token": 0.25}, 250.0),
        ("time_to_first_token_ms", {"gen_ai__latency__time_to_first_token": 250.0}, 250.0),
        ("time_to_first_token_ms", {"gen_ai__latency__time_to_first_token": 250_000_000}, 250.0),
        ("time_to_first_token_ms", {"gen_ai__latency__time_to_first_token": 1e12}, None),
        ("time_to_first_token_ms", {"gen_ai__latency__time_to_first_token": math.nan}, None),
        ("time_to_first_token_ms", {"ai__response__msToFirstChunk": 12.5}, 12.5),
        (
            "time_to_first_token_ms",
            {"langfuse__observation__completion_start_time": '"2001-09-09T01:46:40.5Z"'},
            500.0,
        ),
        (
            "queue_wait_time_ms",
            {"queue_time": "850µs"},
            struct.unpack("f", struct.pack("f", 0.85))[0],
        ),
        (
            "inter_token_latency_ms",
            {"gen_ai__latency__time_in_model_decode": 0.5, "gen_ai__usage__output_tokens": 6},
            100.0,
        ),
        (
            "cache_hit_rate",
            {"gen_ai__usage__cached_tokens": 3, "gen_ai__usage__prompt_tokens": 12},
            0.25,
        ),
        ("batch_size", {"infertrace__batch_size": 8}, 8),
        ("operation_name", {"infertrace__operation_name": "inference"}, "inference"),
        ("operation_name", {"infertrace__operation_name": 7}, "POST"),
        ("status", {"infertrace__status": "CANCELLED"}, "CANCELLED"),
        ("status", {"infertrace__status": "LATE"}, ""),
        ("status", {"langfuse__observation__level": "ERROR"}, "ERROR"),
        ("status", {"langfuse__observation__level": "WARNING"}, ""),
        (
            "status_message",
            {
                "langfuse__observation__level": "ERROR",
                "langfuse__observation__status_message": "overloaded",
            },
            "overloaded",
        ),
        ("invalid_field_count", {"infertrace__invalid_field_count": 3}, 3),
        ("invalid_field_count", {"infertrace__invalid_field_count": -3}, 0),
        ("invalid_field_count", {"gen_ai__usage__prompt_tokens": "many"}, 1),
    ],
)
def test_dialects(field: str, attributes: dict[str, Any], expected: Any) -> None:
    assert field_of(field, span_with(**attributes)) == expected


@pytest.mark.parametrize(
    ("numbers", "expected", "invalid"),
    [
        ([160, 1, 0, 2**32 - 1], (160, [1, 0, 2**32 - 1]), 0),
        ([-1, *[1] * 513], (-1, [1] * 513), 0),
        ([-1, *[1] * 514], None, 1),
        ([511, 7], (511, [7]), 0),
        ([512, 7], None, 1),
        ([-2, 7], None, 1),
        ([160, -1], None, 1),
        ([160, 2**32], None, 1),
        ([160, 0.5], None, 1),
        ([160, True], None, 1),
        ([160], None, 1),
        ([], None, 1),
    ],
)
def test_a_histogram_is_an_array_of_integers(
    numbers: list[Any], expected: Any, invalid: int
) -> None:
    span = span_with()
    array = ArrayValue(values=map(scalar, numbers))
    span.attributes.add(key="infertrace.token_intervals", value=AnyValue(array_value=array))
    (found,) = translated(request_of(span))
    given = found.inference.token_intervals
    has_it = found.inference.HasField("token_intervals")
    assert ((given.offset, list(given.counts)) if has_it else None) == expected
    assert found.invalid_field_count == invalid


def test_a_latency_is_not_guessed_for_a_span_without_duration() -> None:
    span = span_with(gen_ai__latency__time_to_first_token=250.0)
    span.end_time_unix_nano = span.start_time_unix_nano
    assert field_of("time_to_first_token_ms", span) == 250_000.0


def test_the_first_event_of_a_name_counts() -> None:
    span = span_with()
    for elapsed_ns in (400_000_000, 200_000_000):
        span.events.add(name="First Token Stream Event", time_unix_nano=10**18 + elapsed_ns)
    assert field_of("time_to_first_token_ms", span) == 400.0


def test_time_between_two_events() -> None:
    span = span_with()
    span.events.add(name="QUEUE_START", time_unix_nano=10**18 + 1_000_000)
    span.events.add(name="COMPUTE_START", time_unix_nano=10**18 + 3_000_000)
    assert field_of("queue_wait_time_ms", span) == 2.0


def test_the_scope_says_the_framework() -> None:
    assert field_of("framework", span_with(), scope="vllm.tracing.otel") == "vllm"
    named = span_with(gen_ai__system="openai")
    assert field_of("framework", named, scope="litellm") == "openai"


def test_what_is_no_text_is_replaced_and_counted() -> None:
    raw = request_of(span_with(key="abc")).replace(b"abc", b"a\xffc")
    (found,) = translated(raw)
    assert found.attributes["key"].string_value == "a\ufffdc"
    assert found.invalid_field_count == 1


@pytest.mark.parametrize(
    ("scope", "service", "cut"),
    [
        (InstrumentationScope(name="x" * 256), "s", 0),
        (InstrumentationScope(name="x" * 257), "s", 1),
        (InstrumentationScope(version="é" * 200), "s" * 300, 2),
        (
            InstrumentationScope(
                attributes=[KeyValue(key=key, value=scalar("x" * 300)) for key in "ab"]
            ),
            "s",
            2,
        ),
    ],
)
def test_what_is_too_long_to_be_repeated_is_counted(
    scope: InstrumentationScope, service: str, cut: int
) -> None:
    resource = Resource(attributes=[KeyValue(key="service.name", value=scalar(service))])
    group = ScopeSpans(scope=scope, spans=[span_with(), span_with(langfuse__observation__level="")])
    request = ResourceSpans(resource=resource, scope_spans=[group])
    for span in translated(ExportTraceServiceRequest(resource_spans=[request]).SerializeToString()):
        assert span.invalid_field_count == cut
        assert span.service_name == service[:256]
        assert span.scope_name == scope.name[:256]


def test_unknown_groups_are_skipped() -> None:
    group = b"\xa3\x06\x08\x01\xa4\x06"
    span = span_with().SerializeToString()
    plain, other = (
        delimited(delimited(delimited(span + more, 0x12) + more, 0x12) + more, 0x0A) + more
        for more in (b"", group)
    )
    assert both(plain) == both(other)
    assert isinstance(both(other), ExportedSpans)


def test_values_nest_up_to_a_limit() -> None:
    def nested(depth: int) -> AnyValue:
        value = scalar(1)
        for _ in range(depth):
            value = AnyValue(array_value=ArrayValue(values=[value]))
        return value

    for depth, lost in ((MAX_VALUE_DEPTH, 0), (MAX_VALUE_DEPTH + 1, 1)):
        span = span_with()
        span.attributes.add(key="deep", value=nested(depth))
        (found,) = translated(request_of(span))
        assert found.invalid_field_count == lost
        assert (found.attributes["deep"] != ours.AttributeValue()) or lost


def test_resources_and_spans_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_request, "MAX_SPANS", 2)
    monkeypatch.setattr(export_request, "MAX_GROUPS", 2)
    assert len(translated(request_of(span_with(), span_with()))) == 2
    assert "more than 2 spans" in str(both(request_of(*[span_with()] * 3)))
    assert "more than 2 resources" in str(both(request_of(span_with()) * 3))
    scopes = delimited(delimited(b"", 0x12) * 3, 0x0A)
    assert "more than 2" in str(both(scopes))


def test_resources_of_a_request() -> None:
    exported = both(request_of(span_with(), service="a") + request_of(service="b"))
    assert isinstance(exported, ExportedSpans)
    services = [
        ours.Resource.FromString(group.attributes).attributes["service.name"].string_value
        for group in exported.groups
    ]
    assert services == ["a", "b"]
    assert [group.span_count for group in exported.groups] == [1, 0]
    (span,) = ours.SendSpanBatchRequest.FromString(exported.spans).spans
    assert span.service_name == "a"


def test_a_malformed_span_is_one_that_the_decoder_rejects() -> None:
    raw = delimited(delimited(delimited(b"\x0b", 0x12), 0x12), 0x0A)
    exported = both(raw)
    assert isinstance(exported, ExportedSpans)
    assert exported.spans == MALFORMED_SPAN
