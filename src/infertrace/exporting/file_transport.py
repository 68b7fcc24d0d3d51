"""Batches into a file, for where no collector can be reached; `infertrace replay` sends them on.

Format: one encoded SendSpanBatchRequest after the other, each after its length as a varint
(what protobuf libraries call length-delimited or length-prefixed). Any number of processes may
append to one file.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from infertrace.exporting.answer import Answer, Retryable
from infertrace.exporting.envelope import Request
from infertrace.exporting.transport import Transport
from infertrace.wire.protobuf import varint

try:
    import fcntl
except ImportError:  # Windows: one process per file
    fcntl = None  # type: ignore[assignment]

_MAX_REQUEST_BYTES: Final = 64 * 1024 * 1024  # the largest that OTLP advises receivers to take
_MAX_SIZE_SHIFT: Final = 28  # a varint of that size

_APPEND: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)

MAX_FILE_BYTES: Final = 64 * 1024 * 1024
"""A file that would grow beyond this is renamed first, to `PATH.1`, `PATH.2`, ..."""


class Unreadable(ValueError):
    """The file ends in a partial batch (its writer was killed), or is not a file of batches."""


class FileTransport(Transport):
    """Appends to a file, which it creates if need be; the folder must exist."""

    def __init__(self, path: Path, max_bytes: int = MAX_FILE_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._file: BinaryIO | None = None

    def send(self, request: Request, span_count: int, timeout_s: float) -> Answer:
        record = b"".join((varint(sum(map(len, request))), *request))
        try:
            with self._locked(len(record)) as file:
                start = os.fstat(file.fileno()).st_size
                try:
                    if file.write(record) < len(record):
                        raise OSError(f"no room for a batch in {self._path}")
                    os.fsync(file.fileno())
                except OSError:
                    # A partial batch would hide all batches after it.
                    file.truncate(start)
                    raise
        except OSError as error:
            raise Retryable(str(error)) from None
        return Answer(span_count, 0, "")

    @contextlib.contextmanager
    def _locked(self, needed_bytes: int) -> Iterator[BinaryIO]:
        """The file: open, locked, still at its path, and with room."""
        while True:
            if self._file is None:
                # Only the owner may read it: spans may hold private data.
                self._file = os.fdopen(os.open(self._path, _APPEND, 0o600), "ab", buffering=0)
                fresh = True
            else:
                fresh = False
            file = self._file
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
            try:
                if self._is_at_its_path(file):
                    size = os.fstat(file.fileno()).st_size
                    full = size > 0 and size + needed_bytes > self._max_bytes
                    # A reader would not find a batch behind a partial one.
                    if not full and not (fresh and not _is_readable(self._path)):
                        yield file
                        return
                    self._move_away()
            finally:
                if fcntl is not None and not file.closed:
                    fcntl.flock(file, fcntl.LOCK_UN)
            self.close()

    def _is_at_its_path(self, file: BinaryIO) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), self._path.stat())
        except FileNotFoundError:
            return False

    def _move_away(self) -> None:
        number = 1
        while (other := self._path.with_name(f"{self._path.name}.{number}")).exists():
            number += 1
        if fcntl is None:
            self.close()  # Windows renames no open file
        self._path.rename(other)

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def after_fork_in_child(self) -> None:
        self.close()


def read_batches(path: Path) -> Iterator[bytes]:
    """The encoded requests of a file, in their order.

    Raises Unreadable after the last whole one where something else follows it; OSError.
    """
    with path.open("rb") as file:
        while (size := _read_size(file)) is not None:
            request = file.read(size)
            if len(request) < size:
                raise Unreadable(f"{path}: ends within a batch")
            yield request


def _is_readable(path: Path) -> bool:
    try:
        for _ in read_batches(path):
            pass
    except Unreadable:
        return False
    return True


def _read_size(file: BinaryIO) -> int | None:
    size = shift = 0
    while byte := file.read(1):
        size |= (byte[0] & 0x7F) << shift
        shift += 7
        if size > _MAX_REQUEST_BYTES or shift > _MAX_SIZE_SHIFT:
            raise Unreadable(f"{file.name}: not a file of batches")
        if byte[0] < 0x80:
            return size
    if shift:
        raise Unreadable(f"{file.name}: ends within a batch")
    return None
