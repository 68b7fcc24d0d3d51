"""OTLP in JSON becomes the same request in protobuf; the protobuf runtime is the referee."""

from __future__ import annotations

import base64
import gc
import gzip
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    InstrumentationScope,
    KeyValue,
    KeyValueList,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from infertrace.collector.ingest import otlp_json, pure_otlp_json
from infertrace.collector.ingest.otlp_batches import decode_export
from infertrace.collector.ingest.otlp_json import OtlpJson
from infertrace.collector.ingest.wire_fields import RequestError, RequestTooLargeError

BODIES = Path(__file__).parent / "otlp_bodies"
IDS = ("traceId", "spanId", "parentSpanId")
INTEGERS = (
    *("startTimeUnixNano", "endTimeUnixNano", "timeUnixNano", "intValue", "flags"),
    *("droppedAttributesCount", "droppedEventsCount", "droppedLinksCount"),
)
TRACE, SPAN = "5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174"


@pytest.fixture(params=["selected", "pure"])
def translator(request: pytest.FixtureRequest) -> OtlpJson:
    return otlp_json.selected if request.param == "selected" else otlp_json.select("pure")


def referee(document: Any) -> ExportTraceServiceRequest:
    """What protobuf's own mapping makes of it, once the ids are base64 as it wants them."""
    return json_format.ParseDict(
        as_base64(document), ExportTraceServiceRequest(), ignore_unknown_fields=True
    )


