"""Reads protobuf's wire format as strictly as csrc/common/wire_read.h does.

Source of the format: Protocol Buffers, "Encoding".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from infertrace.wire.protobuf import FIXED32, FIXED64, LENGTH_DELIMITED, VARINT, WireError

_GROUP: Final = 3
_END_OF_GROUP: Final = 4
_MAX_DEPTH: Final = 100
_MAX_TAG: Final = 2**32 - 1
_MAX_SIZE: Final = 2**31 - 1
_UINT64_MASK: Final = 2**64 - 1

Value = int | bytes
"""Of a varint or a fixed number its bits, of what has a length its bytes."""


def fields(message: bytes) -> Iterator[tuple[int, Value]]:
    """The tag and the value of each field but groups; raises WireError."""
    position = 0
    end = len(message)
    while position < end:
        tag, position = _tag(message, position)
        kind = tag & 7
        value: Value
        if kind == LENGTH_DELIMITED:
            size, position = _varint(message, position, 5)
            if size > _MAX_SIZE or size > end - position:
                raise WireError("cut short within a field")
            value = message[position : position + size]
            position += size
        elif kind == VARINT:
            value, position = _varint(message, position, 10)
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
            if size > end - position:
                raise WireError("cut short within a number")
            value = int.from_bytes(message[position : position + size], "little")
            position += size
        else:
            position = _skip_group(message, position, tag, _MAX_DEPTH)
            continue
        yield tag, value


def _tag(message: bytes, position: int) -> tuple[int, int]:
    tag, position = _varint(message, position, 5)
    if tag > _MAX_TAG or not tag >> 3:
        raise WireError("no tag")
    return tag, position


def _varint(message: bytes, position: int, max_bytes: int) -> tuple[int, int]:
    value = 0
    for index in range(max_bytes):
        if position == len(message):
            raise WireError("cut short within a varint")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value & _UINT64_MASK, position
    raise WireError("a varint of too many bytes")


def _skip_group(message: bytes, position: int, tag: int, depth: int) -> int:
    if tag & 7 != _GROUP or depth <= 0:
        raise WireError("no wire type, or groups too deep in one another")
    while True:
        following, position = _tag(message, position)
        kind = following & 7
        if kind == _END_OF_GROUP:
            if following >> 3 != tag >> 3:
                raise WireError("the end of another group")
            return position
        if kind == LENGTH_DELIMITED:
            size, position = _varint(message, position, 5)
            if size > _MAX_SIZE:
                raise WireError("a size beyond the largest")
            position += size
        elif kind == VARINT:
            _, position = _varint(message, position, 10)
        elif kind in (FIXED64, FIXED32):
            position += 8 if kind == FIXED64 else 4
        else:
            position = _skip_group(message, position, following, depth - 1)
        if position > len(message):
            raise WireError("cut short within a group")
