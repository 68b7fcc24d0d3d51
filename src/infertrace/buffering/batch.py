"""What the buffer hands to the exporter."""

from __future__ import annotations

from collections import namedtuple

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


def halves(batch: Batch) -> tuple[Batch, Batch]:
    """Two batches of at least one span each; for a batch of two spans or more."""
    payload, span_count, first = batch
    count = span_count // 2
    position = 0
    for _ in range(count):
        # One entry: the tag byte 0x0a, a varint length, so many bytes.
        position += 1
        size = shift = 0
        while payload[position] & 0x80:
            size |= (payload[position] & 0x7F) << shift
            shift += 7
            position += 1
        size |= payload[position] << shift
        position += 1 + size
    return (
        Batch(payload[:position], count, first),
        Batch(payload[position:], span_count - count, first + count),
    )
