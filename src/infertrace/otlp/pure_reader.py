"""Reads protobuf's wire format as strictly as csrc/common/wire_read.h does.

Source of the format: Protocol Buffers, "Encoding".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from infertrace.wire.protobuf import FIXED32, FIXED64, LENGTH_DELIMITED, VARINT, WireError

_SIZES: Final = {FIXED64: 8, FIXED32: 4}
_GROUP: Final = 3
_END_OF_GROUP: Final = 4
_MAX_DEPTH: Final = 100
_MAX_TAG: Final = 2**32 - 1
_MAX_SIZE: Final = 2**31 - 1
_UINT64_MASK: Final = 2**64 - 1

Value = int | bytes
"""Of a varint or a fixed number its bits, of what has a length its bytes."""


def places(message: bytes, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The tag of each field but groups in a part of a message, and where its value lies.

    What has a length lies after it. Raises WireError.
    """
    while position < end:
        tag, position = _tag(message, position, end)
        kind = tag & 7
        if kind == VARINT:
            after = _varint(message, position, end, 10)[1]
        elif kind in _SIZES:
            after = position + _SIZES[kind]
        elif kind == LENGTH_DELIMITED:
            size, position = _varint(message, position, end, 5)
            if size > _MAX_SIZE:
                raise WireError("a size beyond the largest")
            after = position + size
        else:
            position = _skip_group(message, position, end, tag, _MAX_DEPTH)
            continue
        if after > end:
            raise WireError("cut short within a field")
        yield tag, position, after
        position = after


def fields(message: bytes) -> Iterator[tuple[int, Value]]:
    """The tag and the value of each field but groups; raises WireError."""
    for tag, start, end in places(message, 0, len(message)):
        kind = tag & 7
        value: Value = message[start:end]
        if kind == VARINT:
            value = _varint(message, start, end, 10)[0]
        elif kind in _SIZES:
            value = int.from_bytes(message[start:end], "little")
        yield tag, value


def _tag(message: bytes, position: int, end: int) -> tuple[int, int]:
    tag, position = _varint(message, position, end, 5)
    if tag > _MAX_TAG or not tag >> 3:
        raise WireError("no tag")
    return tag, position


def _varint(message: bytes, position: int, end: int, max_bytes: int) -> tuple[int, int]:
    value = 0
    for index in range(max_bytes):
        if position == end:
            raise WireError("cut short within a varint")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value & _UINT64_MASK, position
    raise WireError("a varint of too many bytes")


def _skip_group(message: bytes, position: int, end: int, tag: int, depth: int) -> int:
    if tag & 7 != _GROUP or depth <= 0:
        raise WireError("no wire type, or groups too deep in one another")
    while True:
        following, position = _tag(message, position, end)
        kind = following & 7
        if kind == _END_OF_GROUP:
            if following >> 3 != tag >> 3:
                raise WireError("the end of another group")
            return position
        if kind == LENGTH_DELIMITED:
            size, position = _varint(message, position, end, 5)
            if size > _MAX_SIZE:
                raise WireError("a size beyond the largest")
            position += size
        elif kind == VARINT:
            _, position = _varint(message, position, end, 10)
        elif kind in _SIZES:
            position += _SIZES[kind]
        else:
            position = _skip_group(message, position, end, following, depth - 1)
        if position > end:
            raise WireError("cut short within a group")
