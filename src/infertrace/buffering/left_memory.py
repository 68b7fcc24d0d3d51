"""Reads the memory that a traced process shared with its sender, once that process is gone.

The format, in the byte order of the machine: a header, slots, the resource as it is sent, and after
`header_bytes` the room for spans. A slot in use is a run of encoded spans, one behind the other, as
`SendSpanBatchRequest.spans`; where a span has the tag 0, it is settled. One of two accounts is
active; the spans that it names are settled too. The writer, csrc/recorder/shared_memory.h, says in
which order it stores what.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from infertrace.buffering.ledger import DROP_REASONS
from infertrace.buffering.spool_reader import DamagedSpoolError, Record
from infertrace.wire.protobuf import WireError, read_varint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from infertrace.buffering.ledger import DropReason

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
_MAX_MEMORY_BYTES: Final = 16 * 1024**3


class _Slot(NamedTuple):
    first_sequence: int
    used: int
    span_count: int
    place: int


class LeftMemory:
    """The spans that a process had in memory when it ended. Raises DamagedSpoolError.

    descriptor: of the memory; it becomes this object's own.
    """

    def __init__(self, descriptor: int) -> None:
        try:
            size = os.fstat(descriptor).st_size
            if not _HEADER.size + 2 * _ACCOUNT.size <= size <= _MAX_MEMORY_BYTES:
                raise DamagedSpoolError(f"{size} bytes are no memory of spans")
            self._memory = mmap.mmap(descriptor, size, prot=mmap.PROT_READ)
        finally:
            os.close(descriptor)
        (
            magic,
            self._header_bytes,
            slot_count,
            self._slot_bytes,
            self.producer_id,
            self.batch_sequence,
            self._next_sequence,
            resource_bytes,
            active,
        ) = _HEADER.unpack_from(self._memory)
        accounts_end = _HEADER.size + 2 * _ACCOUNT.size
        resource_at = accounts_end + slot_count * _SLOT.size
        if (
            magic != MAGIC
            or active > 1
            or not resource_at + resource_bytes <= self._header_bytes <= size
        ):
            self._memory.close()
            raise DamagedSpoolError("no memory of spans, or one of another version")
        account = _ACCOUNT.unpack_from(self._memory, _HEADER.size + active * _ACCOUNT.size)
        self._delivered, self._settled, *dropped, first, count = account
        self._settled_last = range(first, first + count)
        self.dropped: dict[DropReason, int] = dict(zip(DROP_REASONS, dropped, strict=False))
        """By reason, so far."""
        slots = (
            _Slot._make(_SLOT.unpack_from(self._memory, accounts_end + number * _SLOT.size))
            for number in range(slot_count)
        )
        self._slots = sorted(slot for slot in slots if slot.first_sequence)
        self.resource = self._memory[resource_at : resource_at + resource_bytes]
        """The encoded field `SendSpanBatchRequest.resource`."""
        self._found = sum(1 for _ in self.records())

    @property
    def produced(self) -> int:
        """Spans that ended in the process that is gone."""
        return self._delivered + sum(self.dropped.values()) + self._found + self.damaged

    @property
    def damaged(self) -> int:
        """Spans that had ended, and of which nothing whole is here."""
        return max(self._next_sequence - 1 - self._settled - self._found, 0)

    def records(self) -> Iterator[Record]:
        """The spans that were not settled, in order; skips what is torn or damaged."""
        for slot in self._slots:
            yield from self._records_of(slot)

    def _records_of(self, slot: _Slot) -> Iterator[Record]:
        if not self._header_bytes <= slot.place <= slot.place + slot.used <= len(self._memory):
            return
        run = self._memory[slot.place : slot.place + slot.used]
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
        self._memory.close()
