"""Attributes of OTLP as entries of a `map<string, AttributeValue>`, and as Python values.

A KeyValue of OTLP and an entry of that map have the same layout; the numbers of some kinds of value
differ. Source of OTLP's numbers: opentelemetry/proto/common/v1/common.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final

from infertrace.otlp.pure_reader import fields
from infertrace.wire.protobuf import delimited, varint

MAX_VALUE_DEPTH: Final = (
    32  # arrays and maps in one another; JSON and protobuf bear no endless ones
)
_UINT64: Final = 2**64
_DOUBLE = struct.Struct("<d")


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
        for tag, value in fields(raw):
            if tag == _KEY and isinstance(value, bytes):
                key = value
            elif tag == _VALUE and isinstance(value, bytes):
                body += value  # two messages of the same field are one, merged
        text = self.text(key)
        found, encoded = self._any_value(body, depth)
        entry = delimited(b"\x0a", text.encode()) + delimited(b"\x12", encoded)
        return text, found, entry

    def _any_value(self, raw: bytes, depth: int) -> tuple[Any, bytes]:
        """A value, and the body of an AttributeValue that holds it."""
        kind, last = 0, b""
        number_value = 0
        for tag, value in fields(raw):
            if tag not in _KINDS:
                continue
            if isinstance(value, int):
                number_value = value
            elif tag == kind and tag in (_ARRAY, _MAP):
                last += value
            else:
                last = value
            kind = tag
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
    for tag, value in fields(raw):
        if tag == _MEMBERS and isinstance(value, bytes):
            yield value


_KEY, _VALUE = 0x0A, 0x12  # of a KeyValue
_MEMBERS = 0x0A  # of an ArrayValue and of a KeyValueList
# Of an AnyValue.
_KINDS = _TEXT, _BOOL, _INT, _DOUBLE_KIND, _ARRAY, _MAP, _BYTES = (
    *(0x0A, 0x10, 0x18, 0x21),
    *(0x2A, 0x32, 0x3A),
)
