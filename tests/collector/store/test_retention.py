"""Spans beyond the age or the size are deleted, the oldest first, and no others."""

from __future__ import annotations

import time
from typing import Any

import pytest

from infertrace.collector.store import retention as retaining
from infertrace.collector.store.registry import open_store
from infertrace.collector.store.retention import RetentionWorker
from infertrace.collector.store.span_filter import SpanFilter
from infertrace.collector.store.store import Retention, Store
from store_batches import batch_of, new_span

DAY = 86_400_000_000_000


@pytest.fixture
def store(store_url: str) -> Any:
    opened = open_store(store_url)
    yield opened
    opened.close()


def commit(store: Store, ages_days: list[float], count: int = 1) -> None:
    now = time.time_ns()
    spans = [
        new_span(start_time_unix_nano=now - int(age * DAY), status_message=f"{n} " * 40)
        for age in ages_days
        for n in range(count)
    ]
    store.commit([batch_of(spans)])
    store.checkpoint()


def ages(store: Store) -> list[float]:
    now = time.time_ns()
    return [round((now - row[5]) / DAY, 1) for row in store.spans(SpanFilter(), 100_000)]


def test_by_age(store: Store) -> None:
    commit(store, [0, 0.5, 1.5, 3, 8, 600])
    assert store.retain(Retention(max_age_ns=2 * DAY)) == 3
    assert ages(store) == [0, 0.5, 1.5]
    assert store.retain(Retention(max_age_ns=2 * DAY)) == 0
    commit(store, [2.5, 3])  # a day whose partition is gone
    assert len(ages(store)) == 5


def test_by_size(store: Store, store_url: str) -> None:
    if store_url == "memory:":
        assert store.retain(Retention(max_bytes=1)) == 0  # memory has no blocks
        return
    commit(store, [4, 3, 2, 1], 3_000)
    assert store.retain(Retention(max_bytes=10**9)) == 0
    deleted = store.retain(Retention(max_bytes=2_500_000 if _is_postgres(store) else 500_000))
    assert 0 < deleted < 12_000
    left = ages(store)
    assert len(left) == 12_000 - deleted
    assert max(left) < 4 or left.count(4.0) < 3_000  # the oldest went first
    assert left.count(1.0) == 3_000


def _is_postgres(store: Store) -> bool:
    return type(store).__name__ == "PostgresStore"


def test_a_thread_does_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retaining, "INTERVAL_S", 0.01)
    retention = RetentionWorker(store, Retention(max_age_ns=2 * DAY))
    retention.start()
    try:
        commit(store, [1, 3])
        deadline = time.monotonic() + 30
        while ages(store) != [1.0]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        retention.stop()
