"""Both decoders make the same table of the same bytes, good or bad, and refuse the same ones."""

from __future__ import annotations

import json
import math
import random
import struct
from types import ModuleType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from drawn_fields import any_message, any_scalars
from infertrace import backend
from infertrace.collector.ingest import decoder_choice, pure_decoder, wire_fields
from infertrace.collector.ingest.decoded_spans import DecodedSpans
from infertrace.collector.ingest.wire_fields import RequestError
from infertrace.generated.span_pb2 import (
    ArrayValue,
    AttributeValue,
    Event,
    InferenceContext,
    KeyValue,
    KeyValueList,
    Link,
    ResourceMetrics,
    SendSpanBatchRequest,
    Span,
)


@pytest.fixture(scope="module")
def native() -> ModuleType:
    return pytest.importorskip("infertrace.collector.ingest.native_decoder")


INT64 = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63)])
INT32 = st.integers(-(2**31), 2**31 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["", "\x00", '"\\\b\f\n\r\t\x1f\x7f', "é漢🙂", "\u2028", "x" * 300]
)
DOUBLE = st.floats() | st.integers(-1074, 1023).map(lambda exponent: math.ldexp(1.0, exponent))
FLOAT = st.floats(width=32)
SCALAR = st.one_of(
    st.builds(AttributeValue),
    st.builds(AttributeValue, string_value=TEXT),
    st.builds(AttributeValue, bool_value=st.booleans()),
    st.builds(AttributeValue, int_value=INT64),
    st.builds(AttributeValue, double_value=DOUBLE),
)
KEY = TEXT | st.sampled_from(["$bytes", "$$bytes", "bytes"])


def members(values: st.SearchStrategy[AttributeValue]) -> st.SearchStrategy[AttributeValue]:
    pairs = st.lists(st.builds(KeyValue, key=KEY, value=values), max_size=3)
    return st.one_of(
        st.builds(
            AttributeValue, array_value=st.builds(ArrayValue, values=st.lists(values, max_size=3))
        ),
        st.builds(AttributeValue, key_value_list=st.builds(KeyValueList, values=pairs)),
    )


VALUE = st.recursive(
    SCALAR | st.builds(AttributeValue, bytes_value=st.binary(max_size=9)), members, max_leaves=6
)
ATTRIBUTES = st.dictionaries(KEY, VALUE, max_size=4)
TOTAL = st.integers(0, 2**32 - 1)


INFERENCE = any_message(InferenceContext)
RESOURCES = any_message(ResourceMetrics)
EVENT = st.builds(
    Event,
    time_unix_nano=INT64,
    name=TEXT,
    attributes=ATTRIBUTES,
    dropped_attributes_count=TOTAL,
)
LINK = st.builds(
    Link,
    trace_id=st.binary(max_size=20),
    span_id=st.binary(),
    attributes=ATTRIBUTES,
    trace_state=TEXT,
    dropped_attributes_count=TOTAL,
    flags=TOTAL,
)
MOSTLY_GOOD: dict[str, Any] = {
    "trace_id": st.binary(min_size=16, max_size=16) | st.binary(max_size=20),
    "span_id": st.binary(min_size=8, max_size=8) | st.binary(max_size=9),
    "start_time_unix_nano": st.integers(1, 2**62) | INT64,
    "duration_nanos": st.integers(0, 2**61) | INT64,
    "status": st.sampled_from(["OK", "ERROR", "CANCELLED", "", "LATE"]),
}


def span_of(fields: dict[str, Any]) -> Span:
    return Span(**fields)


SPAN = st.fixed_dictionaries(
    MOSTLY_GOOD,
    optional={
        **{name: drawn for name, drawn in any_scalars(Span).items() if name not in MOSTLY_GOOD},
        "parent_span_id": st.binary(min_size=8, max_size=8) | st.binary(max_size=9),
        "service_name": TEXT,
        "operation_name": TEXT,
        "status_message": TEXT,
        "tags": st.dictionaries(TEXT, TEXT, max_size=5),
        "attributes": ATTRIBUTES,
        "scope_attributes": ATTRIBUTES,
        "inference": INFERENCE,
        "resources": RESOURCES,
        "events": st.lists(EVENT, max_size=3),
        "links": st.lists(LINK, max_size=3),
    },
).map(span_of)


