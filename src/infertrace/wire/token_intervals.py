"""The histogram of the times between tokens: buckets, encoding, and what is a histogram at all.

Bucket i holds what is longer than 2**(i / 8) and at most 2**((i + 1) / 8) nanoseconds, so a value
is known within 4.4 percent, and histograms are merged by adding their counts.
Source: OpenTelemetry, "Metrics Data Model", ExponentialHistogram with scale 3; the message
TokenIntervals of proto/span.proto.
"""

from __future__ import annotations

from math import isqrt

from infertrace.wire.protobuf import (
    LENGTH_DELIMITED,
    VARINT,
    TruncatedError,
    WireError,
    delimited,
    read_varint,
    skip_value,
    varint,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

SCALE: Final = 3
BUCKETS_PER_DOUBLING: Final = 2**SCALE
LOWEST_BUCKET: Final = -1
"""The bucket of one nanosecond."""
HIGHEST_BUCKET: Final = 511
"""The bucket of 2**64 nanoseconds."""
MAX_BUCKETS: Final = HIGHEST_BUCKET - LOWEST_BUCKET + 1
MAX_COUNT: Final = 2**32 - 1
WRITTEN_BUCKETS: Final = 52
"""How many buckets a span's own histogram spreads over at most: 6.5 doublings, in 60 bytes."""

_OFFSET_TAG: Final = 1 << 3 | VARINT
_COUNT_TAG: Final = 2 << 3 | VARINT
_COUNTS_TAG: Final = 2 << 3 | LENGTH_DELIMITED


def _edges() -> tuple[int, ...]:
    # 2**(63 + k/8), rounded down: the eighth root by three square roots, of a number so large
    # that what each of them cuts off does not matter.
    found = []
    for step in range(BUCKETS_PER_DOUBLING):
        number = 2 ** (8 * (63 + 64) + step)
        found.append(isqrt(isqrt(isqrt(number))) >> 64)
    return tuple(found)


# The upper bounds of a doubling's buckets, for numbers of 64 bits.
_EDGES: Final = _edges()


def bucket_of(interval_ns: int) -> int:
    """The bucket of an interval of 1 to 2**64 nanoseconds."""
    doublings = interval_ns.bit_length() - 1
    aligned = interval_ns << 63 - doublings if doublings <= 63 else interval_ns >> doublings - 63
    bucket = doublings * BUCKETS_PER_DOUBLING - 1
    for edge in _EDGES:
        if aligned <= edge:
            break
        bucket += 1
    return bucket


def upper_bound_ns(bucket: int) -> float:
    """The longest interval of a bucket, nanoseconds; exact where it is a power of two."""
    return float(2.0 ** ((bucket + 1) / BUCKETS_PER_DOUBLING))


def is_valid(offset: int, counts: Sequence[int]) -> bool:
    """Whether these are the bucket of the first count, and counts."""
    if not 0 < len(counts) <= MAX_BUCKETS or not LOWEST_BUCKET <= offset <= HIGHEST_BUCKET:
        return False
    return offset + len(counts) - 1 <= HIGHEST_BUCKET and all(
        0 <= count <= MAX_COUNT for count in counts
    )


def encode(offset: int, counts: Sequence[int]) -> bytes:
    """A message TokenIntervals."""
    body = b"".join(map(varint, counts))
    head = b"\x08" + varint(offset << 1 if offset >= 0 else -offset * 2 - 1) if offset else b""
    return head + delimited(b"\x12", body)


def decode(message: bytes) -> tuple[int, list[int]]:
    """The bucket of the first count, and the counts, as protobuf reads them; raises WireError."""
    offset, counts, position, end = 0, list[int](), 0, len(message)
    while position < end:
        tag, position = read_varint(message, position)
        if tag == _OFFSET_TAG:
            zigzag, position = read_varint(message, position)
            zigzag &= MAX_COUNT
            offset = zigzag >> 1 ^ -(zigzag & 1)
        elif tag == _COUNT_TAG:
            count, position = read_varint(message, position)
            counts.append(count & MAX_COUNT)
        elif tag == _COUNTS_TAG:
            size, position = read_varint(message, position)
            stop = position + size
            while position < stop <= end:
                count, position = read_varint(message, position)
                counts.append(count & MAX_COUNT)
            if position != stop:
                raise WireError("cut short within counts")
        else:
            position = skip_value(message, position, tag & 7)
    if position > end:
        raise TruncatedError("cut short within a histogram")
    return offset, counts


def narrowed(offset: int, counts: Sequence[int]) -> tuple[int, list[int]]:
    """The same, within `WRITTEN_BUCKETS` buckets: those with most counts, the lowest of such.

    What lies outside counts in the first or the last of them. That can only be what is far from
    the rest, such as one long stall, and the longest interval has its own field.
    """
    kept = list(counts)
    if len(kept) <= WRITTEN_BUCKETS:
        return offset, kept
    within = most = sum(kept[:WRITTEN_BUCKETS])
    start = 0
    for first in range(1, len(kept) - WRITTEN_BUCKETS + 1):
        within += kept[first + WRITTEN_BUCKETS - 1] - kept[first - 1]
        if within > most:
            start, most = first, within
    end = start + WRITTEN_BUCKETS
    window = kept[start:end]
    window[0] = min(window[0] + sum(kept[:start]), MAX_COUNT)
    window[-1] = min(window[-1] + sum(kept[end:]), MAX_COUNT)
    return offset + start, window
