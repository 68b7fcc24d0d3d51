"""Writes records to a spool: the twin of csrc/spool.h. See spool_file.py for the format."""

from __future__ import annotations

import struct
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


class SpoolWriter:
    """One thread at a time."""

    def __init__(self, file: SpoolFile) -> None:
        self._map = file.map
        self._count = file.count
        self._seed = file.seed
        self._start = file.header_bytes
        self._capacity = len(file.map) - file.header_bytes
        self._head = self._tail = 0

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
                _WORD.pack_into(self._map, self._start + place, WRAP)
            self._tail += skipped
            place = 0
        at = self._start + place
        body = RECORD.pack(0, 0, sequence, len(span), 0)[8:] + span
        _WORD.pack_into(self._map, at, 0)
        self._map[at + 4 : at + 8 + len(body)] = _WORD.pack(crc32(body, self._seed)) + body
        _WORD.pack_into(self._map, at, COMMITTED)
        self._count(LAST_AT, sequence)
        self._tail += room
        return True

    def settle(self, sequence: int) -> None:
        """The spans up to this one need not be kept any longer."""
        while self._head < self._tail:
            place = self._head % self._capacity
            rest = self._capacity - place
            if rest < RECORD.size:
                self._head += rest
                continue
            commit, _, found, size, _ = RECORD.unpack_from(self._map, self._start + place)
            if commit == WRAP:
                self._head += rest
                continue
            if found > sequence:
                break
            self._head += room_for(size)
        # In this order: a reader passes over records that the sequence says are settled.
        self._count(SETTLED_AT, sequence)
        self._count(HEAD_AT, self._head)

    def set_dropped(self, counts: Iterable[int]) -> None:
        """Spans dropped so far, in the order of `DROP_REASONS`."""
        for number, count in enumerate(counts):
            self._count(DROPPED_AT + number * COUNTER.size, count)
