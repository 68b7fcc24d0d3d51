"""What the buffer hands to the exporter."""

from __future__ import annotations

from collections import namedtuple

from infertrace.wire.protobuf import read_varint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    class Batch(NamedTuple):
        """Finished spans, encoded, ready to be sent as they are."""

        payload: bytes
        """Concatenated entries of `SendSpanBatchRequest.spans`."""
        span_count: int
        first_span_sequence: int
        """The number of its first span; the others follow without a gap."""

else:
    Batch = namedtuple("Batch", ["payload", "span_count", "first_span_sequence"])


class PackedBatch(Batch):
    """Finished spans of the pure backend, packed: `recording/packing.py` can encode them."""

    __slots__ = ()


def halves(batch: Batch) -> tuple[Batch, Batch]:
    """Two batches of at least one span each; for a batch of two spans or more."""
    payload, span_count, first = batch
    count = span_count // 2
    position = 0
    for _ in range(count):
        # An entry: the tag byte 0x0a, a size, and that many bytes.
        size, position = read_varint(payload, position + 1)
        position += size
    return (
        Batch(payload[:position], count, first),
        Batch(payload[position:], span_count - count, first + count),
    )
