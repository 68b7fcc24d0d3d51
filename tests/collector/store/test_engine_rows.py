"""Steps and requests, as every store finds them."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from infertrace.collector.store.engine_filter import EngineFilter
from infertrace.collector.store.store import Store
from infertrace.generated.span_pb2 import InferenceContext, Span
from store_batches import START_NS, batch_of, new_span

PRODUCER = os.urandom(16)
SECOND_NS = 10**9
HOUR_NS = 3_600 * SECOND_NS


def step(index: int, start_ns: int, engine: str = "", **fields: Any) -> Span:
    return new_span(
        start_time_unix_nano=start_ns,
        operation_name="step",
        duration_nanos=SECOND_NS,
        inference=InferenceContext(engine=engine, step_index=index, **fields),
    )


@pytest.fixture
def store(store_url: str, opened: Callable[[str], Store]) -> Store:
    return opened(store_url)


def filtered(store: Store, kind: Any = "step", **conditions: Any) -> list[int]:
    where = EngineFilter(kind, START_NS - HOUR_NS, START_NS + HOUR_NS, **conditions)
    column = "step_index" if kind == "step" else "first_step"
    return [row[0] for row in store.engine_rows(where, (column,), 100)]


def test_each_condition_holds(store: Store) -> None:
    steps = [
        step(1, START_NS),
        step(2, START_NS + SECOND_NS, engine="0"),
        step(3, START_NS + 2 * SECOND_NS, engine="b"),
        step(4, START_NS + 3 * SECOND_NS, engine="é'"),
    ]
    requests = [
        new_span(inference=InferenceContext(first_step=1, last_step=2)),
        new_span(parent_span_id=b"p" * 8, inference=InferenceContext(first_step=2, last_step=4)),
    ]
    child = new_span(parent_span_id=b"p" * 8)
    store.commit([batch_of(steps[:2], PRODUCER, 1), batch_of([*steps[2:], *requests, child])])
    assert filtered(store) == [1, 2, 3, 4]
    assert filtered(store, engine="0") == [1, 2]  # the name of an engine that has none
    assert filtered(store, engine="é'") == [4]
    assert filtered(store, producer_id=uuid.UUID(bytes=PRODUCER)) == [1, 2]
    assert filtered(store, model="other") == []
    assert filtered(store, service="server", operation="step", model="gpt-4") == [1, 2, 3, 4]
    assert filtered(store, steps=(2, 3)) == [2, 3]
    assert filtered(store, ended_after_ns=START_NS + 3 * SECOND_NS) == [4]
    assert filtered(store, ended_by_ns=START_NS + 2 * SECOND_NS) == [1, 2]
    assert filtered(store, "request") == [1, 2]
    assert filtered(store, "request", steps=(3, 9)) == [2]
    assert filtered(store, "request", steps=(1, 1)) == [1]


def test_a_sample_is_spread_over_the_time(store: Store) -> None:
    count = 6_000
    part_ns = HOUR_NS // count
    steps = [step(n, START_NS - HOUR_NS + n * part_ns) for n in range(count)]
    for number, span in enumerate(steps):
        span.span_id = (number + 1).to_bytes(8, "big")  # ids that follow each other
    store.commit([batch_of(steps)])
    where = EngineFilter("step", START_NS - HOUR_NS, START_NS)
    rows = store.engine_rows(where, ("step_index",), 120, is_sample=True)
    chosen = {row[0] for row in rows}
    assert len(chosen) == 120
    parts = [sum(n // (count // 12) == part for n in chosen) for part in range(12)]
    assert min(parts) >= 5
    assert store.engine_rows(where, ("step_index",), 120, is_sample=True) == rows
    assert len(store.engine_rows(where, ("step_index",), 10_000, is_sample=True)) == count


def test_columns_of_steps(store: Store) -> None:
    steps = [
        step(1, START_NS, prefill_tokens=30, decode_tokens=10, batch_fill_ratio=0.5),
        step(2, START_NS + SECOND_NS, prefill_tokens=0, decode_tokens=20, batch_fill_ratio=1.0),
        step(3, START_NS + 10 * SECOND_NS),
    ]
    store.commit([batch_of(steps)])
    where = EngineFilter("step", START_NS, START_NS + 20 * SECOND_NS)
    first, second = store.step_columns(where, 5 * SECOND_NS)
    assert (first.start_ns, first.step_count) == (START_NS, 2)
    assert (first.mean_duration_ns, first.longest_duration_ns) == (SECOND_NS, SECOND_NS)
    assert (first.batch_fill_ratio, first.prefill_share) == (0.75, 0.5)
    assert first.queue_depth is None
    assert (second.start_ns, second.step_count) == (START_NS + 10 * SECOND_NS, 1)
    assert second.prefill_share is None
