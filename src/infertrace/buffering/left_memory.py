"""Reads the memory that a traced process shared with its sender, once that process is gone.

The format, in the byte order of the machine: a header, slots, the resource as it is sent, and after
`header_bytes` the room for spans. A slot in use is a run of encoded spans, one behind the other, as
`SendSpanBatchRequest.spans`; where a span has the tag 0, it is settled. One of two accounts is
active; the spans that it names are settled too. The writer, csrc/recorder/shared_memory.h, says in
which order it stores what.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from infertrace.buffering.ledger import DROP_REASONS
from infertrace.buffering.left_spans import DamagedSpansError, LeftSpans, Record
from infertrace.wire.protobuf import WireError, read_varint

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC: Final = b"ITSHARE\x01"

_HEADER: Final = struct.Struct("=8sIIQ16sQQII")
"""Magic, bytes of the header, slots, bytes of a slot, producer id, batch sequence, number of the
next span, bytes of the resource, which account is active."""
_ACCOUNT: Final = struct.Struct("=QQ8QQQ")
"""Spans delivered, settled, dropped (in the order of `DROP_REASONS`); the first of those settled
last, and how many."""
_SLOT: Final = struct.Struct("=QqqQ")
"""Number of the first span (0: not in use), bytes, spans, place (0: not in this memory)."""
_SPAN_TAG: Final = 0x0A
_SETTLED_TAG: Final = 0
_ACCOUNTS_END: Final = _HEADER.size + 2 * _ACCOUNT.size
_MAX_MEMORY_BYTES: Final = 16 * 1024**3
# More than a header or a slot of ours takes: another number would only have us allocate that.
_MAX_PART_BYTES: Final = 64 * 1024**2


_PRODUCER_AT: Final = 24
_PRODUCER_BYTES: Final = 16


def producer_of(descriptor: int) -> bytes:
    """Whose memory it is; any bytes where it is none."""
    return os.pread(descriptor, _PRODUCER_BYTES, _PRODUCER_AT)


class _Slot(NamedTuple):
    first_sequence: int
    used: int
    span_count: int
    place: int


class LeftMemory(LeftSpans):
    """The spans that a process had in memory when it ended."""

    numbers_follow = False

    def __init__(self, descriptor: int, name: str) -> None:
        """Takes the descriptor over, unless it raises OSError or DamagedSpansError."""
        self.name = name
        size = os.fstat(descriptor).st_size
        if not _ACCOUNTS_END <= size <= _MAX_MEMORY_BYTES:
            raise DamagedSpansError(f"{name}: {size} bytes are no memory of spans")
        # Not mapped: its owner may be another user, live on, and cut it short.
        self._descriptor = descriptor
        self._size = size
        self._read(size)

    def _read(self, size: int) -> None:
        start = os.pread(descriptor := self._descriptor, _ACCOUNTS_END, 0)
        if len(start) < _ACCOUNTS_END:
            raise DamagedSpansError(f"{self.name}: {len(start)} bytes are no memory of spans")
        (
            magic,
            self._header_bytes,
            slot_count,
            _,
            self.producer_id,
            self.batch_sequence,
            next_sequence,
            resource_bytes,
            active,
        ) = _HEADER.unpack_from(start)
        resource_at = _ACCOUNTS_END + slot_count * _SLOT.size
        if (
            magic != MAGIC
            or active > 1
            or not resource_at + resource_bytes <= self._header_bytes <= size
            or self._header_bytes > _MAX_PART_BYTES
        ):
            raise DamagedSpansError(f"{self.name}: no memory of spans, or of another version")
        account = _ACCOUNT.unpack_from(start, _HEADER.size + active * _ACCOUNT.size)
        self._delivered, settled, *dropped, first, count = account
        self._settled_last = range(first, first + count)
        table = os.pread(descriptor, slot_count * _SLOT.size, _ACCOUNTS_END)
        slots = map(_Slot._make, _SLOT.iter_unpack(table[: len(table) // _SLOT.size * _SLOT.size]))
        self._slots = sorted(slot for slot in slots if slot.first_sequence)
        self.resource = os.pread(descriptor, resource_bytes, resource_at)
        self.settled_sequence = 0
        numbers = [record.sequence for record in self.records()]
        self.span_count = len(numbers)
        """Spans that were not settled when the process ended."""
        # It may have been killed after a span was whole, before it counted that.
        self.last_sequence = max(next_sequence - 1, *numbers[-1:], 0)
        self.settled_sequence = numbers[0] - 1 if numbers else self.last_sequence
        self.damaged = max(next_sequence - 1 - settled - self.span_count, 0)
        """Spans that had ended, and of which nothing whole is here."""
        self.dropped = dict(zip(DROP_REASONS, dropped, strict=False))
        self._produced: int = self._delivered + sum(dropped) + self.span_count + self.damaged

    @property
    def produced(self) -> int:
        return self._produced

    def records(self) -> Iterator[Record]:
        for slot in self._slots:
            for record in self._records_of(slot):
                if record.sequence > self.settled_sequence:
                    yield record

    def settle(self, sequence: int, batch_sequence: int, rejected: int = 0) -> None:
        self.settled_sequence, self.batch_sequence = sequence, batch_sequence

    def remove(self) -> None:
        """Nobody else knows it."""

    def _records_of(self, slot: _Slot) -> Iterator[Record]:
        if not self._header_bytes <= slot.place <= slot.place + slot.used <= self._size:
            return
        if slot.used > _MAX_PART_BYTES:
            return
        run = os.pread(self._descriptor, slot.used, slot.place)
        at, sequence = 0, slot.first_sequence
        while at < len(run):
            try:
                size, start = read_varint(run, at + 1)
            except WireError:
                return
            end = start + size
            if run[at] not in (_SPAN_TAG, _SETTLED_TAG) or end > len(run):
                return
            if run[at] == _SPAN_TAG and sequence not in self._settled_last:
                yield Record(sequence, run[at:end])
            at = end
            sequence += 1

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
