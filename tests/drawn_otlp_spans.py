"""Spans as any sender of our wire may write them, the numbers of later versions included."""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import strategies as st

from drawn_fields import TEXT, any_message
from infertrace.generated import span_pb2
from infertrace.wire.protobuf import delimited, varint

TIMES = st.integers(1, 2**62)
COUNTS = st.integers(0, 2**32 - 1)


def ids(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size).filter(any)


def scalar(value: Any) -> bytes:
    """An AttributeValue, of what Python has a type for."""
    if isinstance(value, bool):
        return b"\x10" + varint(value)
    if isinstance(value, str):
        return delimited(b"\x0a", value.encode())
    if isinstance(value, int):
        return b"\x18" + varint(value)
    if isinstance(value, float):
        return b"\x21" + struct.pack("<d", value)
    if isinstance(value, bytes):
        return delimited(b"\x2a", value)
    if isinstance(value, list):
        return delimited(b"\x32", b"".join(delimited(b"\x0a", scalar(it)) for it in value))
    if isinstance(value, dict):
        return delimited(b"\x3a", entries(b"\x0a", value))
    return b""


def entries(tag: bytes, values: dict[str, Any]) -> bytes:
    """Entries of a map<string, AttributeValue>."""
    return b"".join(
        delimited(tag, delimited(b"\x0a", key.encode()) + delimited(b"\x12", scalar(value)))
        for key, value in values.items()
    )


SCALARS = st.one_of(
    TEXT, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.binary()
)
VALUES = st.recursive(
    st.one_of(SCALARS, st.none()),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
ATTRIBUTES = st.dictionaries(TEXT, VALUES, max_size=3)
EVENTS = st.tuples(st.integers(0, 2**62), TEXT, ATTRIBUTES, COUNTS)
LINKS = st.tuples(ids(16), ids(8), ATTRIBUTES, TEXT, COUNTS, COUNTS)


@st.composite
def spans(draw: st.DrawFn) -> dict[str, Any]:
    """What a span holds, by the names of span.proto."""
    start = draw(TIMES)
    return {
        "trace_id": draw(ids(16)),
        "span_id": draw(ids(8)),
        "parent_span_id": draw(st.just(b"") | ids(8)),
        "service_name": draw(st.sampled_from(["", "a", "b"])),
        "operation_name": draw(st.sampled_from(["inference", "", "embeddings"]) | TEXT),
        "start_time_unix_nano": start,
        "duration_nanos": draw(st.integers(0, 2**63 - 1 - start)),
        "status": draw(st.sampled_from(["OK", "ERROR", "CANCELLED", ""])),
        "status_message": draw(TEXT),
        "tags": draw(st.dictionaries(TEXT, TEXT, max_size=3)),
        "inference": draw(any_message(span_pb2.InferenceContext)),
        "resources": draw(any_message(span_pb2.ResourceMetrics)),
        "invalid_field_count": draw(COUNTS),
        "attributes": draw(ATTRIBUTES),
        "events": draw(st.lists(EVENTS, max_size=2)),
        "links": draw(st.lists(LINKS, max_size=2)),
        "kind": draw(st.integers(0, 5)),
        "trace_state": draw(TEXT),
        "scope_name": draw(st.sampled_from(["", "", "other"])),
        "scope_version": draw(TEXT),
        "dropped_attributes_count": draw(COUNTS),
        "dropped_events_count": draw(COUNTS),
        "dropped_links_count": draw(COUNTS),
        "flags": draw(st.sampled_from([0, 1, 0x101, 0x301]) | COUNTS),
        "status_code": draw(st.integers(0, 2)),
        "scope_attributes": draw(st.just({}) | ATTRIBUTES),
    }


NUMBERS = {"invalid_field_count": 16, "kind": 17, "dropped_attributes_count": 21}
NUMBERS |= {"dropped_events_count": 22, "dropped_links_count": 23, "flags": 24, "status_code": 25}
TEXTS = {"trace_state": 18, "scope_name": 19, "scope_version": 20}
PLAIN = (
    *("trace_id", "span_id", "parent_span_id", "service_name", "operation_name", "status"),
    *("start_time_unix_nano", "duration_nanos", "status_message", "tags", "inference"),
    "resources",
)


def encode(span: dict[str, Any]) -> bytes:
    """An encoded Span."""
    plain = {name: span[name] for name in PLAIN if name in span}
    out = span_pb2.Span(**plain).SerializeToString()
    out += entries(b"\x6a", span.get("attributes", {}))
    for time_ns, name, attributes, dropped in span.get("events", ()):
        body = b"\x08" + varint(time_ns) + delimited(b"\x12", name.encode())
        out += delimited(b"\x72", body + entries(b"\x1a", attributes) + b"\x20" + varint(dropped))
    for trace_id, span_id, attributes, state, dropped, flags in span.get("links", ()):
        body = delimited(b"\x0a", trace_id) + delimited(b"\x12", span_id)
        body += entries(b"\x1a", attributes) + delimited(b"\x22", state.encode())
        out += delimited(b"\x7a", body + b"\x28" + varint(dropped) + b"\x30" + varint(flags))
    for name, number in NUMBERS.items():
        out += varint(number << 3) + varint(span.get(name, 0))
    for name, number in TEXTS.items():
        out += delimited(varint(number << 3 | 2), span.get(name, "").encode())
    return out + entries(varint(26 << 3 | 2), span.get("scope_attributes", {}))


def envelope(
    *encoded: bytes, resource: dict[str, Any] | None = None, producer: bytes = b""
) -> bytes:
    """An envelope of encoded spans, as `exporting/envelope.py` lays it out."""
    out = b"".join(delimited(b"\x0a", span) for span in encoded)
    if producer:
        out += delimited(b"\x12", producer)
    return out + b"\x18\x01" + delimited(b"\x3a", entries(b"\x0a", resource or {}))
