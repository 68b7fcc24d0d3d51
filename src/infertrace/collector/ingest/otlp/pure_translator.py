"""The translator of spans in Python: the reference of the compiled one, which leaves to it each
span with something unusual.

Source of OTLP's numbers: opentelemetry/proto/trace/v1/trace.proto; of ours: proto/span.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from infertrace.collector.ingest.otlp.attribute_values import AttributeReader
from infertrace.collector.ingest.wire_fields import RequestError
from infertrace.generated.dialect_sources import CONTEXT_FIELDS
from infertrace.otlp.dialects import (
    FLOAT32_MAX,
    INT64_MAX,
    ForeignSpan,
    FoundFields,
    find_fields,
)
from infertrace.otlp.pure_reader import fields, places
from infertrace.wire.protobuf import (
    FIXED32,
    FIXED64,
    LENGTH_DELIMITED,
    VARINT,
    WireError,
    delimited,
    varint,
)

NAME: Final = "pure"

UINT32_MASK: Final = 2**32 - 1
MALFORMED_SPAN: Final = b"\x0a\x01\x00"  # a span that the decoder rejects, by itself
STATUS_TEXTS: Final = {1: b"OK", 2: b"ERROR"}
_CONTEXT_TAGS: Final = {"InferenceContext": b"\x52", "ResourceMetrics": b"\x5a"}
_FLOAT = struct.Struct("<f").pack
_DOUBLE = struct.Struct("<d").pack


class Translator:
    """Collects the translated spans of one request."""

    def __init__(self, max_spans: int) -> None:
        self._max_spans = max_spans
        self._spans: list[bytes] = []

    def add(
        self,
        raw: bytes,
        start: int,
        end: int,
        head: bytes,
        tail: bytes,
        scope_name: str,
        cut_count: int,
    ) -> int:
        """Translate the spans of the ScopeSpans that lies from `start` to `end`; their number.

        `head` and `tail` are fields of ours that each of them gets, those of its resource and of
        its scope; `cut_count` says how many of these are cut or left out. Raises WireError where
        the bytes between the spans are no protobuf, and RequestError for too many spans.
        """
        count = 0
        for tag, first, last in places(raw, start, end):
            if tag == _SPANS_TAG:
                if len(self._spans) >= self._max_spans:
                    raise RequestError(f"more than {self._max_spans} spans in one request")
                self._spans.append(
                    translate_span(raw[first:last], head, tail, scope_name, cut_count)
                )
                count += 1
        return count

    def take(self) -> bytes:
        """The spans, as the field `spans` of a SendSpanBatchRequest."""
        return b"".join(self._spans)


def find_messages(
    raw: bytes, start: int, end: int, number: int, limit: int
) -> list[tuple[int, int]]:
    """Where the messages in the fields of that number begin and end, within a message.

    Raises WireError where that is no protobuf, and RequestError beyond the limit.
    """
    found: list[tuple[int, int]] = []
    for tag, first, last in places(raw, start, end):
        if tag == number << 3 | LENGTH_DELIMITED:
            if len(found) >= limit:
                raise RequestError(f"more than {limit} resources, or scopes of one, in one request")
            found.append((first, last))
    return found


def translate_span(raw: bytes, head: bytes, tail: bytes, scope_name: str, cut_count: int) -> bytes:
    """One span of OTLP as one of ours, with its tag."""
    try:
        return delimited(b"\x0a", _translated(raw, head, tail, scope_name, cut_count))
    except WireError:
        return MALFORMED_SPAN


@dataclass
class _Parts:
    """The fields of a span of OTLP; of those that are not repeated, the last one."""

    texts: dict[int, bytes] = field(default_factory=dict)
    numbers: dict[int, int] = field(default_factory=dict)
    attributes: list[bytes] = field(default_factory=list)
    events: list[bytes] = field(default_factory=list)
    links: list[bytes] = field(default_factory=list)
    status: bytes = b""


_SPANS_TAG: Final = 2 << 3 | LENGTH_DELIMITED
_TEXT_TAGS: Final = {number << 3 | LENGTH_DELIMITED: number for number in (1, 2, 3, 4, 5)}
_NUMBER_TAGS: Final = {
    **{number << 3 | VARINT: number for number in (6, 10, 12, 14)},
    **{number << 3 | FIXED64: number for number in (7, 8)},
    16 << 3 | FIXED32: 16,
}


def _parts(raw: bytes) -> _Parts:
    parts = _Parts()
    for tag, value in fields(raw):
        if isinstance(value, int):
            if tag in _NUMBER_TAGS:
                parts.numbers[_NUMBER_TAGS[tag]] = value
        elif tag in _TEXT_TAGS:
            parts.texts[_TEXT_TAGS[tag]] = value
        elif tag >> 3 == 9:
            parts.attributes.append(value)
        elif tag >> 3 == 11:
            parts.events.append(value)
        elif tag >> 3 == 13:
            parts.links.append(value)
        elif tag >> 3 == 15:
            parts.status += value
    return parts


def _translated(raw: bytes, head: bytes, tail: bytes, scope_name: str, cut_count: int) -> bytes:
    parts = _parts(raw)
    reader = AttributeReader()
    start_ns, end_ns = parts.numbers.get(7, 0), parts.numbers.get(8, 0)
    duration_ns = min(max(end_ns - start_ns, 0), INT64_MAX)
    invalid_count = int(end_ns < start_ns) + cut_count
    code, message = _status(parts.status)
    named = delimited(b"\x0a", parts.texts.get(1, b"")) + delimited(
        b"\x12", parts.texts.get(2, b"")
    )
    if parent := parts.texts.get(4, b""):
        named += delimited(b"\x1a", parent)
    out = [named, head, _text_field(b"\x2a", parts.texts.get(5, b""), reader)]
    out.append(b"\x30" + varint(start_ns))
    if duration_ns:
        out.append(b"\x38" + varint(duration_ns))
    if code in STATUS_TEXTS:
        out.append(delimited(b"\x42", STATUS_TEXTS[code]))
    out.append(_text_field(b"\x62", message, reader))
    attributes: dict[str, object] = {}
    for body in parts.attributes:
        key, value, entry = reader.attribute(body)
        attributes.pop(key, None)
        attributes[key] = value
        out.append(delimited(b"\x6a", entry))
    events = []
    for body in parts.events:
        name, time_ns, encoded = _event(body, reader)
        events.append((name, time_ns))
        out.append(delimited(b"\x72", encoded))
    out += [delimited(b"\x7a", _link(body, reader)) for body in parts.links]
    own_words, own_invalid_count = _own_words(attributes)
    out += [_langfuse_status(attributes, code, message), own_words]
    found = find_fields(ForeignSpan(attributes, events, scope_name, start_ns, duration_ns))
    rest = [
        _number_field(b"\x88\x01", parts.numbers.get(6, 0)),
        _text_field(b"\x92\x01", parts.texts.get(3, b""), reader),
        _number_field(b"\xa8\x01", parts.numbers.get(10, 0)),
        _number_field(b"\xb0\x01", parts.numbers.get(12, 0)),
        _number_field(b"\xb8\x01", parts.numbers.get(14, 0)),
        _number_field(b"\xc0\x01", parts.numbers.get(16, 0)),
        _number_field(b"\xc8\x01", code),
        tail,
        *(_context(message, named_fields, found) for message, named_fields in CONTEXT_FIELDS),
    ]
    invalid_count += reader.replaced_count + found.unusable_count + own_invalid_count
    return b"".join([*out, _number_field(b"\x80\x01", invalid_count), *rest])


def _own_words(attributes: Mapping[str, object]) -> tuple[bytes, int]:
    """What infertrace itself says in OTLP beside the values of fields: those, and a count.

    Of a field that is there twice, the last one counts.
    """
    out = b""
    operation_name = attributes.get("infertrace.operation_name")
    if isinstance(operation_name, str) and operation_name:
        out += delimited(b"\x2a", operation_name.encode())
    if attributes.get("infertrace.status") == "CANCELLED":
        out += delimited(b"\x42", b"CANCELLED")
    count = attributes.get("infertrace.invalid_field_count")
    is_count = isinstance(count, int) and not isinstance(count, bool) and 0 <= count <= UINT32_MASK
    return out, count if is_count and isinstance(count, int) else 0


def _langfuse_status(attributes: Mapping[str, object], code: int, message: bytes) -> bytes:
    """What Langfuse says in attributes of a span whose status is unset."""
    if code or attributes.get("langfuse.observation.level") != "ERROR":
        return b""
    said = attributes.get("langfuse.observation.status_message")
    has_message = isinstance(said, str) and said and not message
    return delimited(b"\x42", b"ERROR") + (
        delimited(b"\x62", str(said).encode()) if has_message else b""
    )


def _status(raw: bytes) -> tuple[int, bytes]:
    code, message = 0, b""
    for tag, value in fields(raw):
        if tag >> 3 == 2 and isinstance(value, bytes):
            message = value
        elif tag == 3 << 3 | VARINT and isinstance(value, int):
            code = value & UINT32_MASK
    return code, message


def _text_field(tag: bytes, raw: bytes, reader: AttributeReader) -> bytes:
    return delimited(tag, reader.text(raw).encode()) if raw else b""


def _number_field(tag: bytes, value: int) -> bytes:
    """A field of 32 bits, absent where it is 0."""
    number = value & UINT32_MASK
    return tag + varint(number) if number else b""


def _event(raw: bytes, reader: AttributeReader) -> tuple[str, int, bytes]:
    time_ns, name, dropped = 0, b"", 0
    attributes: list[bytes] = []
    for tag, value in fields(raw):
        if isinstance(value, bytes):
            if tag >> 3 == 2:
                name = value
            elif tag >> 3 == 3:
                attributes.append(value)
        elif tag == 1 << 3 | FIXED64:
            time_ns = min(value, INT64_MAX)
        elif tag == 4 << 3 | VARINT:
            dropped = value
    text = reader.text(name)
    out = b"\x08" + varint(time_ns) + delimited(b"\x12", text.encode())
    out += b"".join(delimited(b"\x1a", reader.attribute(body)[2]) for body in attributes)
    return text, time_ns, out + _number_field(b"\x20", dropped)


def _link(raw: bytes, reader: AttributeReader) -> bytes:
    texts, dropped, flags = {1: b"", 2: b"", 3: b""}, 0, 0
    attributes: list[bytes] = []
    for tag, value in fields(raw):
        if isinstance(value, bytes):
            if tag >> 3 in texts:
                texts[tag >> 3] = value
            elif tag >> 3 == 4:
                attributes.append(value)
        elif tag == 5 << 3 | VARINT:
            dropped = value
        elif tag == 6 << 3 | FIXED32:
            flags = value
    out = delimited(b"\x0a", texts[1]) + delimited(b"\x12", texts[2])
    out += b"".join(delimited(b"\x1a", reader.attribute(body)[2]) for body in attributes)
    out += _text_field(b"\x22", texts[3], reader)
    return out + _number_field(b"\x28", dropped) + _number_field(b"\x30", flags)


def _context(
    message: str, named_fields: tuple[tuple[str, bytes, str], ...], found: FoundFields
) -> bytes:
    out = b""
    for name, tag, kind in named_fields:
        value = found.values.get(name)
        if value is None:
            continue
        if isinstance(value, str):
            out += delimited(tag, value.encode())
        elif isinstance(value, bytes):
            out += delimited(tag, value)
        elif kind in ("count", "size", "ordinal"):
            out += tag + varint(int(value))
        elif kind in ("measure", "ratio"):
            out += tag + _FLOAT(min(value, FLOAT32_MAX))
        else:
            out += tag + _DOUBLE(value)
    return delimited(_CONTEXT_TAGS[message], out) if out else b""
