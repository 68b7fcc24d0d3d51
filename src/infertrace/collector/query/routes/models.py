"""Statistics of models, and how they change over time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from infertrace.collector.query.chosen_spans import time_of
from infertrace.collector.query.documentation import OBJECT, OBJECTS, documented
from infertrace.collector.query.parameters import (
    BASELINE,
    COUNTED,
    DEFAULT_LIMIT,
    LIMIT,
    METRIC,
    STEP,
    ParameterError,
    parse_parameters,
)
from infertrace.collector.query.routes.any_text import register_any_text
from infertrace.collector.query.statistics_change import DISTRIBUTIONS, PERCENTILES, change
from infertrace.collector.store.metrics import METRICS
from infertrace.collector.store.selection import ALL_OPERATIONS, Selection
from infertrace.collector.store.span_filter import SpanFilter
from infertrace.collector.store.store import ModelStatistics, SpanReader
from infertrace.collector.store.timestamps import NANOS_PER_MS, NANOS_PER_SECOND, format_rfc3339

DEFAULT_LATENCY_WINDOW_NS = 300 * NANOS_PER_SECOND
DEFAULT_MODELS_WINDOW_NS = 86_400 * NANOS_PER_SECOND
DEFAULT_SERIES_WINDOW_NS = 3_600 * NANOS_PER_SECOND
DEFAULT_STEP_NS = 60 * NANOS_PER_SECOND
DEFAULT_METRIC = "p95_ms"
MAX_POINTS = 10_000  # of a series

_COUNTED = """
What is counted are requests: spans without a parent, or with one in another process, and of spans
that came as OTLP also each call of a model that says what it generated. `counted` in the answer
says so, and of which time, in RFC 3339.
"""
_STATISTICS = """
`p50_ms`, `p95_ms` and `p99_ms` are interpolated percentiles of the durations, in milliseconds.
`error_rate` is the share of spans with status ERROR, 0 to 1. `tokens_per_second` is the sum of
`output_tokens` over the time from the first start to the last end of these spans; it is left out
when no span says how many tokens it made. Where several services tell of one call by OTLP, such as
client and engine, the trace counts once for a model, with the service that tells most. `last_seen`
is the last end.
`time_to_first_token_p50_ms`, `queue_wait_time_p50_ms`, `inter_token_latency_p50_ms` and the like,
also for 95 and 99, are there where a span says it. The last ones are of all times between tokens,
by the merged histograms of the requests, within 4.4 %.
"""

_BASELINE = """
With `baseline`, the same of the time so long before that one, and in `change` how much more
each is now: 0.2 is 20 % more, null where either is missing or the baseline is 0.
"""
_SERIES = """
The window is 1h by default. `aggregate` says how the spans of a step became one number: `quantile`
(interpolated), `interval_quantile` (of all times between tokens), `mean`, `rate` (a second) or
`error_share`. A step without spans has no point; a point without `value` has spans that do not say
it. A rate is over the whole step, so that of the last one is still growing. `tokens_per_second`
counts a trace once, as `/models` does.
"""
# FastAPI only documents it; the route validates it, so that all errors have one form.
ModelName = Annotated[str, Path(json_schema_extra={"minLength": 1})]


register_any_text()


def model_routes(store: SpanReader) -> APIRouter:
    """`/models`, and the latency and the series of one."""
    router = APIRouter()

    @router.get(
        "/models",
        **documented("Statistics of each model, busiest first", (*COUNTED, LIMIT), OBJECTS),
        description=f"The window is 24h by default.{_COUNTED}{_STATISTICS}",
    )
    def models(request: Request) -> Response:
        values = parse_parameters(request.query_params, (*COUNTED, LIMIT))
        selection = _selection(values, DEFAULT_MODELS_WINDOW_NS)
        found = store.models(selection, values.get("limit", DEFAULT_LIMIT))
        counted = _counted(selection)
        return JSONResponse([{**_model_answer(model), "counted": counted} for model in found])

    def require_model(selection: Selection) -> None:
        """Raise a 404 where `/models` would list no span of the model, of any operation."""
        recently_ns = min(selection.since_ns, time.time_ns() - DEFAULT_MODELS_WINDOW_NS)
        if not store.spans(SpanFilter(model=selection.model, since_ns=max(0, recently_ns)), 1):
            raise HTTPException(
                404,
                f"no model {str(selection.model)[:100]!r}: it has no span in that time, "
                "nor in the last 24h",
            )

    @router.get(
        "/models/{model:text}/latency",
        **documented("Statistics of one model", (*COUNTED, BASELINE), OBJECT),
        description=f"The window is 5m by default.{_COUNTED}{_STATISTICS}{_BASELINE}",
    )
    def latency(model: ModelName, request: Request) -> Response:
        values = parse_parameters(request.query_params, (*COUNTED, BASELINE))
        selection = _selection(values, DEFAULT_LATENCY_WINDOW_NS, model)

        def statistics(selection: Selection) -> dict[str, Any]:
            found = store.models(selection, 1)
            empty = ModelStatistics(model, 0, 0, None, None, None, None, None, None)
            return {
                **_model_answer(found[0] if found else empty),
                "window_seconds": (selection.until_ns - selection.since_ns) / NANOS_PER_SECOND,
                "counted": _counted(selection),
            }

        answer = statistics(selection)
        if not answer["sample_count"]:
            require_model(selection)
        if (length_ns := values.get("baseline")) is not None:
            since_ns = selection.since_ns
            before = statistics(
                replace(selection, since_ns=max(0, since_ns - length_ns), until_ns=since_ns)
            )
            before["window_seconds"] = length_ns / NANOS_PER_SECOND
            answer["baseline"] = before
            answer["change"] = change(
                answer, before, answer["window_seconds"] / before["window_seconds"]
            )
        return JSONResponse(answer)

    @router.get(
        "/models/{model:text}/series",
        **documented("One metric of one model over time", (METRIC, *COUNTED, STEP), OBJECT),
        description=f"{_SERIES}{_COUNTED}",
    )
    def series(model: ModelName, request: Request) -> Response:
        values = parse_parameters(request.query_params, (METRIC, *COUNTED, STEP))
        name = values.get("metric", DEFAULT_METRIC)
        step_ns = values.get("step", DEFAULT_STEP_NS)
        selection = _selection(values, DEFAULT_SERIES_WINDOW_NS, model)
        window_ns = selection.until_ns - selection.since_ns
        if window_ns // step_ns > MAX_POINTS:
            raise ParameterError(f"step: expected at most {MAX_POINTS} steps in the time")
        # Whole steps only: the first one would otherwise lack a part of its spans.
        selection = replace(selection, since_ns=selection.since_ns // step_ns * step_ns)
        points = store.series(selection, METRICS[name], step_ns)
        if not points:
            require_model(selection)
        return JSONResponse(
            {
                "model_name": model,
                "metric": name,
                "unit": METRICS[name].unit,
                "aggregate": METRICS[name].aggregate,
                "counted": _counted(selection),
                "window_seconds": window_ns / NANOS_PER_SECOND,
                "step_seconds": step_ns / NANOS_PER_SECOND,
                "points": [
                    {
                        "time": format_rfc3339(point.start_ns),
                        "sample_count": point.sample_count,
                        "value": point.value,
                    }
                    for point in points
                ],
            }
        )

    return router


def _selection(
    values: Mapping[str, Any], default_window_ns: int, model: str | None = None
) -> Selection:
    """The spans that a statistic is asked for; raises ParameterError."""
    return Selection(*time_of(values, default_window_ns), model, values.get("operation"))


def _counted(selection: Selection) -> dict[str, Any]:
    spans = {None: "requests", ALL_OPERATIONS: "all"}.get(selection.operation, "operation")
    return {
        "spans": spans,
        "operation": selection.operation if spans == "operation" else None,
        "since": format_rfc3339(selection.since_ns),
        "until": format_rfc3339(selection.until_ns),
    }


def _model_answer(model: ModelStatistics) -> dict[str, Any]:
    answer: dict[str, Any] = {"model_name": model.model_name, "sample_count": model.sample_count}
    if not model.sample_count or model.first_start_ns is None or model.last_end_ns is None:
        return answer
    for name, value_ns in (
        ("p50_ms", model.p50_ns),
        ("p95_ms", model.p95_ns),
        ("p99_ms", model.p99_ns),
    ):
        answer[name] = None if value_ns is None else value_ns / NANOS_PER_MS
    for name in DISTRIBUTIONS:
        values = getattr(model, f"{name}_ms") or ()
        for percentile, value in zip(PERCENTILES, values, strict=False):
            answer[f"{name}_{percentile}_ms"] = value
    answer["error_rate"] = model.error_count / model.sample_count
    elapsed_ns = model.last_end_ns - model.first_start_ns
    if model.output_tokens is not None and elapsed_ns > 0:
        answer["tokens_per_second"] = model.output_tokens * NANOS_PER_SECOND / elapsed_ns
    answer["last_seen"] = format_rfc3339(model.last_end_ns)
    return answer
