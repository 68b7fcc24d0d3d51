"""AttributeValue into AnyValue, and entries of a map into KeyValues; csrc/otlp/any_value.h is the
compiled twin.

Scalars have the same numbers in both; bytes, arrays and lists have others.
Sources: proto/span.proto; opentelemetry/proto/common/v1/common.proto.
"""

from __future__ import annotations

from typing import Final

from infertrace.otlp.pure_reader import Value, fields
from infertrace.wire.protobuf import WireError, delimited, varint

# Arrays and lists in one another: receivers read at most 100 messages in one another, and a list
# is three.
MAX_DEPTH: Final = 30

_STRING, _BOOL, _INT, _DOUBLE, _BYTES, _ARRAY, _LIST = 0x0A, 0x10, 0x18, 0x21, 0x2A, 0x32, 0x3A
_KNOWN: Final = frozenset((_STRING, _BOOL, _INT, _DOUBLE, _BYTES, _ARRAY, _LIST))


def text(value: Value) -> bytes:
    """The bytes of a text; raises WireError where they are no UTF-8."""
    found = octets(value)
    try:
        found.decode()
    except UnicodeDecodeError:
        raise WireError("a text that is not UTF-8") from None
    return found


def octets(value: Value) -> bytes:
    """The value of a field that has a length."""
    assert isinstance(value, bytes)
    return value


def number(value: Value) -> int:
    """The value of a field that is a number."""
    assert isinstance(value, int)
    return value


def entry(message: bytes) -> tuple[bytes, bytes]:
    """The key and the value of an entry of a map, or of a KeyValue; raises WireError."""
    key = value = b""
    for tag, found in fields(message):
        if tag == 0x0A:
            key = text(found)
        elif tag == 0x12:
            value = octets(found)
    return key, value


def key_value(key: bytes, value: bytes, depth: int = MAX_DEPTH) -> bytes:
    """A KeyValue; raises WireError."""
    return delimited(b"\x0a", key) + delimited(b"\x12", any_value(value, depth))


def text_key_value(key: bytes, value: bytes) -> bytes:
    """A KeyValue that holds a text."""
    return delimited(b"\x0a", key) + delimited(b"\x12", delimited(b"\x0a", value))


def entries(message: bytes, tag: int, written_tag: bytes) -> bytes:
    """Every entry of a map<string, AttributeValue> under another tag; raises WireError."""
    return b"".join(
        delimited(written_tag, key_value(*entry(octets(found))))
        for next_tag, found in fields(message)
        if next_tag == tag
    )


def any_value(message: bytes, depth: int) -> bytes:
    """An AnyValue; of several fields the last counts. Raises WireError."""
    kind = 0
    value: Value = b""
    for tag, found in fields(message):
        if tag in _KNOWN:
            kind, value = tag, found
    if not kind:
        return b""
    if kind == _STRING:
        return delimited(b"\x0a", text(value))
    if kind == _BYTES:
        return delimited(b"\x3a", octets(value))
    if kind == _DOUBLE:
        return b"\x21" + number(value).to_bytes(8, "little")
    if kind in (_BOOL, _INT):
        return bytes((kind,)) + varint(number(value))
    if depth <= 0:
        raise WireError("values too deep in one another")
    parts = (octets(found) for tag, found in fields(octets(value)) if tag == 0x0A)
    if kind == _ARRAY:
        body = b"".join(delimited(b"\x0a", any_value(part, depth - 1)) for part in parts)
        return delimited(b"\x2a", body)
    body = b"".join(delimited(b"\x0a", key_value(*entry(part), depth - 1)) for part in parts)
    return delimited(b"\x32", body)
