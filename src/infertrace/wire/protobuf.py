"""Varints and length-delimited fields, for what is written or read without the protobuf runtime.

Source: Protocol Buffers, "Encoding", https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from functools import lru_cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

VARINT: Final = 0
FIXED64: Final = 1
LENGTH_DELIMITED: Final = 2
FIXED32: Final = 5

_UINT64_MASK: Final = 2**64 - 1
# Bytes of a varint, by their seven bits: the last one, and the others.
_LAST: Final = [bytes((bits,)) for bits in range(0x80)]
_MORE: Final = [bytes((bits | 0x80,)) for bits in range(0x80)]
_MAX_SHIFT: Final = 63


class WireError(ValueError):
    """The bytes are not protobuf."""


class TruncatedError(WireError):
    """The bytes end within a field."""


def varint(value: int) -> bytes:
    """The bytes of an integer of 64 bits; a negative one as its two's complement."""
    if not 0 <= value <= _UINT64_MASK:
        value &= _UINT64_MASK
    if value < 0x80:
        return _LAST[value]
    if value < 0x4000:
        return _MORE[value & 0x7F] + _LAST[value >> 7]
    if value < 0x20_0000:
        return _MORE[value & 0x7F] + _MORE[value >> 7 & 0x7F] + _LAST[value >> 14]
    low = _MORE[value & 0x7F] + _MORE[value >> 7 & 0x7F] + _MORE[value >> 14 & 0x7F]
    if value < 0x1000_0000:
        return low + _LAST[value >> 21]
    return low + _MORE[value >> 21 & 0x7F] + _high_bytes(value >> 28)


@lru_cache(maxsize=256)  # points in time, which are mostly close to one another
def _high_bytes(value: int) -> bytes:
    return varint(value)


def delimited(tag: bytes, body: bytes) -> bytes:
    """A field of bytes: its tag, its length, and `body`."""
    size = len(body)
    return tag + (_LAST[size] if size < 0x80 else varint(size)) + body


def read_varint(message: bytes, position: int) -> tuple[int, int]:
    """The unsigned integer at `position`, and the position after it; raises WireError."""
    value = shift = 0
    try:
        while True:
            byte = message[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, position
            shift += 7
            if shift > _MAX_SHIFT:
                raise WireError("a varint of more than ten bytes")
    except IndexError:
        raise TruncatedError("cut short within a varint") from None


def skip_field(message: bytes, position: int) -> int:
    """The position after the field at `position`, which may lie beyond the end; WireError."""
    tag, position = read_varint(message, position)
    return skip_value(message, position, tag & 7)


def skip_value(message: bytes, position: int, wire_type: int) -> int:
    """The position after the value at `position`, which may lie beyond the end; WireError."""
    if wire_type == VARINT:
        return read_varint(message, position)[1]
    if wire_type == LENGTH_DELIMITED:
        size, position = read_varint(message, position)
        return position + size
    if wire_type == FIXED64:
        return position + 8
    if wire_type == FIXED32:
        return position + 4
    raise WireError(f"the wire type {wire_type}")


def delimited_fields(message: bytes, number: int) -> Iterator[bytes]:
    """The bodies of all length-delimited fields of that number; raises WireError."""
    position = 0
    while position < len(message):
        tag, start = read_varint(message, position)
        position = skip_value(message, start, tag & 7)
        if position > len(message):
            raise TruncatedError("cut short within a field")
        if tag >> 3 == number and tag & 7 == LENGTH_DELIMITED:
            size, start = read_varint(message, start)
            yield message[start : start + size]
