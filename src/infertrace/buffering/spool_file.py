"""A spool: a file, mapped into memory, that holds the finished spans which are not settled yet.

What a process wrote to it is in the page cache, so it outlives the process, however that ends.
Not a crash of the machine: nothing here waits for a disk.

The format, in the byte order of the machine: a header, then a ring of records. A place in the
ring is a number of bytes that only grows, taken modulo the ring's size. A record is a commit word,
the CRC-32 of what follows from the file's random seed on, the span's sequence number, the size
of the span, and the span as it is sent, padded to 8 bytes. Where no whole record fits before
the end of the ring, the word `WRAP` (if there is room for one) says so. csrc/spool.h is the twin.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
from pathlib import Path
from typing import Final

MAGIC: Final = b"ITSPOOL\x01"
COMMITTED: Final = 0x17F7ACE5
WRAP: Final = 0x17F7ACE6
HEADER: Final = struct.Struct("=8sII16sQQQQQ8Q")
"""Magic, seed, bytes of the header, producer id, bytes of the ring, settled sequence, head, last
sequence, batch sequence, spans dropped (in the order of `DROP_REASONS`)."""
RECORD: Final = struct.Struct("=IIQII")
"""Commit word, checksum, sequence, size, zero."""
COUNTER: Final = struct.Struct("=Q")
_WORD: Final = struct.Struct("=I")
SETTLED_AT, HEAD_AT, LAST_AT, BATCH_AT, DROPPED_AT = 40, 48, 56, 64, 72
RESOURCE_SIZE_AT: Final = 136
RESOURCE_AT: Final = 140
SUFFIX: Final = ".spool"

_PAGE_BYTES: Final = 4096
# A span takes 24 bytes of framing, and one without anything in it about 60.
_FRAMED_SHARE: Final = 1.5


def room_for(size: int) -> int:
    """Bytes of the ring that a span of that size takes."""
    return RECORD.size + (size + 7 & ~7)


class SpoolFile:
    """Made and held by a live process, which has it locked.

    Raises OSError where there is no room on the disk, or no right to write.
    """

    def __init__(
        self, directory: Path, *, producer_id: bytes, resource: bytes, max_buffer_bytes: int
    ) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = directory / f"{os.getpid()}-{producer_id.hex()}{SUFFIX}"
        # With room for a resource that grows by a change of the configuration.
        header_bytes = (-(-(RESOURCE_AT + len(resource)) // _PAGE_BYTES) + 1) * _PAGE_BYTES
        self.header_bytes = header_bytes
        ring_bytes = int(max_buffer_bytes * _FRAMED_SHARE) & ~7
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        unfinished = self.path.with_suffix(".new")  # which no drainer looks for
        self._descriptor = os.open(unfinished, flags, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A sparse file on a full disk would end the process at the first write to it.
            _allocate(self._descriptor, header_bytes + ring_bytes)
            self.map = mmap.mmap(self._descriptor, header_bytes + ring_bytes)
            self._words = memoryview(self.map).cast("Q")
        except BaseException:
            os.close(self._descriptor)
            unfinished.unlink()
            raise
        self.seed = int.from_bytes(os.urandom(4), "little")
        self.set_resource(resource)
        counters = (0,) * 12
        HEADER.pack_into(
            self.map, 0, MAGIC, self.seed, header_bytes, producer_id, ring_bytes, *counters
        )
        unfinished.rename(self.path)

    def set_resource(self, resource: bytes) -> None:
        """What goes with the spans; one that is too large for the header is left out."""
        _WORD.pack_into(self.map, RESOURCE_SIZE_AT, 0)
        if RESOURCE_AT + len(resource) <= self.header_bytes:
            self.map[RESOURCE_AT : RESOURCE_AT + len(resource)] = resource
            _WORD.pack_into(self.map, RESOURCE_SIZE_AT, len(resource))

    def set_batch_sequence(self, number: int) -> None:
        """The number of the batch that is being sent."""
        self.count(BATCH_AT, number)

    def count(self, at: int, value: int) -> None:
        """Set a counter of the header, in one store: a kill leaves the old value or the new.

        `Struct.pack_into` fills with zeros first.
        """
        self._words[at // COUNTER.size] = value

    def close(self, *, keep: bool) -> None:
        """Let go of it; with `keep` another process may deliver what it holds."""
        if not keep:
            with contextlib.suppress(OSError):
                self.path.unlink()
        self.forget()

    def forget(self) -> None:
        """In a forked child: leave it to the parent, which has it locked."""
        self._words.release()
        with contextlib.suppress(BufferError):  # a recorder that is gone too looks at it still
            self.map.close()
        os.close(self._descriptor)


def _allocate(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:  # macOS: written once, so that the room is there
        for start in range(0, size, 1 << 20):
            os.pwrite(descriptor, bytes(min(1 << 20, size - start)), start)
