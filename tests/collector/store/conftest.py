"""Stores that a test opens by their URLs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from infertrace.collector.store.registry import open_store
from infertrace.collector.store.store import Store


@pytest.fixture
def opened() -> Iterator[Callable[[str], Store]]:
    """Open a store; it is closed after the test."""
    stores: list[Store] = []

    def open_one(url: str) -> Store:
        stores.append(open_store(url))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()