def outcome(module: Any, raw: bytes) -> DecodedSpans | str:
    try:
        return module.decode(raw)
    except RequestError:
        return "refused"


def assert_same(native: Any, raw: bytes) -> None:
    expected, found = outcome(pure_decoder, raw), outcome(native, raw)
    if isinstance(expected, str) or isinstance(found, str):
        assert expected == found, raw
        return
    found.rows.validate(full=True)
    assert found.rejections == expected.rejections, raw
    assert found.rows.schema.equals(expected.rows.schema)
    if not found.rows.equals(expected.rows):
        assert found.rows.to_pydict() == expected.rows.to_pydict(), raw
        raise AssertionError(raw)
    assert (found.span_count, found.others) == (expected.span_count, expected.others)


def delimited(payload: bytes, tag: int = 0x0A) -> bytes:
    return bytes([tag]) + varint(len(payload)) + payload


def varint(value: int, at_least_bytes: int = 1) -> bytes:
    """Also in more bytes than needed, as protobuf allows."""
    out = bytearray()
    while value > 0x7F or len(out) + 1 < at_least_bytes:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


@given(st.lists(SPAN, max_size=6))
def test_spans(native: Any, spans: list[Span]) -> None:
    assert_same(native, SendSpanBatchRequest(spans=spans).SerializeToString())


@given(st.lists(SPAN, min_size=1, max_size=3), st.data())
def test_damaged_spans(native: Any, spans: list[Span], data: st.DataObject) -> None:
    """Each span by itself, so that the damage also falls inside of it."""
    raw = b""
    for span in spans:
        damaged = bytearray(span.SerializeToString(deterministic=True))
        for _ in range(data.draw(st.integers(0, 3))):
            if damaged:
                place = data.draw(st.integers(0, len(damaged) - 1))
                damaged[place] = data.draw(st.integers(0, 255))
        raw += delimited(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))
    assert_same(native, raw)


@given(st.binary(max_size=200))
@example(b"\x08\x01" * 3 + delimited(b"")[:-1])
def test_any_bytes(native: Any, raw: bytes) -> None:
    assert_same(native, raw)
    assert_same(native, delimited(raw))


def nested(depth: int, number: int = 20) -> bytes:
    start, end = varint(number << 3 | 3), varint(number << 3 | 4)
    return start * depth + end * depth


def arrays(depth: int) -> bytes:
    """The body of a value, an array in an array and so on."""
    body = b"\x18\x05"
    for _ in range(depth):
        body = delimited(delimited(body), 0x32)
    return body


def value_parts() -> bytes:
    """A value of a map, an array of one that comes in two parts."""
    return delimited(delimited(delimited(b"\x18\x05"), 0x32), 0x12) * 2


GOOD = Span(
    trace_id=b"0123456789abcdef", span_id=b"01234567", start_time_unix_nano=5, status="OK"
).SerializeToString()
ENTRY = delimited(b"k", 0x0A)