def as_base64(value: Any) -> Any:
    if isinstance(value, list):
        return [as_base64(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: base64.b64encode(bytes.fromhex(each)).decode() if key in IDS else as_base64(each)
        for key, each in value.items()
    }


def translated(translator: OtlpJson, document: Any) -> ExportTraceServiceRequest:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return ExportTraceServiceRequest.FromString(translator.export_request(text))


def request_of(*spans: Any, **group: Any) -> Any:
    return {"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}], **group}]}


def span_of(**fields: Any) -> Any:
    ids = {"traceId": TRACE, "spanId": SPAN}
    times = {"startTimeUnixNano": "1700000000000000001", "endTimeUnixNano": "1700000000000000009"}
    return {**ids, **times, "name": "chat", **fields}


def with_value(**value: Any) -> Any:
    return span_of(attributes=[{"key": "k", "value": value}])


def only_value(request: ExportTraceServiceRequest) -> AnyValue:
    return request.resource_spans[0].scope_spans[0].spans[0].attributes[0].value


# Of protobuf messages, in all of the spellings that a sender may choose.

uint32 = st.integers(0, 2**32 - 1)
uint64 = st.integers(0, 2**64 - 1)
text = st.text(max_size=12)
any_values = st.recursive(
    st.one_of(
        st.just(AnyValue()),
        st.builds(AnyValue, string_value=text),
        st.builds(AnyValue, bool_value=st.booleans()),
        st.builds(AnyValue, int_value=st.integers(-(2**63), 2**63 - 1)),
        st.builds(AnyValue, double_value=st.floats(allow_nan=False)),
        st.just(AnyValue(double_value=float("nan"))),  # the one that JSON can tell
        st.builds(AnyValue, bytes_value=st.binary(max_size=9)),
    ),
    lambda values: st.one_of(
        st.lists(values, max_size=3).map(lambda v: AnyValue(array_value=ArrayValue(values=v))),
        st.lists(st.builds(KeyValue, key=text, value=values), max_size=3).map(
            lambda v: AnyValue(kvlist_value=KeyValueList(values=v))
        ),
    ),
    max_leaves=5,
)
attributes = st.lists(st.builds(KeyValue, key=text, value=any_values), max_size=4)
ids = st.binary(max_size=17)
spans = st.builds(
    Span,
    trace_id=ids,
    span_id=ids,
    parent_span_id=ids,
    trace_state=text,
    name=text,
    kind=st.integers(0, 5),
    start_time_unix_nano=uint64,
    end_time_unix_nano=uint64,
    attributes=attributes,
    dropped_attributes_count=uint32,
    events=st.lists(
        st.builds(
            Span.Event,
            time_unix_nano=uint64,
            name=text,
            attributes=attributes,
            dropped_attributes_count=uint32,
        ),
        max_size=2,
    ),
    dropped_events_count=uint32,
    links=st.lists(
        st.builds(
            Span.Link,
            trace_id=ids,
            span_id=ids,
            trace_state=text,
            attributes=attributes,
            dropped_attributes_count=uint32,
            flags=uint32,
        ),
        max_size=2,
    ),
    dropped_links_count=uint32,
    status=st.builds(Status, message=text, code=st.integers(0, 2)),
    flags=uint32,
)
requests = st.builds(
    ExportTraceServiceRequest,
    resource_spans=st.lists(
        st.builds(
            ResourceSpans,
            resource=st.builds(Resource, attributes=attributes, dropped_attributes_count=uint32),
            scope_spans=st.lists(
                st.builds(
                    ScopeSpans,
                    scope=st.builds(
                        InstrumentationScope, name=text, version=text, attributes=attributes
                    ),
                    spans=st.lists(spans, max_size=3),
                    schema_url=text,
                ),
                max_size=2,
            ),
            schema_url=text,
        ),
        max_size=2,
    ),
)


def spelled(value: Any, draw: Any, name: str = "") -> Any:
    """One of the spellings of what json_format wrote."""
    if isinstance(value, dict):
        found = {key: spelled(each, draw, key) for key, each in value.items()}
        if draw(st.booleans()):
            found["unheardOf"] = draw(st.sampled_from([None, 1, {"a": []}, "x"]))
        return found
    if isinstance(value, list):
        return [spelled(each, draw) for each in value]
    if name in IDS:
        digits = base64.b64decode(value).hex()
        return digits.upper() if draw(st.booleans()) else digits
    if name in INTEGERS:
        number = int(value)
        spellings: list[Any] = [number, str(number)]
        if abs(number) < 2**53:
            spellings += [float(number), f"{number}.0", f"{number}e0"]
        return draw(st.sampled_from(spellings))
    if name == "bytesValue":
        other = value.replace("+", "-").replace("/", "_")
        return draw(st.sampled_from([value, other, other.rstrip("=")]))
    if name in ("kind", "code"):
        field = Span.SpanKind if name == "kind" else Status.StatusCode
        return draw(st.sampled_from([value, field.Value(value), float(field.Value(value))]))
    return value


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(requests, st.data())
def test_every_message_in_every_spelling(
    expected: ExportTraceServiceRequest, data: st.DataObject
) -> None:
    document = spelled(json_format.MessageToDict(expected), data.draw)
    text = json.dumps(document, ensure_ascii=data.draw(st.booleans())).encode()
    found = pure_otlp_json.export_request(text)
    assert otlp_json.selected.export_request(text) == found
    # Compared as bytes: a NaN is not equal to itself.
    parsed = ExportTraceServiceRequest.FromString(found)
    assert parsed.SerializeToString(deterministic=True) == expected.SerializeToString(
        deterministic=True
    )


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda values: st.one_of(
        st.lists(values, max_size=3), st.dictionaries(st.text(max_size=5), values, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(requests, json_values, st.data())
def test_a_wrong_value_anywhere_rejects_its_span_or_its_request(
    message: ExportTraceServiceRequest, wrong: Any, data: st.DataObject
) -> None:
    document = json_format.MessageToDict(message)
    places: list[tuple[Any, Any]] = [({"": document}, "")]
    for holder, key in places:
        below = holder[key]
        if isinstance(below, (dict, list)):
            places += [
                (below, k) for k in (below if isinstance(below, dict) else range(len(below)))
            ]
    holder, key = data.draw(st.sampled_from(places))
    holder[key] = wrong
    text = json.dumps(document).encode()
    outcomes: list[Any] = []
    for form in (otlp_json.selected, otlp_json.select("pure")):
        try:
            outcomes.append(form.export_request(text))
        except RequestError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]
    if isinstance(outcomes[0], bytes):
        decode_export(outcomes[0])


SENT = [path.read_bytes() for path in sorted(BODIES.glob("*.json"))]
PIECES = (
    *(b"null", b"{}", b"[]", b'""', b'"', b",", b":", b"-0", b"-", b"1.5", b"1e5", b'"-7"', b"007"),
    *(
        b"true",
        b"NaN",
        b"\\u0000",
        b"\\ud800",
        b"\\",
        b"\xff",
        b"\xc3\xa4",
        b"\n",
        b"\x01",
        b"1e999",
    ),
    *(b"18446744073709551616", b'"9223372036854775808"', b"4294967296", b"0.30000000000000004"),
)
changes = st.lists(
    st.tuples(st.integers(0, 99_999), st.integers(0, 30), st.sampled_from((b"", *PIECES))),
    max_size=3,
)


@given(st.sampled_from(SENT), changes)
@settings(max_examples=1_000)
def test_both_read_what_is_damaged_alike(body: bytes, damage: list[tuple[int, int, bytes]]) -> None:
    """A piece put in, or in the place of some bytes: the same request, or the same refusal."""
    for place, size, piece in damage:
        place %= len(body) + 1
        body = body[:place] + piece + body[place + size :]
    outcomes = []
    for translator in (otlp_json.selected, otlp_json.select("pure")):
        try:
            outcomes.append(translator.export_request(body))
        except RequestError as error:
            outcomes.append(f"{type(error).__name__}: {error}".encode())
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("name", ["node.json", "python.json", "rust.json", "collector.json.gz"])
def test_what_real_senders_wrote(translator: OtlpJson, name: str) -> None:
    raw = (BODIES / name).read_bytes()
    raw = gzip.decompress(raw) if name.endswith(".gz") else raw
    expected = referee(json.loads(raw))
    found = translated(translator, raw)
    assert str(found) == str(expected)  # in text, as a NaN is not equal to itself
    decoded = decode_export(translator.export_request(raw))
    assert decoded.batch.span_count == len(decoded.batch.rows) > 0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"stringValue": "a\ud800b"}, AnyValue(string_value="a\ufffdb")),
        ({"stringValue": "\ud834\udd1e"}, AnyValue(string_value="𝄞")),
        ({"stringValue": "\0"}, AnyValue(string_value="\0")),
        ({"stringValue": ""}, AnyValue(string_value="")),
        ({"intValue": 3.0}, AnyValue(int_value=3)),
        ({"intValue": "1e3"}, AnyValue(int_value=1000)),
        ({"intValue": "9223372036854775807"}, AnyValue(int_value=2**63 - 1)),
        ({"intValue": -(2**63)}, AnyValue(int_value=-(2**63))),
        ({"intValue": 9007199254740993}, AnyValue(int_value=9007199254740993)),
        ({"doubleValue": 3}, AnyValue(double_value=3.0)),
        ({"doubleValue": "0.5"}, AnyValue(double_value=0.5)),
        ({"doubleValue": "Infinity"}, AnyValue(double_value=float("inf"))),
        ({"doubleValue": "-Infinity"}, AnyValue(double_value=-float("inf"))),
        # Node and Rust write NaN so: the attribute stays, without a value.
        ({"doubleValue": None}, AnyValue()),
        ({"bytesValue": "_-8"}, AnyValue(bytes_value=b"\xff\xef")),
        ({"bytesValue": "/+8="}, AnyValue(bytes_value=b"\xff\xef")),
        ({"arrayValue": {}}, AnyValue(array_value=ArrayValue())),
        ({"arrayValue": {"values": None}}, AnyValue(array_value=ArrayValue())),
        ({}, AnyValue()),
        ({"string_value": "snake case is unknown"}, AnyValue()),
    ],
)
def test_values(translator: OtlpJson, value: Any, expected: AnyValue) -> None:
    assert only_value(translated(translator, request_of(with_value(**value)))) == expected


