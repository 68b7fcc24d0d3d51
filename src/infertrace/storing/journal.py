"""What was acknowledged and is not in the database yet: an append-only log of Arrow batches.

An entry is a header (how many bytes follow, their CRC-32) and then a JSON text and the columns of
its rows that hold a value, as one message of Arrow IPC. Entries are numbered; files are named
after the first number in them, and a file all of whose entries are in the database is removed.
"""

from __future__ import annotations

import errno
import json
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from infertrace.storing.span_rows import SCHEMA
from infertrace.storing.store import StoreError

MAX_FILE_BYTES = 64 * 1024 * 1024  # then the next one is begun

_HEADER = struct.Struct("<II")  # bytes that follow, their CRC-32
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Entry:
    """Rows that are durable, and the accounts as of then, as JSON types."""

    number: int
    rows: pa.RecordBatch
    accounts: list[list[Any]]


class Journal:
    """The journal beside the database at `path`. One thread at a time may use it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._size = 0
        self._firsts: list[int] = sorted(
            int(found.suffix[1:])
            for found in path.parent.glob(f"{path.name}.journal.*")
            if found.suffix[1:].isdigit()
        )

    def read(self) -> Iterator[Entry]:
        """All entries in order. What a kill left half written was never acknowledged: it ends
        its file, and the next file goes on."""
        for first in self._firsts:
            with self._name(first).open("rb") as file:
                while (entry := _read_entry(file)) is not None:
                    yield entry

    def append(self, entry: Entry) -> None:
        """Make an entry durable; raises StoreError, and then it is not in the journal."""
        parts = _parts(entry)
        size = sum(map(len, parts))
        try:
            file = self._open(entry.number)
            written = os.writev(file, parts)
            if written != size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fdatasync(file)
        except OSError as error:
            # Whatever state it is in, nothing more is written behind it.
            self._end_file(self._size)
            raise StoreError(f"cannot write the journal of {self._path}: {error}") from error
        self._size += size

    def forget(self, number: int) -> None:
        """Remove files of which no entry is wanted any more: all are numbered up to `number`."""
        while len(self._firsts) > 1 and self._firsts[1] <= number + 1:
            self._name(self._firsts.pop(0)).unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove all of it."""
        self.close()
        while self._firsts:
            self._name(self._firsts.pop()).unlink(missing_ok=True)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _name(self, first: int) -> Path:
        return self._path.with_name(f"{self._path.name}.journal.{first}")

    def _open(self, number: int) -> int:
        if self._size >= MAX_FILE_BYTES:
            self._end_file(None)
        if self._file is None:
            flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_APPEND
            self._file = os.open(self._name(number), flags | getattr(os, "O_BINARY", 0), 0o600)
            self._size = 0
            if number not in self._firsts:
                self._firsts.append(number)
            _sync_directory(self._path.parent)
        return self._file

    def _end_file(self, keep_bytes: int | None) -> None:
        if self._file is None:
            return
        if keep_bytes is not None:
            with suppress(OSError):
                os.ftruncate(self._file, keep_bytes)
        self.close()
        self._size = 0


def _parts(entry: Entry) -> list[bytes]:
    present = [
        place for place, column in enumerate(entry.rows.columns) if column.null_count < len(column)
    ]
    text = json.dumps([entry.number, present, entry.accounts], separators=(",", ":")).encode()
    rows = entry.rows.select(present).serialize()
    text = _LENGTH.pack(len(text)) + text
    checksum = zlib.crc32(rows, zlib.crc32(text))
    return [_HEADER.pack(len(text) + len(rows), checksum), text, rows]


def _read_entry(file: Any) -> Entry | None:
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    size, checksum = _HEADER.unpack(header)
    body = file.read(size)
    if len(body) < size or size < _LENGTH.size or zlib.crc32(body) != checksum:
        return None
    (length,) = _LENGTH.unpack_from(body)
    end = _LENGTH.size + length
    number, present, accounts = json.loads(body[_LENGTH.size : end])
    schema = pa.schema([SCHEMA.field(place) for place in present])
    found = pa.ipc.read_record_batch(pa.py_buffer(body[end:]), schema)
    columns = [pa.nulls(len(found), field.type) for field in SCHEMA]
    for place, column in zip(present, found.columns, strict=True):
        columns[place] = column
    return Entry(number, pa.RecordBatch.from_arrays(columns, schema=SCHEMA), accounts)


def _sync_directory(path: Path) -> None:
    """Make the name of a new file durable."""
    if os.name != "posix":
        return
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