@pytest.mark.parametrize(
    "more",
    {
        "group": nested(1),
        "deepest group": nested(100),
        "group too deep": nested(101),
        "group not closed": b"\xa3\x01",
        "group closed by another": b"\xa3\x01\xac\x01",
        "field 0": b"\x00\x01",
        "long tag": varint(4 << 3 | 2, 3) + b"\x01x",
        "longest tag": varint(4 << 3 | 2, 5) + b"\x01x",
        "tag too long": varint(4 << 3 | 2, 6) + b"\x01x",
        "tag beyond 32 bits": varint(1 << 35 | 2) + b"\x01x",
        "long size": b"\x22" + varint(1, 5) + b"x",
        "size too long": b"\x22" + varint(1, 6) + b"x",
        "size beyond 31 bits": b"\x22" + varint(2**31) + b"x",
        "longest varint": b"\x30" + b"\xff" * 9 + b"\x01",
        "varint beyond 64 bits": b"\x30" + b"\xff" * 9 + b"\x7f",
        "varint too long": b"\x30" + b"\xff" * 10 + b"\x01",
        "unknown varint of ten bytes": b"\xa0\x01" + b"\xff" * 9 + b"\x7f",
        "int32 of 64 bits": delimited(b"\x18" + varint(2**40 + 7), 0x52),
        "bool of 64 bits": delimited(ENTRY + delimited(b"\x10" + varint(2**40), 0x12), 0x6A),
        "wrong wire types": b"\x32\x01x" + b"\x20\x05" + b"\x4d1234" + b"\x55abcd",
        "inference in two parts": delimited(b"\x18\x07", 0x52) + delimited(b"\x20\x09", 0x52),
        "overlong text": b"\x22\x02\xc0\xaf",
        "surrogate": b"\x22\x03\xed\xa0\x80",
        "beyond unicode": b"\x22\x04\xf4\x90\x80\x80",
        "bytes that are no text in an id": delimited(b"\xff" * 16, 0x0A),
        "bad text in a tag's key": delimited(b"\x0a\x01\xff", 0x4A),
        "bad text in an event's name": delimited(b"\x12\x01\xff", 0x72),
        "same key twice": delimited(ENTRY + b"\x12\x011", 0x4A)
        + delimited(ENTRY + b"\x12\x012", 0x4A),
        "entries without keys": delimited(b"", 0x4A) * 2 + delimited(b"", 0x6A),
        "a value in two parts": delimited(ENTRY + b"\x12\x02\x18\x05" + b"\x12\x00", 0x6A),
        "a value set twice": delimited(ENTRY + delimited(b"\x18\x05\x0a\x01x", 0x12), 0x6A),
        "an array in two parts": delimited(
            ENTRY
            + delimited(delimited(delimited(b"\x18\x05"), 0x32) * 2, 0x12)
            + delimited(delimited(delimited(b"\x18\x06"), 0x32), 0x12),
            0x6A,
        ),
        "an array, then a map, then an array": delimited(
            ENTRY
            + delimited(
                delimited(delimited(b"\x18\x05"), 0x32)
                + delimited(delimited(ENTRY), 0x3A)
                + delimited(delimited(b"\x18\x07"), 0x32),
                0x12,
            ),
            0x6A,
        ),
        "a map's value in two parts": delimited(
            ENTRY + delimited(delimited(delimited(ENTRY + value_parts()), 0x3A), 0x12), 0x6A
        ),
        "deepest arrays": delimited(ENTRY + delimited(arrays(49), 0x12), 0x6A),
        "arrays too deep": delimited(ENTRY + delimited(arrays(50), 0x12), 0x6A),
        "bad text in an array": delimited(
            ENTRY + delimited(delimited(delimited(b"\x0a\x01\xff"), 0x32), 0x12), 0x6A
        ),
        "bad text in a map's key": delimited(
            ENTRY + delimited(delimited(delimited(b"\x0a\x01\xff"), 0x3A), 0x12), 0x6A
        ),
        "an unknown field in a map": delimited(
            ENTRY + delimited(delimited(delimited(ENTRY + b"\x18\x01"), 0x3A), 0x12), 0x6A
        ),
        "an entry with an unknown field": delimited(ENTRY + b"\x12\x01x\x18\x01", 0x4A)
        + delimited(ENTRY + b"\x10\x01", 0x6A),
        "many keys": b"".join(
            delimited(delimited(f"{n % 700:x}".encode()) + b"\x12\x01v", 0x4A) for n in range(2000)
        ),
    }.items(),
    ids=lambda pair: pair[0] if isinstance(pair, tuple) else None,
)
def test_the_corners_of_the_wire_format(native: Any, more: tuple[str, bytes]) -> None:
    assert_same(native, delimited(GOOD + more[1]))
    assert_same(native, delimited(GOOD) + delimited(GOOD + more[1]) + delimited(GOOD))
    assert_same(native, delimited(GOOD) + more[1])  # beside the spans


