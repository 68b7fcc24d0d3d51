"""Which steps of engines, or which requests, an answer is made of."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from infertrace.collector.store.selection import REQUEST, STEP

DEFAULT_ENGINE = "0"

# A request may have a parent in its own process: what a span says of its steps makes it one.
_KINDS = {
    "step": STEP,
    "request": (
        f"step_index IS NULL AND ({REQUEST} OR first_step IS NOT NULL "
        "OR scheduled_after_ms IS NOT NULL)"
    ),
}
# Spreads rows whose ids follow each other, as those of one thread do, evenly: 40503 is 2**16 over
# the golden ratio. The same number whether the id is signed, as in PostgreSQL, or not.
EVENLY = "((span_id & 65535) * 40503) & 65535, span_id"


@dataclass(frozen=True)
class EngineFilter:
    """Steps or requests that started from `since_ns` on and before `until_ns`.

    Times are nanoseconds since 1970. None asks for no condition. `ended_after_ns` and
    `ended_by_ns` are about the end. `steps` are the first and last index of an interval: of a
    step, that it lies in it, of a request, that its own one has a step of it.
    """

    kind: Literal["step", "request"]
    since_ns: int
    until_ns: int
    model: str | None = None
    service: str | None = None
    operation: str | None = None
    engine: str | None = None
    producer_id: uuid.UUID | None = None
    ended_after_ns: int | None = None
    ended_by_ns: int | None = None
    steps: tuple[int, int] | None = None

    def condition(
        self, placeholder: str, text: Callable[[str], str] = str
    ) -> tuple[str, list[Any]]:
        """The condition in SQL, and its values; `text` converts a text to its stored form."""
        last_step = "step_index" if self.kind == "step" else "last_step"
        first_step = "step_index" if self.kind == "step" else "first_step"
        first, last = self.steps or (None, None)
        conditions: dict[str, Any] = {
            "start_time >= {}": self.since_ns,
            "start_time < {}": self.until_ns,
            "model_name = {}": self.model,
            "service_name = {}": self.service,
            "operation_name = {}": self.operation,
            f"coalesce(engine, '{DEFAULT_ENGINE}') = {{}}": self.engine,
            "producer_id = {}": self.producer_id,
            "start_time + duration_nanos > {}": self.ended_after_ns,
            "start_time + duration_nanos <= {}": self.ended_by_ns,
            f"{last_step} >= {{}}": first,
            f"{first_step} <= {{}}": last,
        }
        present = {sql: value for sql, value in conditions.items() if value is not None}
        parts = [*(sql.format(placeholder) for sql in present), _KINDS[self.kind]]
        values = [text(value) if isinstance(value, str) else value for value in present.values()]
        return " AND ".join(parts), values


FILTERED_COLUMNS = (
    "start_time",
    "duration_nanos",
    "model_name",
    "service_name",
    "operation_name",
    "engine",
    "producer_id",
    "step_index",
    "first_step",
    "last_step",
    "scheduled_after_ms",
    "parent_span_id",
    "flags",
    "kind",
    "output_tokens",
    "span_id",
)
"""What conditions and orders read."""


@dataclass(frozen=True)
class StepColumn:
    """The steps that started in one part of a time; nanoseconds, the start since 1970.

    The means are of the steps that say it, None where none does. `prefill_share` is of all the
    tokens of these steps.
    """

    start_ns: int
    step_count: int
    mean_duration_ns: float
    longest_duration_ns: int
    batch_fill_ratio: float | None
    prefill_share: float | None
    queue_depth: float | None
    kv_cache_usage: float | None


_STEP_COLUMN_SQL = """
    SELECT {floor} AS part, count(*), avg(duration_nanos), max(duration_nanos),
        avg(batch_fill_ratio), sum(prefill_tokens), sum(decode_tokens), avg(queue_depth),
        avg(kv_cache_usage)
    FROM {spans} WHERE {condition} GROUP BY 1 ORDER BY 1"""
STEP_COLUMN_COLUMNS = (
    "batch_fill_ratio",
    "prefill_tokens",
    "decode_tokens",
    "queue_depth",
    "kv_cache_usage",
)


def step_columns_sql(floor: str, spans: str, condition: str) -> str:
    """The query of `StepColumn`s; `floor` is the part of a step in SQL, a whole number."""
    return _STEP_COLUMN_SQL.format(floor=floor, spans=spans, condition=condition)


def step_column(row: Sequence[Any], since_ns: int, length_ns: int) -> StepColumn:
    """A row of that query, of parts of a length."""
    part, count, mean_ns, longest_ns, fill, prefill, decode, depth, usage = row
    tokens = (prefill or 0) + (decode or 0)
    return StepColumn(
        since_ns + int(part) * length_ns,
        count,
        float(mean_ns),
        longest_ns,
        None if fill is None else float(fill),
        float((prefill or 0) / tokens) if tokens else None,
        None if depth is None else float(depth),
        None if usage is None else float(usage),
    )
