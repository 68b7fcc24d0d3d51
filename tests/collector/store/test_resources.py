"""Resources: stored once, and found with their spans, in the database or not yet in it."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infertrace.collector.store import resource as resources_module
from infertrace.collector.store.duckdb import dialect
from infertrace.collector.store.journaled import applier
from infertrace.collector.store.keyed_filter import KeyedText
from infertrace.collector.store.resource import (
    DROPPED_COUNT_KEY,
    MAX_RESOURCE_BYTES,
    stored_resource,
)
from infertrace.collector.store.span_filter import SpanFilter
from infertrace.collector.store.store import Store
from infertrace.generated.span_pb2 import AttributeValue
from store_batches import batch_of, new_span

PRODUCER = b"p" * 16
GPU_1 = {
    "host.name": AttributeValue(string_value="gpu-1"),
    "process.pid": AttributeValue(int_value=7),
    "share": AttributeValue(double_value=7.0),
    "spot": AttributeValue(bool_value=True),
}
GPU_2 = {**GPU_1, "host.name": AttributeValue(string_value="gpu-2\0 é")}
AS_JSON = {"host.name": "gpu-1", "process.pid": 7, "share": 7.0, "spot": True}


@pytest.fixture
def store(store_url: str, opened: Callable[[str], Store]) -> Store:
    return opened(store_url)


def resource_ids(store: Store) -> list[Any]:
    return [row[-1] for row in store.spans(SpanFilter(), 1_000)]


def test_each_is_stored_once_and_found(store: Store) -> None:
    for first in (1, 3, 5):
        spans = [new_span(), new_span()]
        store.commit([batch_of(spans, PRODUCER, first, GPU_1)])
        if first == 3:
            store.checkpoint()
    store.commit([batch_of([new_span()], b"q" * 16, 1, GPU_2), batch_of([new_span()])])
    assert [row[-2] for row in store.spans(SpanFilter(), 3)] == [
        None,
        uuid.UUID(bytes=b"q" * 16),
        uuid.UUID(bytes=PRODUCER),
    ]
    none, two, *ones = resource_ids(store)
    assert none is None
    assert len(ones) == 6
    assert len(set(ones)) == 1
    found = store.resources({two, ones[0], uuid.uuid4()})
    assert json.loads(found[ones[0]]) == AS_JSON
    assert isinstance(json.loads(found[ones[0]])["share"], float)
    assert json.loads(found[two])["host.name"] == "gpu-2\0 é"
    assert len(found) == 2
    store.checkpoint()
    assert store.resources({two, ones[0]}) == found
    assert sum(batch.num_rows for batch in store.rows(0, 2**63 - 1)) == 8


def test_more_than_are_remembered(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources_module, "MAX_KNOWN_RESOURCES", 2)
    for _ in range(2):
        for number in range(5):
            attributes = {"n": AttributeValue(int_value=number)}
            store.commit([batch_of([new_span()], attributes=attributes)])
    store.checkpoint()
    assert len(set(resource_ids(store))) == 5
    assert len(store.resources(set(resource_ids(store)))) == 5


def test_more_match_than_are_listed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialect, "MAX_LISTED_IDS", 3)
    for number in range(6):
        attributes = {**GPU_1, "n": AttributeValue(int_value=number)}
        store.commit([batch_of([new_span()], attributes=attributes)])
        if number == 3:
            store.checkpoint()
    store.commit([batch_of([new_span()], attributes=GPU_2)])
    where = SpanFilter(resource=[KeyedText("host.name", "gpu-1")])
    assert len(store.spans(where, 10)) == 6
    assert len(store.spans(replace(where, resource=[KeyedText("n", "4")]), 10)) == 1


def test_a_kill_before_the_database_has_it(
    tmp_path: Path, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applier, "APPLY_INTERVAL_S", 3_600.0)
    store = opened(f"duckdb:///{tmp_path}/spans.duckdb")
    store.commit([batch_of([new_span()], PRODUCER, 1, GPU_1)])
    store.checkpoint()
    store.commit([batch_of([new_span()], b"q" * 16, 1, GPU_2)])
    left = tmp_path / "left"
    left.mkdir()
    for file in tmp_path.glob("spans.duckdb*"):
        if file.is_file():
            shutil.copy(file, left)
    again = opened(f"duckdb:///{left}/spans.duckdb")
    ids = resource_ids(again)
    assert len(set(ids)) == 2
    assert again.resources(set(ids)) == store.resources(set(ids))


def test_a_long_one_is_cut_and_says_so() -> None:
    attributes = {f"k{n:03}": AttributeValue(string_value="é" * 100) for n in range(400)}
    resource = stored_resource(attributes)
    assert resource is not None
    assert len(resource.attributes.encode()) <= MAX_RESOURCE_BYTES
    found = json.loads(resource.attributes)
    assert found[DROPPED_COUNT_KEY] == 400 - len(found) + 1
    assert found["k000"] == "é" * 100
    assert "k399" not in found
    assert stored_resource({}) is None