def test_nan(translator: OtlpJson) -> None:
    for spelled_nan in (b'"NaN"', b"NaN"):
        text = json.dumps(request_of(with_value(doubleValue=1))).encode()
        text = text.replace(b'"doubleValue": 1', b'"doubleValue": ' + spelled_nan)
        found = only_value(translated(translator, text))
        assert found.double_value != found.double_value


WRONG_SPANS: list[Any] = [
    None,
    7,
    [],
    "span",
    span_of(traceId=7),
    span_of(traceId="not hexadecimal, 32 characters.."),
    span_of(traceId=base64.b64encode(bytes.fromhex(TRACE)).decode()),
    span_of(traceId=" ".join(TRACE[n : n + 8] for n in (0, 8, 16, 24))),
    span_of(spanId=[]),
    span_of(name=7),
    span_of(startTimeUnixNano="soon"),
    span_of(startTimeUnixNano=-1),
    span_of(startTimeUnixNano="1_700_000_000_000_000_000"),
    span_of(startTimeUnixNano=" 1700000000000000000"),
    span_of(startTimeUnixNano="१"),
    span_of(startTimeUnixNano=2**64),
    span_of(startTimeUnixNano=1.5),
    span_of(startTimeUnixNano="1" * 5_000),
    span_of(startTimeUnixNano="1e99999"),
    span_of(startTimeUnixNano=True),
    span_of(kind="SERVER"),
    span_of(kind=2**31),
    span_of(flags=2**32),
    span_of(droppedEventsCount=-1),
    span_of(status="OK"),
    span_of(status={"code": {}}),
    span_of(attributes={}),
    span_of(attributes=[None]),
    span_of(attributes=[{"key": 7}]),
    span_of(events=[7]),
    span_of(events={}),
    span_of(links=[{"traceId": "zz"}]),
    with_value(stringValue=7),
    with_value(boolValue="true"),
    with_value(boolValue=1),
    with_value(intValue="many"),
    with_value(intValue=2**63),
    with_value(intValue=0.5),
    with_value(doubleValue="one"),
    with_value(doubleValue="1_0"),
    with_value(doubleValue=10**400),
    with_value(doubleValue=True),
    with_value(bytesValue="*"),
    with_value(bytesValue="abcde"),
    with_value(bytesValue="é"),
    with_value(arrayValue=[]),
    with_value(arrayValue={"values": {}}),
    with_value(kvlistValue={"values": [7]}),
]


