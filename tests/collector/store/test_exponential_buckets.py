"""The buckets of distributions: one definition in Python and in every database, and its error."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from statistics import quantiles as exact_quantiles

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertrace.collector.store.exponential_buckets import (
    ZERO_BUCKET,
    quantile,
    quantiles,
    upper_bound,
)
from infertrace.collector.store.grouping import BucketKey, GroupedQuery
from infertrace.collector.store.span_filter import SpanFilter
from infertrace.collector.store.store import Store
from infertrace.wire.token_intervals import bucket_of
from store_batches import batch_of, new_span

ERROR = 2 ** (1 / 8) - 1


def test_a_database_has_the_same_buckets(store_url: str, opened: Callable[[str], Store]) -> None:
    store = opened(store_url)
    draw = random.Random(1)
    edges = [round(2 ** (number / 8)) for number in range(40 * 8)]
    durations = [0, 1, *(edge + by for edge in edges for by in (-1, 0, 1) if edge + by > 0)]
    durations += [draw.randrange(1, 10**12) for _ in range(2_000)]
    store.commit([batch_of([new_span(duration_nanos=duration) for duration in durations])])
    # MergeFrom leaves the default where the field is 0.
    expected = Counter(bucket_of(duration or 1_500_000) for duration in durations)
    (rows,) = store.grouped(GroupedQuery(SpanFilter(), [[BucketKey("duration_ms")]]))
    assert dict(rows) == expected


def test_zero_and_nothing_are_not_the_same(store_url: str, opened: Callable[[str], Store]) -> None:
    store = opened(store_url)
    spans = [new_span() for _ in range(3)]
    spans[0].inference.input_tokens = 0
    spans[1].inference.input_tokens = 1
    store.commit([batch_of(spans)])
    (rows,) = store.grouped(GroupedQuery(SpanFilter(), [[BucketKey("input_tokens")]]))
    assert dict(rows) == {ZERO_BUCKET: 1, -1: 1, None: 1}


@given(st.lists(st.integers(1, 2**50), min_size=1, max_size=200), st.floats(0.01, 0.99))
def test_a_quantile_is_within_a_bucket(values: list[int], fraction: float) -> None:
    found = quantile(Counter(map(bucket_of, values)), fraction)
    assert found is not None
    ordered = sorted(values)
    place = fraction * len(values)
    # The value below which the share lies, or its neighbour where the share ends between two.
    near = {ordered[max(0, min(len(values) - 1, int(place) + by))] for by in (-1, 0)}
    assert min(abs(found / value - 1) for value in near) <= ERROR + 1e-9


def test_quantiles_are_those_of_the_values() -> None:
    draw = random.Random(2)
    values = [round(draw.lognormvariate(18, 1)) for _ in range(20_000)]
    exact = exact_quantiles(values, n=100)
    counts = Counter(map(bucket_of, values))
    for percent in (50, 95, 99):
        found = quantile(counts, percent / 100)
        assert found == pytest.approx(exact[percent - 1], rel=ERROR / 2)


@given(
    st.dictionaries(st.integers(-2, 400), st.integers(0, 2**40)),
    st.lists(st.floats(0, 1)).map(sorted),
)
def test_several_quantiles_are_those_one_by_one(
    counts: dict[int, int], fractions: list[float]
) -> None:
    one_by_one = [quantile(counts, fraction) for fraction in fractions]
    assert quantiles(counts, fractions) == [it for it in one_by_one if it is not None]


def test_nothing_has_no_quantile() -> None:
    assert quantile({}, 0.5) is None
    assert quantile({3: 0}, 0.5) is None
    assert quantile({ZERO_BUCKET: 2}, 0.99) == 0.0 == upper_bound(ZERO_BUCKET)
