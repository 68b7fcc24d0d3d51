"""Sums of hours, minutes and seconds say what the spans themselves say, whatever happens."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infertrace.collector.store import rollup as rolling
from infertrace.collector.store.grouping import GroupedQuery, TimeKey
from infertrace.collector.store.model_sums import (
    DISTRIBUTED,
    ModelSums,
    bucket_counts,
    histogram,
    model_sums,
)
from infertrace.collector.store.registry import open_store
from infertrace.collector.store.rollup import HOUR, MINUTE, WIDTHS_NS, Rollup
from infertrace.collector.store.span_filter import SpanFilter
from infertrace.collector.store.store import Batch, Retention, Store
from infertrace.generated.span_pb2 import InferenceContext, Span, SpanKind, TokenIntervals
from infertrace.wire.token_intervals import HIGHEST_BUCKET, MAX_COUNT
from store_batches import batch_of, new_span

SECOND_NS, MINUTE_NS, HOUR_NS = WIDTHS_NS
END_NS = time.time_ns() - 60 * SECOND_NS
SPREAD_NS = 5 * HOUR_NS
PATIENCE_S = 60


def told(sums: Any) -> dict[str, Any]:
    """Sums in a form that is equal where they mean the same."""
    found = {}
    for model, each in sums.items():
        parts: Counter[int] = Counter()
        errors: Counter[int] = Counter()
        for part, count, error_count in each.told_parts():
            parts[part] += count
            errors[part] += error_count
        plain = replace(each, histograms=(), parts=None)
        found[model] = plain, [bucket_counts(it) for it in each.histograms], parts, errors
    return found


def raw(store: Store, where: SpanFilter, parts: TimeKey) -> dict[str, Any]:
    return told(model_sums(store.grouped, where, parts).get(0, {}))


def span(draw: random.Random, start_ns: int) -> Span:
    """Of any kind that counts differently: steps and children do not count at all."""
    context = InferenceContext(
        output_tokens=draw.choice([0, 3, 50]),
        queue_wait_time_ms=draw.choice([0.0, 0.5, draw.uniform(0, 2_000)]),
    )
    if draw.random() < 0.5:
        context.time_to_first_token_ms = draw.lognormvariate(3, 2)
    if draw.random() < 0.5:
        offset, counts = draw.randrange(0, 300), [draw.randrange(1, 9) for _ in range(9)]
        context.token_intervals.CopyFrom(TokenIntervals(offset=offset, counts=counts))
    made = new_span(
        draw.choice(["gpt-4", "llama"]),
        start_time_unix_nano=start_ns,
        duration_nanos=round(draw.lognormvariate(18, 2)),
        service_name=draw.choice(["client", "engine"]),
        inference=context,
    )
    made.status = draw.choice(["OK", "OK", "ERROR"])
    if draw.random() < 0.2:
        made.parent_span_id = b"parent00"
    if draw.random() < 0.4:
        made.kind = SpanKind.SPAN_KIND_CLIENT
    return made


def batch(draw: random.Random, low_ns: int, high_ns: int, count: int) -> Batch:
    return batch_of([span(draw, draw.randrange(low_ns, high_ns)) for _ in range(count)])


class Beside:
    """A rollup beside a store in memory, whose questions something may happen after."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.asked: list[SpanFilter] = []
        self.then: Callable[[], None] = lambda: None
        self.rollup = Rollup(self._grouped)

    def _grouped(self, query: GroupedQuery) -> list[list[tuple[Any, ...]]]:
        self.asked.append(query.where)
        found = self.store.grouped(query)
        then, self.then = self.then, lambda: None
        then()
        return found

    def commit(self, rows: Batch) -> None:
        self.store.commit([rows])
        self.rollup.touch([rows.rows])

    def delete(self, age_ns: int) -> None:
        self.store.retain(Retention(max_age_ns=age_ns))
        self.rollup.forget_before(time.time_ns() - age_ns)


@pytest.fixture
def beside() -> Iterator[Beside]:
    store = open_store("memory:")
    yield Beside(store)
    store.close()


