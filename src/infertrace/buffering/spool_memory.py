"""A spool that was never a file: what a process hands over at its end, in anonymous memory.

The format is that of `spool_file.py`, with a ring that holds just these records.
"""

from __future__ import annotations

import os
import sys
from zlib import crc32

from infertrace.buffering.ledger import DROP_REASONS
from infertrace.buffering.spool_file import COMMITTED, HEADER, MAGIC, RECORD, RESOURCE_AT
from infertrace.wire.protobuf import read_varint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final

    from infertrace.buffering.batch import Batch

_ALIGNMENT: Final = 8


def write_memory(
    batches: Sequence[Batch],
    *,
    producer_id: bytes,
    resource: bytes,
    batch_sequence: int,
    last_sequence: int,
    dropped: Mapping[str, int],
) -> int:
    """The descriptor of a new memory with these batches; raises OSError.

    batches: in the order of their spans. last_sequence: the number of the producer's last span.
    """
    seed = int.from_bytes(os.urandom(4), "little")
    rings = [_records(batch, seed) for batch in batches]
    header_bytes = -(-(RESOURCE_AT + len(resource)) // _ALIGNMENT) * _ALIGNMENT
    settled = batches[0].first_span_sequence - 1 if batches else last_sequence
    counts = [dropped.get(reason, 0) for reason in DROP_REASONS]
    header = HEADER.pack(
        *(MAGIC, seed, header_bytes, producer_id, sum(map(len, rings))),
        *(settled, 0, last_sequence, batch_sequence),
        *(*counts, *(0,) * (8 - len(counts))),
    )
    header += len(resource).to_bytes(4, sys.byteorder) + resource
    descriptor = _open()
    try:
        # In one piece: with each call, threads that are busy get the GIL, and keep it for a while.
        _write(descriptor, b"".join((header.ljust(header_bytes, b"\0"), *rings)))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _records(batch: Batch, seed: int) -> bytes:
    payload, _, sequence = batch
    parts: list[bytes] = []
    at = 0
    while at < len(payload):
        size, start = read_varint(payload, at + 1)  # the tag is a byte
        span = payload[at : start + size]
        body = RECORD.pack(0, 0, sequence, len(span), 0)[8:] + span
        head = RECORD.pack(COMMITTED, crc32(body, seed), 0, 0, 0)[:8]
        parts += (head, body, bytes(-len(span) % _ALIGNMENT))
        sequence += 1
        at = start + size
    return b"".join(parts)


def _open() -> int:
    if hasattr(os, "memfd_create"):
        try:
            return os.memfd_create("infertrace", os.MFD_CLOEXEC)
        except OSError:  # not in this sandbox
            pass
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _write(descriptor: int, part: bytes) -> None:
    view = memoryview(part)
    while view:
        view = view[os.write(descriptor, view) :]
