"""Attributes of OTLP as entries of a `map<string, AttributeValue>`, and as Python values.

A KeyValue of OTLP and an entry of that map have the same layout; the numbers of some kinds of value
differ. Source of OTLP's numbers: opentelemetry/proto/common/v1/common.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final

from infertrace.wire.protobuf import (
    FIXED32,
    FIXED64,
    LENGTH_DELIMITED,
    VARINT,
    TruncatedError,
    WireError,
    delimited,
    read_varint,
    skip_value,
    varint,
)

MAX_VALUE_DEPTH: Final = (
    32  # arrays and maps in one another; JSON and protobuf bear no endless ones
)
MAX_SIZE_BYTES: Final = 5  # of a tag, or of a size

_UINT64: Final = 2**64
_DOUBLE = struct.Struct("<d")

FieldValue = int | bytes
"""Of a varint or a fixed-size field its unsigned number, of a length-delimited one its bytes."""


def field_places(message: bytes, position: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Number and wire type of each field, and where its value begins and ends; raises WireError.

    The value of a length-delimited field is what follows its length.
    """
    while position < end:
        tag, after_tag = read_varint(message, position)
        number, wire_type = tag >> 3, tag & 7
        is_known = wire_type in (VARINT, FIXED64, LENGTH_DELIMITED, FIXED32)
        if not 0 < number < 2**29 or not is_known or after_tag - position > MAX_SIZE_BYTES:
            raise WireError("not a tag of protobuf")
        position = after = skip_value(message, after_tag, wire_type)
        if after > end:
            raise TruncatedError("cut short within a field")
        start = after_tag
        if wire_type == LENGTH_DELIMITED:
            start = read_varint(message, after_tag)[1]
            if start - after_tag > MAX_SIZE_BYTES:
                raise WireError("not a size of protobuf")
        yield number, wire_type, start, after


def fields(message: bytes) -> Iterator[tuple[int, int, FieldValue]]:
    """Number, wire type and value of each field, in order; raises WireError."""
    for number, wire_type, start, end in field_places(message, 0, len(message)):
        value: FieldValue = message[start:end]
        if wire_type == VARINT:
            value = read_varint(message, start)[0] % _UINT64
        elif wire_type != LENGTH_DELIMITED:
            value = int.from_bytes(message[start:end], "little")
        yield number, wire_type, value


class AttributeReader:
    """Reads attributes; `replaced_count` counts what it could not keep as it was."""

    def __init__(self) -> None:
        self.replaced_count = 0

    def text(self, raw: bytes) -> str:
        """A text; what is not UTF-8 becomes U+FFFD."""
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self.replaced_count += 1
            return raw.decode(errors="replace")

    def attribute(self, key_value: bytes) -> tuple[str, Any, bytes]:
        """Key, value, and the body of an entry with both; raises WireError."""
        return self._key_value(key_value, 0)

    def _key_value(self, raw: bytes, depth: int) -> tuple[str, Any, bytes]:
        key, body = b"", b""
        for number, wire_type, value in fields(raw):
            if isinstance(value, bytes) and wire_type == LENGTH_DELIMITED:
                if number == 1:
                    key = value
                elif number == 2:
                    body += value  # two messages of the same field are one, merged
        text = self.text(key)
        found, encoded = self._any_value(body, depth)
        entry = delimited(b"\x0a", text.encode()) + delimited(b"\x12", encoded)
        return text, found, entry

    def _any_value(self, raw: bytes, depth: int) -> tuple[Any, bytes]:
        """A value, and the body of an AttributeValue that holds it."""
        kind, last = 0, b""
        number_value = 0
        for number, wire_type, value in fields(raw):
            expected = _WIRE_TYPES.get(number)
            if expected != wire_type:
                continue
            if isinstance(value, int):
                number_value = value
            elif number == kind and number in (_ARRAY, _MAP):
                last += value
            else:
                last = value
            kind = number
        if kind == _TEXT:
            text = self.text(last)
            return text, delimited(b"\x0a", text.encode())
        if kind == _BOOL:
            return number_value != 0, b"\x10\x01" if number_value else b"\x10\x00"
        if kind == _INT:
            signed = number_value - _UINT64 if number_value >> 63 else number_value
            return signed, b"\x18" + varint(number_value)
        if kind == _DOUBLE_KIND:
            packed = number_value.to_bytes(8, "little")
            return _DOUBLE.unpack(packed)[0], b"\x21" + packed
        if kind == _BYTES:
            return last, delimited(b"\x2a", last)
        if kind in (_ARRAY, _MAP):
            if depth >= MAX_VALUE_DEPTH:
                self.replaced_count += 1
                return None, b""
            members = self._array if kind == _ARRAY else self._map
            found, encoded = members(last, depth + 1)
            return found, delimited(b"\x32" if kind == _ARRAY else b"\x3a", encoded)
        return None, b""

    def _array(self, raw: bytes, depth: int) -> tuple[list[Any], bytes]:
        found, encoded = [], b""
        for body in _members(raw):
            value, member = self._any_value(body, depth)
            found.append(value)
            encoded += delimited(b"\x0a", member)
        return found, encoded

    def _map(self, raw: bytes, depth: int) -> tuple[dict[str, Any], bytes]:
        found, encoded = {}, b""
        for body in _members(raw):
            key, value, member = self._key_value(body, depth)
            found[key] = value
            encoded += delimited(b"\x0a", member)
        return found, encoded


def _members(raw: bytes) -> Iterator[bytes]:
    for number, _, value in fields(raw):
        if number == 1 and isinstance(value, bytes):
            yield value


_TEXT, _BOOL, _INT, _DOUBLE_KIND, _ARRAY, _MAP, _BYTES = range(1, 8)
_WIRE_TYPES: Final = {
    _TEXT: LENGTH_DELIMITED,
    _BOOL: VARINT,
    _INT: VARINT,
    _DOUBLE_KIND: FIXED64,
    _ARRAY: LENGTH_DELIMITED,
    _MAP: LENGTH_DELIMITED,
    _BYTES: LENGTH_DELIMITED,
}