@pytest.mark.parametrize("wrong", WRONG_SPANS, ids=lambda wrong: json.dumps(wrong)[-70:])
def test_one_bad_span_rejects_itself(translator: OtlpJson, wrong: Any) -> None:
    other = span_of(spanId="eee19b7ec3c1b175")
    raw = translator.export_request(json.dumps(request_of(span_of(), wrong, other)).encode())
    decoded = decode_export(raw)
    assert (decoded.batch.span_count, len(decoded.batch.rows)) == (3, 2)
    assert list(decoded.batch.rejected_positions) == [1]
    assert decoded.rejection_reason.startswith("span 1: ")


@pytest.mark.parametrize("trace_id", ["", None, TRACE[:-2], TRACE + "00", "0" * 32])
def test_an_id_of_another_length(translator: OtlpJson, trace_id: Any) -> None:
    raw = translator.export_request(json.dumps(request_of(span_of(traceId=trace_id))).encode())
    assert decode_export(raw).rejection_reason.startswith("span 0: trace_id: expected 16 bytes")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "body: not JSON"),
        (b"[]", "body: expected a JSON object"),
        (b"null", "body: expected a JSON object"),
        (b"{", "body: not JSON"),
        (b'{"resourceSpans": []} x', "body: not JSON"),
        (b'"\xff"', "body: not JSON"),
        (b"[" * 200_000, "body: the JSON is nested too deeply"),
        (b'{"resourceSpans": {}}', "resourceSpans: expected an array"),
        (b'{"resourceSpans": [7]}', "resourceSpans[0]: expected an object"),
        (b'{"resourceSpans": [{}, {"resource": 7}]}', "resourceSpans[1].resource: not what"),
        (
            b'{"resourceSpans": [{"scopeSpans": [{"spans": 7}]}]}',
            "resourceSpans[0].scopeSpans[0].spans: expected an array",
        ),
        (
            b'{"resourceSpans": [{"scopeSpans": [{"scope": {"name": 7}}]}]}',
            "resourceSpans[0].scopeSpans[0].scope: not what",
        ),
        (b'{"resourceSpans": [{"schemaUrl": 7}]}', "resourceSpans[0].schemaUrl: expected a text"),
    ],
)
def test_a_body_that_is_refused_as_a_whole(
    translator: OtlpJson, body: bytes, expected: str
) -> None:
    with pytest.raises(RequestError) as failure:
        translator.export_request(body)
    assert str(failure.value).startswith(expected)


@pytest.mark.parametrize("body", [b"{}", b'{"resourceSpans": null}', b'\xef\xbb\xbf{"a": 1}'])
def test_a_body_without_spans(translator: OtlpJson, body: bytes) -> None:
    assert translator.export_request(body) == b""


def nested(depth: int) -> Any:
    value: Any = {"intValue": 1}
    for level in range(depth):
        values = [value] if level % 2 else [{"key": "k", "value": value}]
        value = {"arrayValue" if level % 2 else "kvlistValue": {"values": values}}
    return with_value(**value)


def test_nesting_is_bounded(translator: OtlpJson) -> None:
    deep, too_deep = nested(pure_otlp_json.MAX_DEPTH), nested(pure_otlp_json.MAX_DEPTH + 1)
    assert translated(translator, request_of(deep)) == referee(request_of(deep))
    raw = translator.export_request(json.dumps(request_of(too_deep)).encode())
    assert list(decode_export(raw).batch.rejected_positions) == [0]


@pytest.mark.parametrize("body", [b"{}", b"[]", b"{"])
def test_the_collection_of_garbage_goes_on(translator: OtlpJson, body: bytes) -> None:
    for is_enabled in (False, True):
        (gc.enable if is_enabled else gc.disable)()
        try:
            with suppress(RequestError):
                translator.export_request(body)
            assert gc.isenabled() == is_enabled
        finally:
            gc.enable()


def test_a_body_of_too_many_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pure_otlp_json, "MAX_JSON_MARKS", 100)
    assert pure_otlp_json.export_request(b'{"a": [%b0]}' % (b"0," * 90)) == b""
    with pytest.raises(RequestTooLargeError, match="100 values"):
        pure_otlp_json.export_request(b'{"a": [%b0]}' % (b"0," * 99))


def test_more_keys_than_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pure_otlp_json, "MAX_KNOWN_KEYS", 5)
    document = request_of(span_of(attributes=[{"key": f"k{n % 9}"} for n in range(40)]))
    for _ in range(2):
        assert translated(otlp_json.select("pure"), document) == referee(document)
        assert len(pure_otlp_json._known_keys) <= 5
