"""Arrow columns as the rows of PostgreSQL's binary COPY, in Python."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

_COUNT = struct.Struct(">h")
_LENGTH = struct.Struct(">i")
_ABSENT = _LENGTH.pack(-1)
_ID_OFFSET = 1 << 63


def encode_columns(given: Sequence[tuple[int, bool, Any]], rows: int) -> bytes:
    """The rows, without the header and the trailer.

    Each column is (size, is_id, buffers): the bytes of a value (0 for text), whether it is an id,
    and the buffers of its Arrow array, which begins with the first row.
    """
    columns = [_values(size, is_id, buffers, rows) for size, is_id, buffers in given]
    count = _COUNT.pack(len(columns))
    return b"".join(count + b"".join(row) for row in zip(*columns, strict=True))


def _values(size: int, is_id: bool, buffers: Any, rows: int) -> list[bytes]:
    validity, values, *text = buffers
    present = None if validity is None else memoryview(validity).cast("B")
    data = memoryview(values).cast("B")
    offsets = data.cast("i") if size == 0 else None
    found = []
    for row in range(rows):
        if present is not None and not present[row >> 3] >> (row & 7) & 1:
            found.append(_ABSENT)
            continue
        if offsets is not None:
            value = bytes(memoryview(text[0])[offsets[row] : offsets[row + 1]]) if text[0] else b""
        else:
            value = bytes(data[size * row : size * row + size])
            if is_id:
                value = struct.pack(">Q", struct.unpack("=Q", value)[0] ^ _ID_OFFSET)
            elif size in (4, 8):
                code = "I" if size == 4 else "Q"
                value = struct.pack(f">{code}", *struct.unpack(f"={code}", value))
        found.append(_LENGTH.pack(len(value)) + value)
    return found
