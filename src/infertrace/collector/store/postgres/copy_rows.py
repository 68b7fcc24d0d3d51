"""Batches in the binary format of PostgreSQL's COPY, compiled or pure; `backend.part` chooses."""

from __future__ import annotations

from typing import Any, Protocol

import pyarrow as pa

from infertrace import backend
from infertrace.collector.store.columns import COLUMNS
from infertrace.collector.store.kinds import KINDS

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # no flags, no extension
TRAILER = b"\xff\xff"

# PostgreSQL's text cannot hold NUL. It is written as two characters, the first of them from the
# private use area; that one is itself written as two.
_ESCAPE, _NUL, _ITSELF = "\uf8f0", "\uf8f00", "\uf8f01"


def copy_rows(rows: pa.RecordBatch, *, positions: bool = False, name: str | None = None) -> bytes:
    """The bytes of a COPY of rows, in the order of COLUMNS; on request, their positions last."""
    arrays = list(rows.columns)
    kinds = [KINDS[column.kind] for column in COLUMNS]
    sizes = [kind.postgres_bytes for kind in kinds]
    ids = [kind.is_unsigned for kind in kinds]
    if positions:
        arrays.append(pa.array(range(len(rows)), type=pa.int32()))
        sizes.append(4)
        ids.append(False)
    given = [
        (size, is_id, _buffers(array, pa.types.is_string(array.type)))
        for array, size, is_id in zip(arrays, sizes, ids, strict=True)
    ]
    encoder = backend.part(_native, _pure, ("encode_columns",), name)
    return HEADER + encoder.encode_columns(given, len(rows)) + TRAILER


class CopyEncoder(Protocol):
    """A module that offers this is an encoder."""

    def encode_columns(self, given: list[Any], rows: int) -> bytes:
        """Rows of columns, each with its size in bytes, whether it is an id, and its buffers."""


def _native() -> CopyEncoder:
    import infertrace.collector.store.postgres.native_copy_rows as native

    return native


def _pure() -> CopyEncoder:
    import infertrace.collector.store.postgres.pure_copy_rows as pure

    return pure


def _buffers(array: pa.Array, is_text: bool) -> list[pa.Buffer | None]:
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if array.offset:
        array = pa.concat_arrays([array])
    if is_text and array.buffers()[2] is not None:
        text = memoryview(array.buffers()[2]).tobytes()
        if b"\0" in text or _ESCAPE.encode() in text:
            escaped = [None if value is None else escape(value) for value in array.to_pylist()]
            array = pa.array(escaped, type=pa.string())
    found: list[pa.Buffer | None] = array.buffers()
    return found


def escape(text: str) -> str:
    """A text without NUL, which PostgreSQL cannot hold."""
    if "\0" in text or _ESCAPE in text:
        return text.replace(_ESCAPE, _ITSELF).replace("\0", _NUL)
    return text


def unescape(text: str) -> str:
    """The text that `escape` was given."""
    if _ESCAPE in text:
        return text.replace(_NUL, "\0").replace(_ITSELF, _ESCAPE)
    return text