def test_mutations(native: Any) -> None:
    """Flipped, cut and doubled pieces of a request full of everything."""
    source = random.Random(20261122)
    attributes = {
        "text": AttributeValue(string_value="é\n"),
        "flag": AttributeValue(bool_value=True),
        "count": AttributeValue(int_value=-7),
        "share": AttributeValue(double_value=0.1),
    }
    span = Span.FromString(GOOD)
    span.MergeFrom(
        Span(
            parent_span_id=b"76543210",
            tags={"a": "1", "b": "2"},
            attributes=attributes,
            inference=InferenceContext(model_name="m", batch_size=3, cache_hit_rate=0.25),
            resources=ResourceMetrics(gpu_utilization_percent=12.5, gpu_memory_used_bytes=1),
            events=[Event(time_unix_nano=10**18, name="e", attributes=attributes)],
            links=[Link(trace_id=b"t" * 16, span_id=b"s" * 8, attributes=attributes)],
        )
    )
    inner = KeyValueList(values=[KeyValue(key="k", value=attributes["count"])])
    span.attributes["array"].array_value.values.extend(attributes.values())
    span.scope_attributes["map"].key_value_list.MergeFrom(inner)
    span.attributes["bytes"].bytes_value = b"\0\xff"
    valid = SendSpanBatchRequest(spans=[span] * 3, producer_id=b"p" * 16).SerializeToString()
    for _ in range(6_000):
        raw = bytearray(valid)
        for _ in range(source.randint(0, 3)):
            place, change = source.randrange(len(raw)), source.randrange(4)
            if change == 0:
                raw[place] = source.randrange(256)
            elif change == 1:
                raw[place] ^= 1 << source.randrange(8)
            elif change == 2:
                del raw[place : place + source.randint(1, 9)]
            else:
                raw[place:place] = raw[place : place + source.randint(1, 9)]
        assert_same(native, bytes(raw[: source.choice([len(raw), source.randint(0, len(raw))])]))


@pytest.mark.parametrize("value", [5e-324, 2.0**-44, 2.0**-1022, 9007199254740993.0, 1e16, 1e-5])
def test_numbers_are_written_as_python_writes_them(native: Any, value: float) -> None:
    span = Span.FromString(GOOD)
    span.attributes["x"].double_value = value
    rows = native.decode(SendSpanBatchRequest(spans=[span]).SerializeToString()).rows
    assert rows.column("attributes")[0].as_py() == f'{{"x":{value!r}}}'


def test_random_numbers(native: Any) -> None:
    source = random.Random(1)
    event = Event(name="e")
    values = [struct.unpack("d", source.randbytes(8))[0] for _ in range(3_000)]
    values += [math.ldexp(1.0, exponent) for exponent in range(-1074, 1024)]
    values = [value for value in values if math.isfinite(value)]
    for number, value in enumerate(values):
        event.attributes[str(number)].double_value = value
    span = Span.FromString(GOOD)
    span.events.append(event)
    raw = SendSpanBatchRequest(spans=[span]).SerializeToString()
    (found,) = json.loads(native.decode(raw).rows.column("events")[0].as_py())
    assert [found["attributes"][str(n)] for n in range(len(values))] == values
    assert_same(native, raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x0a\x00" * 70_000,
        b"\x10\x01" * 5_000,
        delimited(b"\x72\x00" * 300_000),
        delimited(b"\x7a\x01r" * 300_000),
        delimited(b"\x4a\x00" * 300_000 + GOOD),
        delimited(b"\x6a\x00" * 300_000 + GOOD),
    ],
    ids=["spans", "other fields", "events", "links", "empty tags", "empty attributes"],
)
def test_bombs(native: Any, raw: bytes) -> None:
    assert_same(native, raw)


def test_the_limits_are_those_of_wire_fields(native: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(wire_fields, "MAX_SPANS", 2)
    native.decode(delimited(GOOD) * 2)
    with pytest.raises(RequestError, match="more than 2 spans"):
        native.decode(delimited(GOOD) * 3)


def test_columns_outlive_their_table(native: Any) -> None:
    rows = native.decode(delimited(GOOD) * 100).rows
    column = rows.column("span_id")
    del rows
    assert set(column.to_pylist()) == {int.from_bytes(b"01234567", "big")}


def test_the_backend_chooses() -> None:
    assert decoder_choice.selected.NAME == backend.selected.NAME
    assert decoder_choice.select("pure") is pure_decoder
