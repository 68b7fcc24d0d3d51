"""Stored rows as the facts of the diagnosis, and what an answer shows of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

from infertrace.collector.diagnosis.facts import GpuFacts, RequestFacts, StepFacts
from infertrace.collector.query.flat_span import flat_values
from infertrace.collector.store.engine_filter import DEFAULT_ENGINE
from infertrace.collector.store.span_filter import Row
from infertrace.collector.store.timestamps import format_rfc3339

# In the order of the fields of the facts: 500 rows of each kind make a baseline.
_GPU = (
    "gpu_temperature_celsius",
    "gpu_power_watts",
    "gpu_utilization_percent",
    "gpu_memory_used_bytes",
    "gpu_memory_total_bytes",
)
_NO_READING = GpuFacts()
_SAME = (
    "model_name",
    "status",
    "status_message",
    "request_id",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "preemption_count",
    "scheduled_after_ms",
    "queue_wait_time_ms",
    "time_to_first_token_ms",
    "inter_token_latency_ms",
    "max_inter_token_latency_ms",
    "first_step",
    "last_step",
    "step_count",
    "membership",
)
REQUEST_COLUMNS = ("trace_id", "span_id", "start_time", "duration_nanos", "engine", *_SAME, *_GPU)

_SAME_OF_STEP = (
    "batch_size",
    "batch_fill_ratio",
    "prefill_tokens",
    "decode_tokens",
    "queue_depth",
    "kv_cache_usage",
)
STEP_COLUMNS = (
    "trace_id",
    "span_id",
    "step_index",
    "start_time",
    "duration_nanos",
    *_SAME_OF_STEP,
    *_GPU,
)
# A text, or an id, costs as much to read as all else of a row.
BASELINE_REQUEST_COLUMNS = (
    "span_id",
    "start_time",
    "duration_nanos",
    "status",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "scheduled_after_ms",
    "queue_wait_time_ms",
    "time_to_first_token_ms",
    "inter_token_latency_ms",
    "max_inter_token_latency_ms",
    *_GPU,
)
BASELINE_STEP_COLUMNS = (
    "span_id",
    "step_index",
    "start_time",
    "duration_nanos",
    "batch_size",
    "prefill_tokens",
    "decode_tokens",
    *_GPU,
)
SHOWN_STEP_COLUMNS = (
    "trace_id",
    "span_id",
    "producer_id",
    "service_name",
    "model_name",
    "engine",
    "step_index",
    "start_time",
    "duration_nanos",
    "status",
    *_SAME_OF_STEP,
    *_GPU,
)


def request_facts(columns: tuple[str, ...], row: Row) -> RequestFacts:
    """A request from a row; what is not among the columns is not recorded."""
    values = _getter(columns, REQUEST_COLUMNS)((*row, None))
    trace_id, span_id, start_ns, duration_ns, engine = values[:5]
    ids = ("" if trace_id is None else trace_id.hex, f"{span_id:016x}")
    same, gpu = values[5 : -len(_GPU)], _gpu(values[-len(_GPU) :])
    given: list[Any] = [*ids, start_ns, duration_ns, *same, engine or DEFAULT_ENGINE, gpu]
    return RequestFacts(*given)


def step_facts(columns: tuple[str, ...], row: Row) -> StepFacts:
    """A step from a row; what is not among the columns is not recorded."""
    values = _getter(columns, STEP_COLUMNS)((*row, None))
    trace_id, span_id, *others = values[: -len(_GPU)]
    trace = "" if trace_id is None else trace_id.hex
    given: list[Any] = [trace, f"{span_id:016x}", *others, _gpu(values[-len(_GPU) :])]
    return StepFacts(*given)


@lru_cache
def _getter(columns: tuple[str, ...], wanted: tuple[str, ...]) -> Callable[[Row], Row]:
    """Takes the wanted columns of a row that has a None behind them, for those it lacks."""
    places = {name: place for place, name in enumerate(columns)}
    return itemgetter(*(places.get(name, len(columns)) for name in wanted))


def _gpu(values: Sequence[Any]) -> GpuFacts:
    return GpuFacts(None, *values) if any(value is not None for value in values) else _NO_READING


def shown_step(row: Row) -> dict[str, Any]:
    """A row of SHOWN_STEP_COLUMNS as JSON types; the engine is there in any case."""
    shown = flat_values(SHOWN_STEP_COLUMNS, row)
    shown.setdefault("engine", DEFAULT_ENGINE)
    return shown


def shown_request(request: RequestFacts) -> dict[str, Any]:
    """A request in an answer about another one: enough to name and to find it."""
    shown: dict[str, Any] = {"trace_id": request.trace_id, "span_id": request.span_id}
    if request.request_id is not None:
        shown["request_id"] = request.request_id
    shown["start_time"] = format_rfc3339(request.start_ns)
    shown["duration_ms"] = request.duration_ms
    for name in ("input_tokens", "cached_input_tokens", "output_tokens", "membership"):
        if (value := getattr(request, name)) is not None:
            shown[name] = value
    return shown
