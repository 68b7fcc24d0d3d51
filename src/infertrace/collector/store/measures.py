"""The numbers of a span that can be compared, filtered by and ordered by: their one declaration."""

from __future__ import annotations

from dataclasses import dataclass

from infertrace.collector.store.columns import COLUMNS, Kind
from infertrace.collector.store.kinds import exact_float32
from infertrace.collector.store.metrics import EXPRESSIONS
from infertrace.collector.store.timestamps import MAX_UNIX_NANOS, NANOS_PER_MS

_KINDS = {column.name: column.kind for column in COLUMNS}


@dataclass(frozen=True)
class Measure:
    """One number of a span.

    `columns` are those that `sql` reads. What is stored is the value in its unit times
    `stored_per_unit`; what buckets are made of is the value times `per_unit`, so that a bucket is
    not wider than the value is exact: nanoseconds of milliseconds, millionths of shares.
    """

    name: str
    unit: str
    per_unit: int
    columns: tuple[str, ...]
    stored_per_unit: int = 1

    @property
    def kind(self) -> Kind:
        return _KINDS[self.columns[0]]

    @property
    def sql(self) -> str:
        """What is stored, in SQL."""
        return EXPRESSIONS.get(self.columns[0], self.columns[0])

    @property
    def bucketed_sql(self) -> str:
        """What buckets are made of, in SQL."""
        factor = self.per_unit // self.stored_per_unit
        number = f"CAST({self.sql} AS double precision)"
        return number if factor == 1 else f"({number} * {factor})"

    def stored(self, value: float) -> float:
        """A value in the unit as it would be stored, to compare with."""
        if self.kind == "float32":
            return exact_float32(value)
        if self.stored_per_unit == 1:
            return value
        return min(round(value * self.stored_per_unit), MAX_UNIX_NANOS)


@dataclass(frozen=True)
class MeasureRange:
    """A condition: the measure is there, and lies between these, both included; None is open."""

    measure: str
    least: float | None = None
    most: float | None = None

    def bounds(self) -> list[tuple[str, float]]:
        """Comparisons with what is stored: an operator and a number for each bound."""
        measure = MEASURES[self.measure]
        given = ((">=", self.least), ("<=", self.most))
        return [(sign, measure.stored(value)) for sign, value in given if value is not None]


def _milliseconds(name: str, *more: str) -> Measure:
    return Measure(name, "ms", NANOS_PER_MS, (name, *more))


def _count(name: str, unit: str) -> Measure:
    return Measure(name, unit, 1, (name,))


def _share(name: str) -> Measure:
    return Measure(name, "share", 1_000_000, (name,))


MEASURES = {
    measure.name: measure
    for measure in (
        Measure("duration_ms", "ms", NANOS_PER_MS, ("duration_nanos",), NANOS_PER_MS),
        _milliseconds("time_to_first_token_ms"),
        _milliseconds("inter_token_latency_ms"),
        _milliseconds("max_inter_token_latency_ms"),
        _milliseconds("queue_wait_time_ms", "scheduled_after_ms"),
        _count("input_tokens", "tokens"),
        _count("cached_input_tokens", "tokens"),
        _count("output_tokens", "tokens"),
        _count("reasoning_output_tokens", "tokens"),
        _share("cache_hit_rate"),
        _count("sequence_length", "tokens"),
        _count("preemption_count", "preemptions"),
        _count("step_count", "steps"),
        _count("batch_size", "requests"),
        _share("batch_fill_ratio"),
        _count("queue_depth", "requests"),
        _share("kv_cache_usage"),
        _count("gpu_utilization_percent", "percent"),
        _count("gpu_memory_used_bytes", "bytes"),
        _count("gpu_power_watts", "watts"),
        _count("gpu_temperature_celsius", "degrees Celsius"),
        _count("cpu_utilization_percent", "percent"),
    )
}
"""By the names that answers and parameters have."""

DIMENSIONS = (
    "model_name",
    "model_version",
    "service_name",
    "operation_name",
    "status",
    "status_message",
    "framework",
    "pipeline_stage",
    "finish_reason",
    "engine",
    "gpu_device_id",
    "scope_name",
)
"""The texts of a span that can be compared, filtered by and grouped by."""
