"""Merged histograms of token intervals, by both forms of the sum."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backend_recording import available_backends
from infertrace.collector.store.interval_quantiles import interval_quantile_ms
from infertrace.collector.store.interval_sums import select
from infertrace.wire.token_intervals import (
    HIGHEST_BUCKET,
    LOWEST_BUCKET,
    MAX_BUCKETS,
    MAX_COUNT,
    bucket_of,
    encode,
)

HISTOGRAMS = st.integers(LOWEST_BUCKET, HIGHEST_BUCKET).flatmap(
    lambda offset: st.tuples(
        st.just(offset),
        st.lists(
            st.integers(0, MAX_COUNT), min_size=1, max_size=min(80, HIGHEST_BUCKET - offset + 1)
        ),
    )
)
BACKENDS = available_backends()


@pytest.mark.parametrize("backend", BACKENDS)
@given(histograms=st.lists(HISTOGRAMS, max_size=20))
def test_sums_are_those_of_each_bucket(
    backend: str, histograms: list[tuple[int, list[int]]]
) -> None:
    expected = [0] * MAX_BUCKETS
    for offset, counts in histograms:
        for place, count in enumerate(counts, offset - LOWEST_BUCKET):
            expected[place] += count
    messages = [encode(offset, counts) for offset, counts in histograms]
    assert select(backend).interval_sums(messages) == expected


@pytest.mark.parametrize("backend", BACKENDS)
@given(message=st.one_of(st.binary(max_size=40), HISTOGRAMS.map(lambda given: encode(*given))))
@example(b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01\x12\x01\x05")  # a varint of 64 bits
@example(b"\x10\x05\x10\x06\x08\x04")  # counts that are not packed, before the offset
@example(b"\x12\x03\x01\x02\x03\x18\x07")  # a field that nobody knows
@example(b"\x08\xff\xff\xff\xff\x0f\x12\x01\x05")  # an offset far below the lowest
@example(b"\x08\xfe\xff\xff\xff\x0f\x12\x01\x05")
@example(b"\x12\x82\x04" + b"\x01" * 514)  # one bucket too many
def test_odd_messages_mean_the_same_to_both(backend: str, message: bytes) -> None:
    sound = encode(100, [1, 2])
    sums = select(backend).interval_sums([sound, message, sound])
    assert sums == select("pure").interval_sums([sound, message, sound])
    assert sums[100 - LOWEST_BUCKET] >= 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_quantiles_are_within_a_bucket_of_the_exact_ones(backend: str) -> None:
    draw = random.Random(4)
    intervals = sorted(round(draw.lognormvariate(16.8, 0.7)) for _ in range(20_000))
    messages = []
    for first in range(0, len(intervals), 50):
        buckets = [bucket_of(interval) for interval in intervals[first : first + 50]]
        low = min(buckets)
        messages.append(encode(low, [buckets.count(b) for b in range(low, max(buckets) + 1)]))
    sums = select(backend).interval_sums(messages)
    for fraction in (0.0, 0.5, 0.95, 0.99, 1.0):
        exact_ms = intervals[round(fraction * (len(intervals) - 1))] / 1e6
        assert interval_quantile_ms(sums, fraction) == pytest.approx(exact_ms, rel=0.09)
    for fraction in (0.5, 0.95, 0.99):
        exact_ms = intervals[round(fraction * (len(intervals) - 1))] / 1e6
        assert interval_quantile_ms(sums, fraction) == pytest.approx(exact_ms, rel=0.02)
    assert interval_quantile_ms([], 0.5) is None
    assert interval_quantile_ms([0] * MAX_BUCKETS, 0.5) is None