def window(
    low_ns: int, high_ns: int, grain_ns: int, columns: int = 7
) -> tuple[SpanFilter, TimeKey]:
    where = SpanFilter(since_ns=low_ns, until_ns=high_ns, is_request=True)
    return where, TimeKey(low_ns, max(1, (high_ns - low_ns) // columns), grain_ns=grain_ns)


MOMENTS = st.one_of(
    st.integers(END_NS - SPREAD_NS, END_NS),
    st.integers(0, 5).map(lambda hours: END_NS // HOUR_NS * HOUR_NS - hours * HOUR_NS),
    st.integers(0, 300).map(lambda minutes: END_NS // MINUTE_NS * MINUTE_NS - minutes * MINUTE_NS),
)
RANGES = st.tuples(MOMENTS, MOMENTS).map(sorted).filter(lambda pair: pair[0] < pair[1])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("commit"), RANGES, st.integers(0, 40)),
        st.tuples(st.just("fill"), RANGES, st.sampled_from([MINUTE, HOUR])),
        st.tuples(st.just("fill and commit"), RANGES, st.sampled_from([MINUTE, HOUR])),
        st.tuples(st.just("fill and delete"), RANGES, st.sampled_from([MINUTE, HOUR])),
        st.tuples(st.just("delete"), RANGES, st.none()),
        st.tuples(st.just("ask"), RANGES, st.sampled_from([1, SECOND_NS, MINUTE_NS])),
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS, seed=st.integers(0, 2**32))
def test_any_history_is_told_as_the_spans_tell_it(steps: Any, seed: int) -> None:
    store = open_store("memory:")
    try:
        beside = Beside(store)
        draw = random.Random(seed)
        beside.commit(batch(draw, END_NS - SPREAD_NS, END_NS, 200))
        for action, (low_ns, high_ns), how in steps:
            if "and commit" in action:
                late = batch(draw, low_ns, high_ns, 5)
                beside.then = partial(beside.commit, late)
            if "and delete" in action:
                beside.then = partial(beside.delete, time.time_ns() - (low_ns + high_ns) // 2)
            if action == "commit":
                beside.commit(batch(draw, low_ns, high_ns, how))
            elif action.startswith("fill"):
                beside.rollup.fill((low_ns, high_ns), how)
                beside.then = lambda: None  # there was nothing to fill
            elif action == "delete":
                beside.delete(time.time_ns() - low_ns)
            else:
                asked = window(low_ns, high_ns, how)
                assert told(beside.rollup.sums(*asked)) == raw(store, *asked)
        beside.rollup.fill((END_NS - SPREAD_NS, END_NS), HOUR)
        for grain_ns in (SECOND_NS, MINUTE_NS):
            asked = window(END_NS - SPREAD_NS, END_NS, grain_ns)
            assert told(beside.rollup.sums(*asked)) == raw(store, *asked)
    finally:
        store.close()


def test_a_filled_time_is_read_at_its_ends_only(beside: Beside) -> None:
    low_ns, high_ns = END_NS - SPREAD_NS, END_NS
    beside.commit(batch(random.Random(1), low_ns, high_ns, 300))
    beside.rollup.fill((low_ns, high_ns), HOUR)
    asked = window(low_ns, high_ns, MINUTE_NS)
    beside.asked.clear()
    assert told(beside.rollup.sums(*asked)) == raw(beside.store, *asked)
    read_ns = sum((it.until_ns or 0) - (it.since_ns or 0) for it in set(beside.asked))
    assert 0 < read_ns < 2 * SECOND_NS

    # One late span costs one hour, until that is filled again.
    late_ns = low_ns // HOUR_NS * HOUR_NS + 2 * HOUR_NS + 5
    beside.commit(batch(random.Random(2), late_ns, late_ns + 1, 1))
    beside.asked.clear()
    assert told(beside.rollup.sums(*asked)) == raw(beside.store, *asked)
    assert any((it.until_ns or 0) - (it.since_ns or 0) == HOUR_NS for it in beside.asked)


def test_a_filter_that_sums_do_not_know_reads_the_spans(beside: Beside) -> None:
    low_ns, high_ns = END_NS - SPREAD_NS, END_NS
    beside.commit(batch(random.Random(1), low_ns, high_ns, 300))
    beside.rollup.fill((low_ns, high_ns), HOUR)
    where, parts = window(low_ns, high_ns, MINUTE_NS)
    for narrowed in (
        replace(where, model="llama"),
        replace(where, service="engine"),
        replace(where, is_request=False),
        replace(where, min_duration_ns=10**8),
    ):
        assert told(beside.rollup.sums(narrowed, parts)) == raw(beside.store, narrowed, parts)


def test_memory_is_bounded(beside: Beside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rolling, "MAX_SUMS", 40)
    low_ns, high_ns = END_NS - SPREAD_NS, END_NS
    beside.commit(batch(random.Random(1), low_ns, high_ns, 300))
    for top, grain_ns in ((HOUR, MINUTE_NS), (MINUTE, SECOND_NS)):
        beside.rollup.fill((low_ns, high_ns), top)
        assert 0 < beside.rollup.size <= 40 + 2
        asked = window(low_ns, high_ns, grain_ns)
        assert told(beside.rollup.sums(*asked)) == raw(beside.store, *asked)
    beside.rollup.forget_before(high_ns)
    assert beside.rollup.size == 0


def test_more_models_than_have_room_are_not_added_up(
    beside: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million of them would take minutes, which a shutdown waits for."""
    monkeypatch.setattr(rolling, "MAX_SUMS", 1)
    beside.commit(batch(random.Random(1), END_NS - SPREAD_NS, END_NS, 300))
    beside.rollup.fill((END_NS - SPREAD_NS, END_NS), HOUR)
    assert len(beside.asked) == 1
    assert beside.rollup.size == 0


def test_of_all_time_only_the_last_hours_are_filled(beside: Beside) -> None:
    beside.commit(batch(random.Random(1), 10**9, 2 * 10**9, 20))
    beside.commit(batch(random.Random(2), END_NS - SPREAD_NS, END_NS, 300))
    beside.rollup.fill((0, 2**62), HOUR)
    oldest_ns = min(where.since_ns or 0 for where in beside.asked)
    assert oldest_ns >= END_NS - (rolling.FILLED_HOURS + 1) * HOUR_NS
    asked = window(0, 2**62, MINUTE_NS)
    assert told(beside.rollup.sums(*asked)) == raw(beside.store, *asked)


def test_many_holes_are_read_at_once(beside: Beside) -> None:
    beside.commit(batch(random.Random(1), END_NS - 4 * SPREAD_NS, END_NS, 500))
    beside.rollup.fill((END_NS - 4 * SPREAD_NS, END_NS), HOUR)
    for hours in range(0, 20, 2):
        late_ns = END_NS - hours * HOUR_NS
        beside.commit(batch(random.Random(hours), late_ns - 1, late_ns, 1))
    beside.asked.clear()
    asked = window(END_NS - 4 * SPREAD_NS, END_NS, MINUTE_NS)
    assert told(beside.rollup.sums(*asked)) == raw(beside.store, *asked)
    assert len(set(beside.asked)) == 1


def test_while_spans_come_in_an_answer_has_all_that_came_before_it(tmp_path: Path) -> None:
    store = open_store(f"duckdb:///{tmp_path}/spans.duckdb")
    committed, done = [0], threading.Event()

    def write() -> None:
        draw = random.Random(3)
        for number in range(60):
            late_ns = draw.choice([0, 0, MINUTE_NS, HOUR_NS])
            now_ns = time.time_ns()
            spans = [
                new_span(start_time_unix_nano=now_ns - late_ns - draw.randrange(1, 3 * SECOND_NS))
                for _ in range(50)
            ]
            store.commit([batch_of(spans)])
            committed[0] += len(spans)
            if number % 10 == 0:
                time.sleep(0.1)  # so that questions come in between, and the thread fills
        done.set()

    try:
        since_ns = time.time_ns() - 3 * HOUR_NS
        writer = threading.Thread(target=write)
        writer.start()
        while not done.is_set():
            before = committed[0]
            asked = window(since_ns, time.time_ns() + HOUR_NS, MINUTE_NS)
            found = store.model_sums(*asked)
            assert sum(each.count for each in found.values()) >= before
        writer.join()
        assert told(store.model_sums(*asked)) == raw(store, *asked)
        store.checkpoint()
        assert told(store.model_sums(*asked)) == raw(store, *asked)
        store.retain(Retention(max_age_ns=HOUR_NS // 2))
        assert told(store.model_sums(*asked)) == raw(store, *asked)
    finally:
        store.close()


def test_a_store_fills_its_last_day_when_it_is_opened(tmp_path: Path) -> None:
    url = f"duckdb:///{tmp_path}/spans.duckdb"
    store = open_store(url)
    store.commit([batch(random.Random(1), END_NS - SPREAD_NS, END_NS, 300)])
    store.close()
    store = open_store(url)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not store._rollup.size:  # type: ignore[attr-defined]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        asked = window(END_NS - SPREAD_NS, END_NS, MINUTE_NS)
        assert told(store.model_sums(*asked)) == raw(store, *asked)
    finally:
        store.close()


def test_every_store_sums_up_alike(store_url: str, opened: Callable[[str], Store]) -> None:
    store = opened(store_url)
    rows = batch(random.Random(5), END_NS - SPREAD_NS, END_NS, 300)
    store.commit([rows])
    other = opened("memory:")
    other.commit([rows])
    for grain_ns in (1, SECOND_NS, MINUTE_NS):
        asked = window(END_NS - SPREAD_NS, END_NS, grain_ns)
        assert told(store.model_sums(*asked)) == raw(other, *asked)


@given(
    st.integers(0, 2**62), st.integers(0, 10**15), st.integers(1, 10**13),
    st.sampled_from([1, SECOND_NS, MINUTE_NS]),
)  # fmt: skip
def test_a_grain_lies_in_one_part(
    since_ns: int, later_ns: int, length_ns: int, grain_ns: int
) -> None:
    parts = TimeKey(since_ns, length_ns, grain_ns=grain_ns)
    moment_ns = since_ns + later_ns
    part = parts.part(moment_ns)
    first_ns = moment_ns // grain_ns * grain_ns
    assert part == parts.part(first_ns) == parts.part(first_ns + grain_ns - 1)
    exact = later_ns // length_ns
    assert exact <= part <= (later_ns + grain_ns - 1) // length_ns


COUNTS = st.dictionaries(
    st.integers(-2, HIGHEST_BUCKET - 1), st.integers(1, 3 * MAX_COUNT), max_size=20
)


@given(st.lists(COUNTS, max_size=4))
def test_histograms_add_up(given_counts: list[dict[int, int]]) -> None:
    expected: Counter[int] = Counter()
    messages: list[bytes] = []
    for counts in given_counts:
        expected.update(counts)
        messages += histogram(counts)
    assert bucket_counts(messages) == expected
    sums = ModelSums(histograms=(messages, *([] for _ in DISTRIBUTED)))
    sums.compact()
    assert bucket_counts(sums.histograms[0]) == expected
