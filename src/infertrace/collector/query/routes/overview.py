"""Every model in one answer: rates, percentiles, a line over time, and the change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from infertrace.collector.store.grouping import (
    ERRORS,
    Aggregate,
    ColumnKey,
    GroupedQuery,
    TimeKey,
)
from infertrace.collector.store.interval_quantiles import interval_quantile_ms, selected
from infertrace.collector.store.measures import MEASURES
from infertrace.collector.store.metrics import FRACTIONS
from infertrace.collector.store.span_filter import SpanFilter
from infertrace.collector.store.store import SpanReader
from infertrace.collector.store.timestamps import NANOS_PER_SECOND, format_rfc3339

DEFAULT_COLUMNS = 60
MAX_OVERVIEW_COLUMNS = 400
DEFAULT_MODELS = 100
_MODEL = ColumnKey("model_name")
_DISTRIBUTED = ("duration_ms", "time_to_first_token_ms", "queue_wait_time_ms")
_TOLD = (
    ERRORS,
    Aggregate("own_tokens"),
    Aggregate("foreign"),
    Aggregate("present", "token_intervals"),
    Aggregate("first_start"),
    Aggregate("last_end"),
    *(Aggregate("quantiles", name) for name in _DISTRIBUTED),
)


def overview_routes(store: SpanReader) -> APIRouter:
    """`/overview`."""
    router = APIRouter()
    own = (parts_of_time(DEFAULT_COLUMNS, MAX_OVERVIEW_COLUMNS), BASELINE, LIMIT)

    @router.get("/overview", **documented("All models", (*CHOSEN, *own, *KEYED_PARAMETERS), OBJECT))
    def overview(request: Request) -> Response:
        """The window is 1h by default, in 60 columns. Of each model, busiest first: what `/models`
        tells; `requests_per_second` over the window; `columns`, the count and the errors of each
        part of the time. With `baseline`, `change` against the time so long before. `total` are all
        spans that were counted, of `model_count` models; `truncated` says that there are more than
        are told."""
        where, values = chosen_spans(request.query_params, own)
        columns = values.get("columns", DEFAULT_COLUMNS)
        since_ns, until_ns = bounds(where)
        length_ns = max(1, -(-(until_ns - since_ns) // columns))
        models = _models(store, where)
        _add_columns(store, where, models, length_ns, columns)
        answer: dict[str, Any] = {
            "counted": counted(where),
            "column_seconds": length_ns / NANOS_PER_SECOND,
            "total": sum(model["sample_count"] for model in models.values()),
            "model_count": len(models),
        }
        if (baseline_ns := values.get("baseline")) is not None:
            before = replace(where, since_ns=max(0, since_ns - baseline_ns), until_ns=since_ns)
            answer["baseline"] = counted(before)
            then = _models(store, before)
            for name, model in models.items():
                model["change"] = change(
                    model, then.get(name, {}), (until_ns - since_ns) / baseline_ns
                )
        listed = sorted(models.values(), key=lambda m: (-m["sample_count"], m["model_name"]))
        limit = values.get("limit", DEFAULT_MODELS)
        answer["truncated"] = len(listed) > limit
        answer["models"] = listed[:limit]
        return JSONResponse(answer)

    return router


def _models(store: SpanReader, where: SpanFilter) -> dict[str, dict[str, Any]]:
    (rows,) = store.grouped(GroupedQuery(where, [[_MODEL]], _TOLD))
    since_ns, until_ns = bounds(where)
    found: dict[str, dict[str, Any]] = {}
    tokens: dict[str, int] = {}
    spans_ns: dict[str, int] = {}
    for name, count, errors, own_tokens, _, _, first_ns, last_ns, *quantiles in rows:
        if name is None:
            continue
        found[name] = {
            "model_name": name,
            "sample_count": count,
            "requests_per_second": count * NANOS_PER_SECOND / (until_ns - since_ns),
            "error_count": errors,
            "error_rate": errors / count,
            "last_seen": format_rfc3339(last_ns),
        }
        for measure, values in zip(_DISTRIBUTED, quantiles, strict=True):
            found[name].update(_percentiles(measure, values))
        spans_ns[name] = last_ns - first_ns
        if own_tokens is not None:
            tokens[name] = own_tokens
    if any(row[4] for row in rows):
        for name, count in store.foreign_tokens(where).items():
            tokens[name] = tokens.get(name, 0) + count
    for name, count in tokens.items():
        if spans_ns[name]:
            found[name]["tokens_per_second"] = count * NANOS_PER_SECOND / spans_ns[name]
    if any(row[5] for row in rows):
        _add_intervals(store, where, found)
    return found


def _percentiles(measure: str, values: Sequence[float] | None) -> dict[str, float]:
    prefix = "" if measure == "duration_ms" else measure.removesuffix("ms")
    return {
        f"{prefix}{percentile}_ms": value / MEASURES[measure].stored_per_unit
        for percentile, value in zip(FRACTIONS, values or (), strict=False)
    }


def _add_intervals(
    store: SpanReader, where: SpanFilter, models: Mapping[str, dict[str, Any]]
) -> None:
    (rows,) = store.grouped(GroupedQuery(where, [[_MODEL]], [Aggregate("intervals")]))
    for name, _, messages in rows:
        if name is None or not messages:
            continue
        sums = selected.interval_sums(messages)
        for percentile, fraction in FRACTIONS.items():
            if (value := interval_quantile_ms(sums, fraction)) is not None:
                models[name][f"inter_token_latency_{percentile}_ms"] = value


def _add_columns(
    store: SpanReader,
    where: SpanFilter,
    models: Mapping[str, dict[str, Any]],
    length_ns: int,
    columns: int,
) -> None:
    parts = TimeKey(bounds(where)[0], length_ns)
    (rows,) = store.grouped(GroupedQuery(where, [[_MODEL, parts]], [ERRORS]))
    for model in models.values():
        model["columns"] = {"counts": [0] * columns, "errors": [0] * columns}
    for name, part, count, errors in rows:
        if name in models:
            models[name]["columns"]["counts"][part] = count
            models[name]["columns"]["errors"][part] = errors
