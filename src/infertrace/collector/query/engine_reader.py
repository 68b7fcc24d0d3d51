"""What the store knows of a request, of its engine in its time, and of what is usual.

Every look-up is bounded in time, as the stores are ordered by it.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from infertrace.collector.diagnosis.facts import RequestFacts, StepFacts
from infertrace.collector.diagnosis.usual import MAX_BASELINE_ROWS, Usual, usual_of
from infertrace.collector.query.engine_facts import (
    BASELINE_REQUEST_COLUMNS,
    BASELINE_STEP_COLUMNS,
    REQUEST_COLUMNS,
    STEP_COLUMNS,
    request_facts,
    step_facts,
)
from infertrace.collector.store.columns import COLUMNS
from infertrace.collector.store.engine_filter import EngineFilter
from infertrace.collector.store.span_filter import COLUMN_INDEX, Row
from infertrace.collector.store.store import SpanReader
from infertrace.collector.store.timestamps import MAX_UNIX_NANOS, NANOS_PER_SECOND

MAX_STEPS = 20_000
MAX_OTHERS = 5_000
BASELINE_NS = 3_600 * NANOS_PER_SECOND
LONGEST_STEP_NS = 60 * NANOS_PER_SECOND
"""A step that began longer before a request is not looked for."""
LONGEST_REQUEST_NS = 900 * NANOS_PER_SECOND
"""Likewise, of other requests."""
MAX_TRACE_SPANS = 10_000

_NAMES = tuple(column.name for column in COLUMNS)


@dataclass(frozen=True)
class StoredRequest:
    """A request, and what tells its engine from others."""

    facts: RequestFacts
    producer_id: uuid.UUID | None
    service_name: str | None
    operation_name: str | None


@dataclass(frozen=True)
class Surroundings:
    """The steps of a request's engine in its time, and the other requests there."""

    steps: Sequence[StepFacts]
    others: Sequence[RequestFacts]
    is_truncated: bool


def find_request(
    store: SpanReader, trace_id: uuid.UUID, span_id: int | None = None
) -> StoredRequest | None:
    """The request in a trace, or the span with an id: None where there is none.

    Of several spans with a model it is the one that says most of what a request has: its steps,
    then its times, then its id; of these the longest.
    """
    rows = [row for row in store.trace(trace_id, MAX_TRACE_SPANS) if _is_request(row)]
    if span_id is not None:
        rows = [row for row in rows if _value(row, "span_id") == span_id]
    if not rows:
        return None
    row = max(rows, key=_fitness)
    return StoredRequest(
        request_facts(_NAMES, row),
        _value(row, "producer_id"),
        _value(row, "service_name"),
        _value(row, "operation_name"),
    )


def _is_request(row: Row) -> bool:
    return _value(row, "model_name") is not None and _value(row, "step_index") is None


def _fitness(row: Row) -> tuple[Any, ...]:
    def has(*names: str) -> bool:
        return any(_value(row, name) is not None for name in names)

    return (
        has("first_step"),
        has("scheduled_after_ms", "time_to_first_token_ms", "queue_wait_time_ms"),
        has("request_id", "output_tokens"),
        _value(row, "duration_nanos"),
        _value(row, "span_id"),
    )


def _value(row: Row, column: str) -> Any:
    return row[COLUMN_INDEX[column]]


def surroundings(store: SpanReader, request: StoredRequest) -> Surroundings:
    """What happened on the request's engine in its time."""
    facts = request.facts
    if request.producer_id is None:
        return Surroundings([], [], is_truncated=False)

    def during(kind: Any, before_ns: int) -> EngineFilter:
        return EngineFilter(
            kind,
            max(0, facts.start_ns - before_ns),
            min(facts.end_ns + 1, MAX_UNIX_NANOS),
            model=facts.model_name,
            engine=facts.engine,
            producer_id=request.producer_id,
            ended_after_ns=facts.start_ns,
        )

    steps = store.engine_rows(during("step", LONGEST_STEP_NS), STEP_COLUMNS, MAX_STEPS)
    others = store.engine_rows(
        during("request", LONGEST_REQUEST_NS), REQUEST_COLUMNS, MAX_OTHERS + 1
    )
    found = [request_facts(REQUEST_COLUMNS, row) for row in others]
    return Surroundings(
        [step_facts(STEP_COLUMNS, row) for row in steps],
        [other for other in found if other.span_id != facts.span_id][:MAX_OTHERS],
        is_truncated=len(steps) == MAX_STEPS or len(others) > MAX_OTHERS,
    )


def usual_before(store: SpanReader, request: StoredRequest) -> Usual:
    """What was usual for the model, in its service, in the hour before the request."""
    facts = request.facts
    since_ns = max(0, facts.start_ns - BASELINE_NS)

    def before(kind: Any, operation: str | None) -> EngineFilter:
        return EngineFilter(
            kind,
            since_ns,
            facts.start_ns,
            model=facts.model_name,
            service=request.service_name,
            operation=operation,
            ended_by_ns=facts.start_ns,
        )

    requests = store.engine_rows(
        before("request", request.operation_name),
        BASELINE_REQUEST_COLUMNS,
        MAX_BASELINE_ROWS,
        is_sample=True,
    )
    steps = store.engine_rows(
        before("step", None), BASELINE_STEP_COLUMNS, MAX_BASELINE_ROWS, is_sample=True
    )
    return usual_of(
        since_ns,
        facts.start_ns,
        [request_facts(BASELINE_REQUEST_COLUMNS, row) for row in requests],
        [step_facts(BASELINE_STEP_COLUMNS, row) for row in steps],
    )
