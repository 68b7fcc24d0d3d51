"""Every model in one answer: rates, percentiles, a line over time, and the change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from infertrace.collector.query.chosen_spans import bounds, chosen_spans, counted
from infertrace.collector.query.documentation import OBJECT, documented
from infertrace.collector.query.parameters import (
    BASELINE,
    CHOSEN,
    KEYED_PARAMETERS,
    LIMIT,
    parts_of_time,
)
from infertrace.collector.query.statistics_change import change
from infertrace.collector.store.exponential_buckets import quantiles
from infertrace.collector.store.grouping import TimeKey
from infertrace.collector.store.metrics import FRACTIONS
from infertrace.collector.store.model_sums import (
    DISTRIBUTIONS,
    INTERVALS,
    ModelSums,
    bucket_counts,
)
from infertrace.collector.store.rollup import GRAINS_NS
from infertrace.collector.store.span_filter import SpanFilter
from infertrace.collector.store.store import SpanReader
from infertrace.collector.store.timestamps import NANOS_PER_MS, NANOS_PER_SECOND, format_rfc3339

DEFAULT_COLUMNS = 60
MAX_OVERVIEW_COLUMNS = 400
DEFAULT_MODELS = 100
_PREFIXES = {
    "duration_ms": "",
    "time_to_first_token_ms": "time_to_first_token_",
    "queue_wait_time_ms": "queue_wait_time_",
    INTERVALS: "inter_token_latency_",
}
GRAINS_OF_COLUMN = 20  # at least; a column ends within a grain of where it would otherwise


def overview_routes(store: SpanReader) -> APIRouter:
    """`/overview`."""
    router = APIRouter()
    own = (parts_of_time(DEFAULT_COLUMNS, MAX_OVERVIEW_COLUMNS), BASELINE, LIMIT)

    @router.get("/overview", **documented("All models", (*CHOSEN, *own, *KEYED_PARAMETERS), OBJECT))
    def overview(request: Request) -> Response:
        """The window is 1h by default, in 60 columns. Of each model, busiest first: what `/models`
        tells, with percentiles from buckets, within 4.4 %; `requests_per_second` over the window;
        `columns`, the count and the errors of each part of the time. Parts of 20 s and more begin
        with a whole second, those of 20 minutes and more with a whole minute. With `baseline`,
        `change` against the time so long before. `total` are all spans that were counted, of
        `model_count` models; `truncated` says that there are more than are told."""
        where, values = chosen_spans(request.query_params, own)
        columns = values.get("columns", DEFAULT_COLUMNS)
        since_ns, until_ns = bounds(where)
        length_ns = max(1, -(-(until_ns - since_ns) // columns))
        parts = TimeKey(since_ns, length_ns, grain_ns=_grain_ns(length_ns))
        sums = store.model_sums(where, parts)
        limit = values.get("limit", DEFAULT_MODELS)
        listed = sorted(sums, key=lambda name: (-sums[name].count, name))[:limit]
        models = _models(store, where, sums, listed, columns)
        answer: dict[str, Any] = {
            "counted": counted(where),
            "column_seconds": length_ns / NANOS_PER_SECOND,
            "total": sum(told.count for told in sums.values()),
            "model_count": len(sums),
        }
        if (baseline_ns := values.get("baseline")) is not None:
            before = replace(where, since_ns=max(0, since_ns - baseline_ns), until_ns=since_ns)
            answer["baseline"] = counted(before)
            parts = replace(parts, since_ns=bounds(before)[0])
            then = _models(store, before, store.model_sums(before, parts), listed, columns)
            for name, model in models.items():
                model["change"] = change(
                    model, then.get(name, {}), (until_ns - since_ns) / baseline_ns
                )
        answer["truncated"] = len(sums) > limit
        answer["models"] = [models[name] for name in listed]
        return JSONResponse(answer)

    return router


def _grain_ns(length_ns: int) -> int:
    fine = [grain for grain in GRAINS_NS if grain * GRAINS_OF_COLUMN <= length_ns]
    return max(fine, default=1)


def _models(
    store: SpanReader,
    where: SpanFilter,
    sums: Mapping[str, ModelSums],
    names: Iterable[str],
    columns: int,
) -> dict[str, dict[str, Any]]:
    """What is told of those of these models that have spans."""
    since_ns, until_ns = bounds(where)
    foreign: Mapping[str, int] = {}
    if any(len(told.foreign_tokens) > 1 for told in sums.values()):
        foreign = store.foreign_tokens(where)  # several services may tell of one call
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        if (told := sums.get(name)) is None:
            continue
        found[name] = {
            "model_name": name,
            "sample_count": told.count,
            "requests_per_second": told.count * NANOS_PER_SECOND / (until_ns - since_ns),
            "error_count": told.error_count,
            "error_rate": told.error_count / told.count,
            "last_seen": format_rfc3339(told.last_end_ns),
            "columns": _columns(told, columns),
            **_percentiles(told),
        }
        lasted_ns = told.last_end_ns - told.first_start_ns
        tokens = told.own_tokens
        if told.foreign_tokens:
            theirs = foreign.get(name, sum(told.foreign_tokens.values()))
            tokens = theirs + (tokens or 0)
        if tokens is not None and lasted_ns > 0:
            found[name]["tokens_per_second"] = tokens * NANOS_PER_SECOND / lasted_ns
    return found


def _percentiles(told: ModelSums) -> dict[str, float]:
    found = {}
    for distribution, messages in zip(DISTRIBUTIONS, told.histograms, strict=True):
        values = quantiles(bucket_counts(messages), FRACTIONS.values())
        for percentile, value in zip(FRACTIONS, values, strict=False):
            found[f"{_PREFIXES[distribution]}{percentile}_ms"] = value / NANOS_PER_MS
    return found


def _columns(told: ModelSums, columns: int) -> dict[str, list[int]]:
    counts, errors = [0] * columns, [0] * columns
    for part, count, error_count in told.told_parts():
        counts[min(part, columns - 1)] += count
        errors[min(part, columns - 1)] += error_count
    return {"counts": counts, "errors": errors}
