"""Both sides of a comparison are what the spans say, read or from sums in memory."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infertrace.collector.query.compared_sides import MAX_COMPARED, Sides, sides_of
from infertrace.collector.store import value_counts as counting
from infertrace.collector.store.grouping import SAMPLE_PARTS, BucketKey, ColumnKey, GroupedQuery
from infertrace.collector.store.measures import MeasureRange
from infertrace.collector.store.registry import open_store
from infertrace.collector.store.rollup import HOUR, WIDTHS_NS, Rollup
from infertrace.collector.store.span_filter import SpanFilter
from infertrace.collector.store.store import Store
from infertrace.collector.store.value_counts import COMPARED_KEYS, ValueCounts
from infertrace.generated.span_pb2 import InferenceContext, Span
from infertrace.wire.token_intervals import bucket_of
from store_batches import batch_of, new_span

MS = 1_000_000
SECOND_NS, MINUTE_NS, HOUR_NS = WIDTHS_NS
END_NS = time.time_ns() - 60 * SECOND_NS
START_NS = END_NS - 3 * HOUR_NS


class Beside:
    """A store in memory beside sums that only `fill` makes."""

    def __init__(self) -> None:
        self.store: Store = open_store("memory:")
        self.read: list[GroupedQuery] = []
        self._rollup = Rollup(self.store.grouped)

    def grouped(self, query: GroupedQuery) -> list[list[tuple[Any, ...]]]:
        self.read.append(query)
        return self.store.grouped(query)

    def value_counts(self, where: SpanFilter) -> tuple[tuple[int, int], ValueCounts] | None:
        return self._rollup.value_counts(where)

    def fill(self) -> None:
        self._rollup.fill((START_NS, END_NS), HOUR)

    def commit(self, spans: Sequence[Span]) -> None:
        rows = batch_of(list(spans))
        self.store.commit([rows])
        self._rollup.touch([rows.rows])


@pytest.fixture
def beside() -> Iterator[Beside]:
    found = Beside()
    yield found
    found.store.close()


def spans_of(draw: random.Random, count: int) -> list[Span]:
    """Requests, and children of them, which are not counted; some values are rare."""
    spans = []
    for _ in range(count):
        context = InferenceContext(queue_wait_time_ms=draw.choice([0.5, draw.uniform(0.1, 2_000)]))
        if draw.random() < 0.3:
            context.time_to_first_token_ms = draw.lognormvariate(3, 2)
        span = new_span(
            draw.choice(["gpt-4", "llama"]),
            start_time_unix_nano=draw.choice([START_NS, END_NS])
            if draw.random() < 0.01
            else draw.randrange(START_NS, END_NS),
            duration_nanos=round(draw.lognormvariate(18, 2)),
            service_name=draw.choice(["a", "b", "c"]),
            inference=context,
        )
        span.status = draw.choice(["OK", "OK", "ERROR"])
        if span.status == "ERROR" and draw.random() < 0.5:
            span.status_message = "broken"
        if draw.random() < 0.2:
            span.parent_span_id = b"parent00"
        spans.append(span)
    return spans


def meets(span: Span, where: SpanFilter) -> bool:
    """Written anew, to be compared with."""
    return (
        not (where.is_request and span.parent_span_id)
        and where.model in (None, span.inference.model_name)
        and where.status in (None, span.status)
        and (where.since_ns or 0) <= span.start_time_unix_nano < (where.until_ns or 2**63)
        and all(
            (each.least or 0) * MS <= span.duration_nanos <= (each.most or 1e12) * MS
            for each in where.ranges
        )
    )


def told(sides: Sides) -> dict[Any, Any]:
    rows, parts = sides.by(COMPARED_KEYS, MAX_COMPARED, 1_000)
    assert parts == SAMPLE_PARTS
    found = {}
    for key, values in rows.items():
        counts: Counter[Any] = Counter()
        for value, is_selected, count in values:
            assert count >= 0
            counts[value, is_selected] += count
        found[key] = {(value, of): n for (value, of), n in counts.items() if n}
        if isinstance(key, BucketKey):  # what has no value is in no histogram
            found[key] = {which: n for which, n in found[key].items() if which[0] is not None}
    return found


MOMENTS = st.integers(START_NS - MINUTE_NS, END_NS + MINUTE_NS)
TIMES = st.tuples(MOMENTS, MOMENTS).map(sorted).filter(lambda pair: pair[0] < pair[1])
OPEN = st.one_of(st.none(), st.floats(0.1, 1_000))
SELECTIONS = st.builds(
    lambda status, time_range, least, most: SpanFilter(
        status=status,
        since_ns=time_range[0],
        until_ns=time_range[1],
        ranges=(MeasureRange("duration_ms", least, most),) if least or most else (),
    ),
    st.sampled_from([None, "ERROR", "OK"]),
    st.one_of(st.just((None, None)), TIMES),
    OPEN,
    OPEN,
)


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32),
    time_range=st.one_of(st.just((START_NS, END_NS + 1)), TIMES),
    model=st.sampled_from([None, None, "llama"]),
    selected=SELECTIONS,
    late=st.booleans(),
)
def test_sums_tell_what_the_spans_tell(
    seed: int, time_range: Any, model: str | None, selected: SpanFilter, late: bool
) -> None:
    beside = Beside()
    try:
        draw = random.Random(seed)
        spans = spans_of(draw, 300)
        beside.commit(spans)
        where = SpanFilter(
            since_ns=time_range[0], until_ns=time_range[1], model=model, is_request=True
        )
        beside.fill()
        if late:
            spans += (more := spans_of(draw, 1))
            beside.commit(more)
        summed = sides_of(beside, where, selected, SpanFilter())  # type: ignore[arg-type]
        read = sides_of(beside.store, where, selected, SpanFilter())
        asked = [span for span in spans if meets(span, where)]
        chosen = [span for span in asked if meets(span, selected)]
        for sides in (summed, read):
            totals = sides.totals
            assert (totals.selected, totals.baseline) == (len(chosen), len(asked) - len(chosen))
            failed = sum(span.status == "ERROR" for span in chosen)
            assert totals.selected_errors == failed
            assert totals.baseline_errors == sum(s.status == "ERROR" for s in asked) - failed
            found = told(sides)
            for name in ("service_name", "status", "operation_name"):
                expected = Counter((getattr(it, name), meets(it, selected)) for it in asked)
                assert found[ColumnKey(name)] == expected
            assert found[ColumnKey("model_name")] == Counter(
                (it.inference.model_name, meets(it, selected)) for it in asked
            )
            assert found[ColumnKey("status_message")] == Counter(
                (it.status_message or None, meets(it, selected)) for it in asked
            )
            assert found[BucketKey("duration_ms")] == Counter(
                (bucket_of(it.duration_nanos), meets(it, selected)) for it in asked
            )
        assert told(summed) == told(read)
    finally:
        beside.store.close()


def test_of_a_filled_time_the_selection_and_the_edges_are_read(beside: Beside) -> None:
    beside.commit(spans_of(random.Random(1), 400))
    where = SpanFilter(since_ns=START_NS, until_ns=END_NS, is_request=True)
    selected = SpanFilter(status="ERROR")
    beside.fill()
    told(sides_of(beside, where, selected, SpanFilter()))  # type: ignore[arg-type]
    assert len(beside.read) == 2
    for query in beside.read:
        assert query.where.status == "ERROR"
        read_ns = sum((it.until_ns or 0) - (it.since_ns or 0) for it in query.others)
        assert 0 < read_ns < 2 * SECOND_NS


@pytest.mark.parametrize(
    ("limit", "values", "selected"),
    [
        ("MAX_VALUES", 2, SpanFilter(status="ERROR")),
        ("MAX_GROUPS", 4, SpanFilter(ranges=(MeasureRange("duration_ms", 100, None),))),
    ],
)
def test_a_text_with_too_many_values_is_read(
    beside: Beside,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    values: int,
    selected: SpanFilter,
) -> None:
    """Too many to keep for a model, or more than a query tells."""
    monkeypatch.setattr(counting, limit, values)
    beside.commit(spans_of(random.Random(1), 400))
    where = SpanFilter(since_ns=START_NS, until_ns=END_NS, is_request=True)
    beside.fill()
    known = beside.value_counts(where)
    assert known is not None
    assert known[1].of(ColumnKey("service_name")) is None
    assert limit == "MAX_GROUPS" or known[1].of(ColumnKey("model_name"))
    summed = sides_of(beside, where, selected, SpanFilter())  # type: ignore[arg-type]
    assert told(summed) == told(sides_of(beside.store, where, selected, SpanFilter()))
