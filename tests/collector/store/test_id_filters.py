"""The filters recognise the newest ids; they may forget older ones."""

from __future__ import annotations

import os
from array import array
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertrace.collector.store import id_filters, pure_id_filters
from store_batches import batch_of, new_span

CAPACITY = 4


@pytest.fixture(scope="module")
def native() -> ModuleType:
    return pytest.importorskip("infertrace.collector.store.native_id_filters")


@pytest.fixture(params=["pure", "native"])
def new(request: pytest.FixtureRequest) -> Any:
    if request.param == "native":
        pytest.importorskip("infertrace.collector.store.native_id_filters")
    return lambda capacity: id_filters.new_duplicate_filter(capacity, request.param)


@given(st.lists(st.lists(st.integers(1, 12), max_size=9), max_size=12))
def test_both_say_the_same(native: ModuleType, adds: list[list[int]]) -> None:
    one, other = native.DuplicateFilter(CAPACITY), pure_id_filters.DuplicateFilter(CAPACITY)
    for numbers in adds:
        traces = b"".join(number.to_bytes(16, "big") for number in numbers)
        spans = b"".join(number.to_bytes(8, "big") for number in numbers)
        starts = array("q", numbers).tobytes()
        assert one.add(traces, spans, starts) == other.add(traces, spans, starts)
        assert one.forgotten_until_ns == other.forgotten_until_ns


def test_the_last_are_known(new: Any) -> None:
    seen = new(1_000)
    traces, spans = os.urandom(16 * 5_000), os.urandom(8 * 5_000)
    starts = array("q", range(1, 5_001)).tobytes()
    assert seen.add(traces, spans, starts) == []
    assert seen.add(traces[-16_000:], spans[-8_000:], starts[-8_000:]) == list(range(1_000))
    assert 3_500 < seen.forgotten_until_ns <= 4_000
    assert seen.add(traces[:16_000], spans[:8_000], starts[:8_000]) == []


def test_half_of_the_pair_is_another_span(new: Any) -> None:
    seen = new(10)
    start = bytes(8)
    seen.add(b"t" * 16, b"s" * 8, start)
    assert seen.add(b"u" * 16, b"s" * 8, start) == []
    assert seen.add(b"t" * 16, b"r" * 8, start) == []
    assert seen.add(b"t" * 16, b"s" * 8, start) == [0]


def test_what_was_never_added_counts_as_forgotten(new: Any) -> None:
    seen = new(10)
    assert seen.forgotten_until_ns == 0
    seen.forget(7)
    seen.forget(5)
    assert seen.forgotten_until_ns == 7


def test_parts_of_batches(new: Any) -> None:
    rows = batch_of([new_span() for _ in range(6)]).rows
    seen = new(10)
    assert id_filters.add_rows(seen, rows.slice(1, 2)) == []
    assert id_filters.add_rows(seen, rows) == [1, 2]
    assert id_filters.add_rows(seen, rows.slice(0, 0)) == []


def test_unequal_columns_are_refused(native: ModuleType) -> None:
    with pytest.raises(ValueError, match="expected 16 bytes"):
        native.DuplicateFilter(4).add(b"t" * 16, b"s" * 16, bytes(16))
