"""A spool that an agent keeps: what a process has left, in a file that outlives the agent too.

The format is that of `spool_file.py`, with a ring that holds just the spans left, and a note behind
it: who they are for. So `infertrace spool drain` can deliver it as well.
"""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final
from zlib import crc32

from infertrace.buffering.ledger import DROP_REASONS
from infertrace.buffering.left_spans import DamagedSpansError
from infertrace.buffering.spool_file import COMMITTED, HEADER, MAGIC, RECORD, RESOURCE_AT
from infertrace.buffering.spool_reader import LeftSpool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from infertrace.buffering.left_spans import LeftSpans

_NOTE: Final = struct.Struct("=QQQQQQI")
"""Spans produced, damaged, left; the first of those that are known to be settled, the first that is
not, how many of them were accepted; bytes of a text."""
_SETTLED: Final = struct.Struct("=QQQ")
_SETTLED_AT: Final = 24  # within the note
_PAGE_BYTES: Final = 4096
_CHUNK_BYTES: Final = 1024 * 1024
_WORD_BYTES: Final = 8
_MAX_TEXT_BYTES: Final = 1024 * 1024
_COUNTERS: Final = 8


class KeptSpool(LeftSpool):
    """One that is open, to be delivered; raises as `LeftSpool` does."""

    numbers_follow = False

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            self._read_note()
        except BaseException:
            self.close()
            raise

    def _read_note(self) -> None:
        self._note_at = self._start + self._capacity
        note = os.pread(self._descriptor, _NOTE.size, self._note_at)
        if len(note) < _NOTE.size:
            raise DamagedSpansError(f"{self.name}: nothing says who it is for")
        produced, damaged, span_count, first, stop, accepted, text_bytes = _NOTE.unpack(note)
        self._produced: int = produced
        self.damaged = damaged
        self.span_count: int = span_count
        self.accepted: int = accepted
        self.settled_elsewhere = range(first, stop)
        """Spans that their own producer has sent; `accepted` says how many were taken."""
        if text_bytes > _MAX_TEXT_BYTES:
            raise DamagedSpansError(f"{self.name}: its note is damaged")
        self.text = os.pread(self._descriptor, text_bytes, self._note_at + _NOTE.size)
        """What the agent has noted."""

    @property
    def produced(self) -> int:
        return self._produced

    def set_settled_elsewhere(self, spans: range, accepted: int) -> None:
        """Store what need not be sent again."""
        packed = _SETTLED.pack(spans.start, spans.stop, accepted)
        os.pwrite(self._descriptor, packed, self._note_at + _SETTLED_AT)


def write_kept_spool(path: Path, left: LeftSpans, text: bytes) -> int:
    """Write what a process has left to a new file, whole or not at all; how many bytes.

    text: noted beside it. Raises OSError.
    """
    unfinished = path.with_suffix(".new")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with os.fdopen(os.open(unfinished, flags, 0o600), "wb") as file:
        try:
            size = _write(file.fileno(), left, text)
            unfinished.rename(path)
        except BaseException:
            with contextlib.suppress(OSError):
                unfinished.unlink()
            raise
    return size


def _write(descriptor: int, left: LeftSpans, text: bytes) -> int:
    seed = int.from_bytes(os.urandom(4), "little")
    # Room for the counters that change.
    start = -(-(RESOURCE_AT + len(left.resource)) // _PAGE_BYTES) * _PAGE_BYTES
    settled_sequence = left.settled_sequence
    at, count = start, 0
    for chunk, in_chunk in _chunks(left, seed):
        _write_all(descriptor, chunk, at)
        at += len(chunk)
        count += in_chunk
    # Once all records are read, the last sequence is known.
    counts = [left.dropped.get(reason, 0) for reason in DROP_REASONS]
    header = HEADER.pack(
        *(MAGIC, seed, start, left.producer_id, at - start),
        *(settled_sequence, 0, left.last_sequence, left.batch_sequence),
        *(*counts, *(0,) * (_COUNTERS - len(counts))),
    )
    header += struct.pack("=I", len(left.resource)) + left.resource
    _write_all(descriptor, header, 0)
    note = _NOTE.pack(left.produced, left.damaged, count, 0, 0, 0, len(text)) + text
    _write_all(descriptor, note, at)
    return at + len(note)


def _chunks(left: LeftSpans, seed: int) -> Iterator[tuple[bytes, int]]:
    """Framed records, some MiB at a time, and how many are in each."""
    parts: list[bytes] = []
    size = count = 0
    for sequence, span in left.records():
        body = RECORD.pack(0, 0, sequence, len(span), 0)[_WORD_BYTES:] + span
        head = RECORD.pack(COMMITTED, crc32(body, seed), 0, 0, 0)[:_WORD_BYTES]
        parts += (head, body, bytes(-len(span) % _WORD_BYTES))
        size += RECORD.size + len(span)
        count += 1
        if size >= _CHUNK_BYTES:
            yield b"".join(parts), count
            parts, size, count = [], 0, 0
    yield b"".join(parts), count


def _write_all(descriptor: int, content: bytes, at: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, at)
        view = view[written:]
        at += written
