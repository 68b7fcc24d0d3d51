"""Writes records to a spool, as csrc/recorder/spool.h does. spool_file.py has the format."""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING
from zlib import crc32

from infertrace.buffering.spool_file import (
    COMMITTED,
    COUNTER,
    DROPPED_AT,
    HEAD_AT,
    LAST_AT,
    RECORD,
    SETTLED_AT,
    WRAP,
    room_for,
)

if TYPE_CHECKING:
    from infertrace.buffering.spool_file import SpoolFile

_WORD = struct.Struct("=I")
_WORDS = struct.Struct("=II")


class SpoolWriter:
    """For one thread at a time. A failed write raises nothing; it becomes the file's `failure`."""

    def __init__(self, file: SpoolFile) -> None:
        self._file = file
        # A duplicate: another thread may close the file while this one is about to write.
        self._descriptor = os.dup(file.descriptor)
        self._seed = file.seed
        self._start = file.header_bytes
        self._capacity = file.size_bytes - file.header_bytes
        self._head = self._tail = 0
        # The number of each record that is not settled, and where it ends.
        self._records: deque[tuple[int, int]] = deque()

    def append(self, span: bytes, sequence: int) -> bool:
        """Keep a span; False where the ring has no room for it."""
        room = room_for(len(span))
        place = self._tail % self._capacity
        rest = self._capacity - place
        skipped = rest if rest < room else 0
        if self._tail + skipped + room - self._head > self._capacity:
            return False
        if skipped:
            if rest >= RECORD.size:
                self._write(_WORD.pack(WRAP), self._start + place)
            self._tail += skipped
            place = 0
        at = self._start + place
        body = RECORD.pack(0, 0, sequence, len(span), 0)[8:] + span
        self._write(_WORDS.pack(0, crc32(body, self._seed)) + body, at)
        self._write(_WORD.pack(COMMITTED), at)
        self._write(COUNTER.pack(sequence), LAST_AT)
        self._tail += room
        self._records.append((sequence, self._tail))
        return True

    def settle(self, sequence: int) -> None:
        """The spans up to this one need not be kept any longer."""
        while self._records and self._records[0][0] <= sequence:
            self._head = self._records.popleft()[1]
        # In this order: a reader skips records that the sequence says are settled.
        self._write(COUNTER.pack(sequence), SETTLED_AT)
        self._write(COUNTER.pack(self._head), HEAD_AT)

    def set_dropped(self, counts: Iterable[int]) -> None:
        """Spans dropped so far, in the order of `DROP_REASONS`."""
        for number, count in enumerate(counts):
            self._write(COUNTER.pack(count), DROPPED_AT + number * COUNTER.size)

    def _write(self, content: bytes, at: int) -> None:
        try:
            os.pwrite(self._descriptor, content, at)
        except OSError as error:  # the span is held in memory all the same
            self._file.failure = error

    def close(self) -> None:
        """Write no more."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    __del__ = close  # in a forked child, which drops it
