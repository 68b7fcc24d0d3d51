"""Adds up histograms of token intervals: the twin of csrc/collector/interval_sums.pyx."""

from __future__ import annotations

from collections.abc import Iterator

from infertrace.wire.protobuf import WireError
from infertrace.wire.token_intervals import LOWEST_BUCKET, MAX_BUCKETS, decode


def interval_sums(messages: list[bytes]) -> list[int]:
    """The sums of the counts of all buckets, the first of them LOWEST_BUCKET.

    A message that is none, and buckets that are none, do not count.
    """
    sums = [0] * MAX_BUCKETS
    for message in messages:
        for place, count in decoded(message):
            sums[place] += count
    return sums


def decoded(message: bytes) -> Iterator[tuple[int, int]]:
    """The counts of a message, with their places in a list of all buckets."""
    try:
        offset, counts = decode(message)
    except WireError:
        return
    for place, count in enumerate(counts, offset - LOWEST_BUCKET):
        if 0 <= place < MAX_BUCKETS:
            yield place, count
