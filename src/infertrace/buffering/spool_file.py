"""A spool: a file that holds the finished spans which are not settled (acknowledged or dropped).

What a process wrote to it is in the page cache, so it outlives the process, however that ends.
It does not outlive a crash of the machine: nothing here waits for a disk. The compiled backend
maps the file into memory (csrc/recorder/spool.h), and survives its truncation; the pure one writes
to it.

The format, in the byte order of the machine: a header, then a ring of records. A place in the
ring is a number of bytes that only grows, taken modulo the ring's size. A record is a commit word,
the CRC-32 of what follows from the file's random seed on, the span's sequence number, the size
of the span, and the span as it is sent, padded to 8 bytes. Where no whole record fits before
the end of the ring, the word `WRAP` (if there is room for one) says so. The twin in C:
csrc/recorder/spool.h.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
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
UNFINISHED_SUFFIX: Final = ".new"

_PAGE_BYTES: Final = 4096
# A span takes 24 bytes of framing, and one without anything in it about 60.
_FRAMED_SHARE: Final = 1.5


def room_for(size: int) -> int:
    """Bytes of the ring that a span of that size takes."""
    return RECORD.size + (size + 7 & ~7)


class SpoolFile:
    """The spool of a live process, which holds a lock on it.

    Raises OSError where there is no room on the disk, or no right to write.
    """

    def __init__(
        self, directory: Path, *, producer_id: bytes, resource: bytes, max_buffer_bytes: int
    ) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = directory / f"{os.getpid()}-{producer_id.hex()}{SUFFIX}"
        # A spare page, in case the configuration changes and the resource grows.
        header_bytes = (-(-(RESOURCE_AT + len(resource)) // _PAGE_BYTES) + 1) * _PAGE_BYTES
        self.header_bytes = header_bytes
        ring_bytes = int(max_buffer_bytes * _FRAMED_SHARE) & ~7
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        unfinished = self.path.with_suffix(UNFINISHED_SUFFIX)  # no drainer looks for that suffix
        self.size_bytes = header_bytes + ring_bytes
        self.descriptor = os.open(unfinished, flags, 0o600)
        # The exporter's thread writes while another thread may shut down; once the descriptor is
        # closed, its number may be that of another file.
        self._guard = threading.Lock()
        self._is_open = True
        self.failure: OSError | None = None
        """The error of a write that failed, if one did."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # On a full disk, the first write to a mapped sparse file would kill the process.
            _allocate(self.descriptor, self.size_bytes)
            self.seed = int.from_bytes(os.urandom(4), "little")
            self.set_resource(resource)
            header = HEADER.pack(
                MAGIC, self.seed, header_bytes, producer_id, ring_bytes, *(0,) * 12
            )
            self._write(header, 0)
            unfinished.rename(self.path)
        except BaseException:
            self.after_fork_in_child()
            unfinished.unlink(missing_ok=True)
            raise

    def is_whole(self) -> bool:
        """Whether it can be written to, and is still at its path, as large as it was made."""
        if self.failure is not None:
            return False
        try:
            with self._guard:
                if not self._is_open:
                    return True
                status = os.fstat(self.descriptor)
                magic = os.pread(self.descriptor, len(MAGIC), 0)
        except OSError:
            return False
        # A file that was truncated and grew again reads as zeros.
        return status.st_size >= self.size_bytes and status.st_nlink > 0 and magic == MAGIC

    def set_resource(self, resource: bytes) -> None:
        """Store the resource of the spans; leave out one that does not fit into the header."""
        self._write(_WORD.pack(0), RESOURCE_SIZE_AT)
        if RESOURCE_AT + len(resource) <= self.header_bytes:
            self._write(resource, RESOURCE_AT)
            self._write(_WORD.pack(len(resource)), RESOURCE_SIZE_AT)

    def set_batch_sequence(self, number: int) -> None:
        """Store the number of the batch that is being sent."""
        self._write(COUNTER.pack(number), BATCH_AT)

    def _write(self, content: bytes, at: int) -> None:
        with self._guard:
            if self._is_open:
                os.pwrite(self.descriptor, content, at)

    def close(self, *, keep: bool) -> None:
        """Close the file; with `keep`, leave it to another process to deliver."""
        if not keep:
            with contextlib.suppress(OSError):
                self.path.unlink()
        with self._guard:
            if self._is_open:
                self._is_open = False
                os.close(self.descriptor)

    def after_fork_in_child(self) -> None:
        """Close this copy of the descriptor; the parent holds the lock and uses the file."""
        self._guard = threading.Lock()  # a thread of the parent may have held the old one
        self.close(keep=True)


def _allocate(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:  # macOS: write every byte once, which allocates the blocks
        for start in range(0, size, 1 << 20):
            os.pwrite(descriptor, bytes(min(1 << 20, size - start)), start)
