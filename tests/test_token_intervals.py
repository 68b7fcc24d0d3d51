"""The histogram of the times between tokens: its buckets, its bytes, and how it is merged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drawn_fields import intervals
from infertrace.generated.span_pb2 import TokenIntervals
from infertrace.wire import token_intervals
from infertrace.wire.protobuf import WireError

INTERVAL_NS = st.integers(1, 2**64) | st.integers(0, 64).map(lambda power: 2**power)


def holds(bucket: int, interval_ns: int) -> bool:
    """By the definition, in whole numbers: 2**(bucket / 8) < interval <= 2**((bucket + 1) / 8)."""
    eighth = interval_ns**8
    is_above = bucket < 0 or eighth > 2**bucket
    return is_above and eighth <= 2 ** (bucket + 1)


@given(INTERVAL_NS)
def test_an_interval_is_in_its_bucket(interval_ns: int) -> None:
    assert holds(token_intervals.bucket_of(interval_ns), interval_ns)


def test_upper_bounds_are_inclusive() -> None:
    for power in range(64):
        bucket = token_intervals.bucket_of(2**power)
        assert bucket == 8 * power - 1
        assert token_intervals.upper_bound_ns(bucket) == 2**power
        assert token_intervals.bucket_of(2**power + 1) > bucket
    assert token_intervals.bucket_of(1) == token_intervals.LOWEST_BUCKET
    assert token_intervals.bucket_of(2**64) == token_intervals.HIGHEST_BUCKET


@given(intervals())
def test_protobuf_reads_and_writes_the_same(drawn: list[int]) -> None:
    offset, counts = drawn[0], drawn[1:]
    message = TokenIntervals(offset=offset, counts=counts)
    assert token_intervals.encode(offset, counts) == message.SerializeToString()
    assert token_intervals.decode(message.SerializeToString()) == (offset, counts)


@given(st.binary(max_size=12) | intervals().map(lambda it: token_intervals.encode(it[0], it[1:])))
def test_any_bytes_are_read_as_protobuf_reads_them(raw: bytes) -> None:
    try:
        offset, counts = token_intervals.decode(raw)
    except WireError:
        return
    try:
        expected = TokenIntervals.FromString(raw)
    except Exception:  # stricter: a tag of more than five bytes, say
        return
    assert (offset, counts) == (expected.offset, list(expected.counts))


@given(st.lists(INTERVAL_NS, min_size=1), st.lists(INTERVAL_NS, min_size=1))
def test_merging_is_adding(one: list[int], other: list[int]) -> None:
    assert added(histogram(one), histogram(other)) == histogram(one + other)


def histogram(intervals_ns: list[int]) -> dict[int, int]:
    found: dict[int, int] = {}
    for interval_ns in intervals_ns:
        bucket = token_intervals.bucket_of(interval_ns)
        found[bucket] = found.get(bucket, 0) + 1
    return found


def added(one: dict[int, int], other: dict[int, int]) -> dict[int, int]:
    return {
        bucket: one.get(bucket, 0) + other.get(bucket, 0) for bucket in one.keys() | other.keys()
    }


@given(intervals())
def test_a_wide_histogram_keeps_the_buckets_with_most_counts(drawn: list[int]) -> None:
    offset, counts = drawn[0], [count % 128 for count in drawn[1:]]
    start, kept = token_intervals.narrowed(offset, counts)
    assert sum(kept) == sum(counts)
    assert len(kept) <= token_intervals.WRITTEN_BUCKETS
    if len(counts) <= token_intervals.WRITTEN_BUCKETS:
        assert (start, kept) == (offset, counts)
        return
    assert len(token_intervals.encode(start, kept)) <= 64 + sum(count > 127 for count in kept)
    inner = slice(start - offset + 1, start - offset + len(kept) - 1)
    assert kept[1:-1] == counts[inner]
    widths = range(len(counts) - token_intervals.WRITTEN_BUCKETS + 1)
    most = max(sum(counts[at : at + token_intervals.WRITTEN_BUCKETS]) for at in widths)
    at = start - offset
    assert sum(counts[at : at + token_intervals.WRITTEN_BUCKETS]) == most


@pytest.mark.parametrize(
    ("offset", "counts", "expected"),
    [
        (-1, [1], True),
        (-2, [1], False),
        (511, [0], True),
        (511, [0, 0], False),
        (512, [0], False),
        (0, [], False),
        (-1, [1] * 513, True),
        (-1, [1] * 514, False),
        (0, [-1], False),
        (0, [2**32 - 1], True),
        (0, [2**32], False),
    ],
)
def test_what_is_a_histogram(offset: int, counts: list[int], expected: bool) -> None:
    assert token_intervals.is_valid(offset, counts) is expected
