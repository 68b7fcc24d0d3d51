"""Reads what a dead process left in its spool, however damaged the file is."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final
from zlib import crc32

from infertrace.buffering.ledger import DROP_REASONS
from infertrace.buffering.left_spans import DamagedSpansError, LeftSpans, Record
from infertrace.buffering.spool_file import (
    BATCH_AT,
    COMMITTED,
    COUNTER,
    DROPPED_AT,
    HEADER,
    MAGIC,
    RECORD,
    RESOURCE_AT,
    RESOURCE_SIZE_AT,
    SETTLED_AT,
    SUFFIX,
    UNFINISHED_SUFFIX,
    room_for,
)
from infertrace.limits import MAX_SPAN_BYTES

if TYPE_CHECKING:
    from infertrace.buffering.ledger import DropReason

_UNFINISHED_AGE_S: Final = 60.0
_MAX_FILE_BYTES: Final = 2 * 1024**3
# A multiple of the alignment, and more than a header with its resource.
_WINDOW_BYTES: Final = 1024 * 1024
_ALIGNMENT: Final = 8
# More than any process counts to; the wire holds 63 bits.
_MAX_COUNT: Final = 2**62
_COMMITTED: Final = COMMITTED.to_bytes(4, sys.byteorder)


# Spans dropped for this reason have a sequence number, since they had been in the buffer.
_DROPPED_LATER: Final = "rejected"
_REJECTED_AT: Final = DROPPED_AT + DROP_REASONS.index(_DROPPED_LATER) * COUNTER.size


class SpoolReader(LeftSpans):
    """A spool that nobody writes to any more; takes the descriptor over, once it is one."""

    def __init__(self, descriptor: int, name: str) -> None:
        """Raises DamagedSpansError."""
        self.name = name
        self._descriptor = descriptor
        self._read()

    def _read(self) -> None:
        size = os.fstat(self._descriptor).st_size
        if not RESOURCE_AT <= size <= _MAX_FILE_BYTES:
            raise DamagedSpansError(f"{self.name}: {size} bytes are no spool")
        # Neither mapped, since somebody may truncate it, nor read whole, since it may be large.
        head = os.pread(self._descriptor, min(size, _WINDOW_BYTES), 0)
        if len(head) < RESOURCE_AT:
            raise DamagedSpansError(f"{self.name}: {len(head)} bytes are no spool")
        fields = HEADER.unpack_from(head)
        magic, self._seed, start, self.producer_id, capacity = fields[:5]
        counters: list[int] = list(fields[5:])
        self.settled_sequence, self._head, self.last_sequence, self.batch_sequence = counters[:4]
        self.dropped: dict[DropReason, int] = dict(zip(DROP_REASONS, counters[4:], strict=False))
        """By reason; what was dropped before it got a sequence number, and what was refused."""
        resource_bytes = int.from_bytes(head[RESOURCE_SIZE_AT:RESOURCE_AT], sys.byteorder)
        if (
            magic != MAGIC
            or not RESOURCE_AT + resource_bytes <= min(start, len(head))
            or start > size
            or capacity % _ALIGNMENT
            or max(counters) > _MAX_COUNT
        ):
            raise DamagedSpansError(f"{self.name}: no spool, or one of another version")
        self.resource = head[RESOURCE_AT : RESOURCE_AT + resource_bytes]
        """The encoded field `SendSpanBatchRequest.resource`."""
        self._start = start
        self._capacity = capacity
        # Of a truncated file, the part of the ring that is left.
        self._ring_bytes = min(capacity, size - start)
        self._window = b""
        self._window_at = 0

    @property
    def produced(self) -> int:
        """Spans that ended in the process that is gone."""
        early = sum(count for why, count in self.dropped.items() if why != _DROPPED_LATER)
        return self.last_sequence + early

    def records(self) -> Iterator[Record]:
        """The spans that were not settled, in order; skips what is torn or damaged."""
        expected = self.settled_sequence + 1
        head = self._head % self._capacity if self._capacity else 0
        for at, end in ((head, self._ring_bytes), (0, min(head, self._ring_bytes))):
            while at < end:
                record = self._record_at(at)
                if record is None:
                    # The end or damage: look for another whole record further on.
                    at = self._next_word(at + _ALIGNMENT, end)
                    continue
                at += room_for(len(record.span))
                if record.sequence >= expected:  # else it is left from an earlier round
                    # The owner may have been killed after the record, before it counted it.
                    self.last_sequence = max(self.last_sequence, record.sequence)
                    yield record
                    expected = record.sequence + 1

    def _next_word(self, at: int, end: int) -> int:
        """Where the next commit word is, or the end."""
        while at < end:
            window = self._read_ring(at, min(_WINDOW_BYTES, end - at))
            found = window.find(_COMMITTED)
            while found >= 0 and found % _ALIGNMENT:
                found = window.find(_COMMITTED, found + 1)
            if found >= 0:
                return at + found
            at += _WINDOW_BYTES
        return end

    def _record_at(self, at: int) -> Record | None:
        head = self._read_ring(at, RECORD.size)
        if len(head) < RECORD.size:
            return None
        commit, checksum, sequence, size, _ = RECORD.unpack(head)
        if commit != COMMITTED or sequence > _MAX_COUNT or size > MAX_SPAN_BYTES:
            return None
        record = self._read_ring(at, RECORD.size + size)
        if len(record) < RECORD.size + size or crc32(record[8:], self._seed) != checksum:
            return None
        return Record(sequence, record[RECORD.size :])

    def _read_ring(self, at: int, size: int) -> bytes:
        """Those bytes of the ring; fewer where it ends or was truncated."""
        size = min(size, self._ring_bytes - at)
        offset = at - self._window_at
        if not 0 <= offset <= len(self._window) - size:
            self._window = os.pread(
                self._descriptor,
                min(max(size, _WINDOW_BYTES), self._ring_bytes - at),
                self._start + at,
            )
            self._window_at = at
            offset = 0
        return self._window[offset : offset + max(size, 0)]

    def settle(self, sequence: int, batch_sequence: int, rejected: int = 0) -> None:
        """Store that the spans up to this one are settled, in case this process is killed too."""
        if rejected:
            all_rejected = self.dropped.get(_DROPPED_LATER, 0) + rejected
            os.pwrite(self._descriptor, COUNTER.pack(all_rejected), _REJECTED_AT)
        os.pwrite(self._descriptor, COUNTER.pack(sequence), SETTLED_AT)
        os.pwrite(self._descriptor, COUNTER.pack(batch_sequence), BATCH_AT)
        self.settled_sequence, self.batch_sequence = sequence, batch_sequence

    def remove(self) -> None:
        """Nobody else knows of a memory."""

    def close(self) -> None:
        os.close(self._descriptor)


class LeftSpool(SpoolReader):
    """A spool file whose owner is gone; locked while this object is open.

    Raises BlockingIOError where the owner lives or another process drains it, FileNotFoundError
    where another process has drained it, and DamagedSpansError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # O_NONBLOCK: a FIFO of that name must not hold us up.
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.fstat(descriptor).st_nlink:
                raise FileNotFoundError(f"{path} has been drained by another process")
            super().__init__(descriptor, str(path))
        except BaseException:
            os.close(descriptor)
            raise

    def remove(self) -> None:
        """Delete the file, of which all is settled."""
        self.path.unlink(missing_ok=True)  # somebody may have deleted it


def left_in(directory: Path) -> list[Path]:
    """The spools in a directory, of live and of dead processes, the oldest first."""
    found = []
    with contextlib.suppress(OSError):
        for path in directory.iterdir():
            if path.suffix == SUFFIX:
                with contextlib.suppress(OSError):  # another process has just drained it
                    found.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(found)]


def remove_unfinished(directory: Path) -> None:
    """Remove the files of processes that were killed while they made a spool."""
    with contextlib.suppress(OSError):
        for path in directory.iterdir():
            if path.suffix == UNFINISHED_SUFFIX:
                with contextlib.suppress(OSError):
                    _remove_unfinished(path)


def _remove_unfinished(path: Path) -> None:
    # A live process locks its file just after it has created it.
    if time.time() - path.stat().st_mtime < _UNFINISHED_AGE_S:
        return
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    finally:
        os.close(descriptor)
