"""The routes of the query API."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import FastAPI, Path, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException

from infertrace.collector.background_thread import BackgroundThread
from infertrace.collector.counters import Counters
from infertrace.collector.query.access import AccessMiddleware
from infertrace.collector.query.flat_span import (
    NANOS_PER_MS,
    flat_span,
    flat_spans_with_resources,
    span_schema,
)
from infertrace.collector.query.parameters import (
    BASELINE,
    COUNTED,
    DEFAULT_LIMIT,
    KEYED_PARAMETERS,
    LIMIT,
    METRIC,
    SPAN_PARAMETERS,
    STEP,
    TRACE_ID_SCHEMA,
    KeyedParameter,
    Parameter,
    ParameterError,
    format_cursor,
    parse_keyed,
    parse_parameters,
    parse_trace_id,
)
from infertrace.collector.query.prometheus_metrics import CONTENT_TYPE, PrometheusMetrics
from infertrace.collector.store.group_commit import WRITING_THREAD
from infertrace.collector.store.ledger import Producer
from infertrace.collector.store.metrics import METRICS
from infertrace.collector.store.selection import ALL_OPERATIONS, Selection
from infertrace.collector.store.store import (
    ModelStatistics,
    QueryTimeoutError,
    SpanFilter,
    Store,
    StoreError,
    span_key,
)
from infertrace.collector.store.timestamps import NANOS_PER_SECOND, format_rfc3339

MAX_TRACE_SPANS = 10_000  # in one answer
DEFAULT_LATENCY_WINDOW = 300 * NANOS_PER_SECOND
DEFAULT_MODELS_WINDOW = 86_400 * NANOS_PER_SECOND
DEFAULT_SERIES_WINDOW = 3_600 * NANOS_PER_SECOND
DEFAULT_STEP = 60 * NANOS_PER_SECOND
DEFAULT_METRIC = "p95_ms"
MAX_POINTS = 10_000  # of a series

_COUNTED = """
What is counted are requests: spans without a parent, or with one in another process. `counted` in
the answer says so, and of which time, in RFC 3339.
"""
_STATISTICS = """
`p50_ms`, `p95_ms` and `p99_ms` are interpolated percentiles of the durations, in milliseconds.
`error_rate` is the share of spans with status ERROR, 0 to 1. `tokens_per_second` is the sum of
`output_tokens` over the time from the first start to the last end of these spans; it is left out
when no span says how many tokens it made. `last_seen` is the last end.
`time_to_first_token_p50_ms`, `queue_wait_time_p50_ms` and the like, also for 95 and 99, are there
where a span says it.
"""

_BASELINE = """
With `baseline`, the same of the time so long before that one, and in `change` how much more
each is now: 0.2 is 20 % more, null where either is missing or the baseline is 0.
"""
_SERIES = """
The window is 1h by default. `aggregate` says how the spans of a step became one number: `quantile`
(interpolated), `mean`, `rate` (a second) or `error_share`. A step without spans has no point; a
point without `value` has spans that do not say it. A rate is over the whole step, so that of the
last one is still growing.
"""
# Only described: each route judges them itself, so that every error reads alike.
TraceId = Annotated[str, Path(json_schema_extra=TRACE_ID_SCHEMA)]
ModelName = Annotated[str, Path(json_schema_extra={"minLength": 1})]
_PERCENTILES = ("p50", "p95", "p99")
_COMPARED = (
    "sample_count",
    *(f"{percentile}_ms" for percentile in _PERCENTILES),
    "error_rate",
    "tokens_per_second",
    *(
        f"{name}_{percentile}_ms"
        for name in ("time_to_first_token", "queue_wait_time")
        for percentile in _PERCENTILES
    ),
)

_log = logging.getLogger(__name__)


class _ModelConvertor(Convertor[str]):
    """Any name: with slashes, and with the line breaks that the convertor `path` leaves out."""

    regex = "(?s:.+)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("model", _ModelConvertor())


def create_app(
    store: Store,
    counters: Counters,
    threads: Sequence[BackgroundThread],
    permits: Callable[[str | None], bool] | None = None,
) -> FastAPI:
    """The application; `permits` judges the `authorization` header, None asks for none."""
    app = FastAPI(
        title="infertrace collector",
        description="Stored inference spans. Every error is a JSON object with the key `error`.",
        docs_url=None,  # these pages load their scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    prometheus = PrometheusMetrics(counters, threads)
    app.add_middleware(AccessMiddleware, permits=permits)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ParameterError, _bad_parameter)
    app.add_exception_handler(StoreError, _store_error)
    app.add_exception_handler(QueryTimeoutError, _query_timeout)
    app.add_exception_handler(Exception, _unexpected_error)

    @app.get(
        "/spans",
        **_documented("Spans, newest first", (*SPAN_PARAMETERS, *KEYED_PARAMETERS), _SPANS),
    )
    def spans(request: Request) -> Response:
        """Every filter must hold. A page that is not the last names the next one in `Link`."""
        keyed, others = parse_keyed(request.query_params, KEYED_PARAMETERS)
        asked = parse_parameters(others, SPAN_PARAMETERS, KEYED_PARAMETERS)
        limit = asked.pop("limit", DEFAULT_LIMIT)
        has_resources = asked.pop("include", None) == "resource"
        asked["min_duration"] = asked.pop("min_duration_ms", None)
        asked["after"] = asked.pop("cursor", None)
        where = SpanFilter(**asked, **keyed)
        rows = store.spans(where, limit + 1)
        headers = {}
        if len(rows) > limit:
            cursor = format_cursor(span_key(rows[limit - 1]))
            headers = {"X-Next-Cursor": cursor, "Link": _next_link(request, where, cursor)}
        rows = rows[:limit]
        found = (
            flat_spans_with_resources(store, rows)
            if has_resources
            else [flat_span(row) for row in rows]
        )
        return JSONResponse(found, headers=headers)

    @app.get("/traces/{trace_id}", **_documented("One trace, in start order", (), _OBJECT))
    def trace(trace_id: TraceId, request: Request) -> Response:
        """At most 10000 spans, each with its resource; `truncated` is true when there are more."""
        parse_parameters(request.query_params, ())
        try:
            wanted = parse_trace_id(trace_id)
        except ValueError as error:
            raise ParameterError(f"trace_id: expected {error}, got {trace_id[:100]!r}") from None
        rows = store.trace(wanted, MAX_TRACE_SPANS + 1)
        if not rows:
            raise HTTPException(404, f"no trace {wanted.hex}")
        answer: dict[str, Any] = {
            "trace_id": wanted.hex,
            "spans": flat_spans_with_resources(store, rows[:MAX_TRACE_SPANS]),
        }
        if len(rows) > MAX_TRACE_SPANS:
            answer["truncated"] = True
        return JSONResponse(answer)

    @app.get(
        "/models",
        **_documented("Statistics of each model, busiest first", (*COUNTED, LIMIT), _OBJECTS),
        description=f"The window is 24h by default.{_COUNTED}{_STATISTICS}",
    )
    def models(request: Request) -> Response:
        asked = parse_parameters(request.query_params, (*COUNTED, LIMIT))
        selection = _selection(asked, DEFAULT_MODELS_WINDOW)
        found = store.models(selection, asked.get("limit", DEFAULT_LIMIT))
        counted = _counted(selection)
        return JSONResponse([{**_model_answer(model), "counted": counted} for model in found])

    def require_model(selection: Selection) -> None:
        """Raise a 404 where `/models` would list no span of the model, of any operation."""
        recently = min(selection.since, time.time_ns() - DEFAULT_MODELS_WINDOW)
        if not store.spans(SpanFilter(model=selection.model, since=max(0, recently)), 1):
            raise HTTPException(
                404,
                f"no model {str(selection.model)[:100]!r}: it has no span in that time, "
                "nor in the last 24h",
            )

    @app.get(
        "/models/{model:model}/latency",
        **_documented("Statistics of one model", (*COUNTED, BASELINE), _OBJECT),
        description=f"The window is 5m by default.{_COUNTED}{_STATISTICS}{_BASELINE}",
    )
    def latency(model: ModelName, request: Request) -> Response:
        asked = parse_parameters(request.query_params, (*COUNTED, BASELINE))
        selection = _selection(asked, DEFAULT_LATENCY_WINDOW, model)

        def statistics(selection: Selection) -> dict[str, Any]:
            found = store.models(selection, 1)
            empty = ModelStatistics(model, 0, 0, None, None, None, None, None, None)
            return {
                **_model_answer(found[0] if found else empty),
                "window_seconds": (selection.until - selection.since) / NANOS_PER_SECOND,
                "counted": _counted(selection),
            }

        answer = statistics(selection)
        if not answer["sample_count"]:
            require_model(selection)
        if (length := asked.get("baseline")) is not None:
            since = selection.since
            before = statistics(replace(selection, since=max(0, since - length), until=since))
            before["window_seconds"] = length / NANOS_PER_SECOND
            answer["baseline"] = before
            answer["change"] = _change(answer, before)
        return JSONResponse(answer)

    @app.get(
        "/models/{model:model}/series",
        **_documented("One metric of one model over time", (METRIC, *COUNTED, STEP), _OBJECT),
        description=f"{_SERIES}{_COUNTED}",
    )
    def series(model: ModelName, request: Request) -> Response:
        asked = parse_parameters(request.query_params, (METRIC, *COUNTED, STEP))
        name = asked.get("metric", DEFAULT_METRIC)
        step = asked.get("step", DEFAULT_STEP)
        selection = _selection(asked, DEFAULT_SERIES_WINDOW, model)
        window = selection.until - selection.since
        if window // step > MAX_POINTS:
            raise ParameterError(f"step: expected at most {MAX_POINTS} steps in the time")
        # Whole steps only: the first one would otherwise be of a part of its spans.
        selection = replace(selection, since=selection.since // step * step)
        points = store.series(selection, METRICS[name], step)
        if not points:
            require_model(selection)
        return JSONResponse(
            {
                "model_name": model,
                "metric": name,
                "unit": METRICS[name].unit,
                "aggregate": METRICS[name].aggregate,
                "counted": _counted(selection),
                "window_seconds": window / NANOS_PER_SECOND,
                "step_seconds": step / NANOS_PER_SECOND,
                "points": [
                    {
                        "time": format_rfc3339(point.start),
                        "sample_count": point.sample_count,
                        "value": point.value,
                    }
                    for point in points
                ],
            }
        )

    @app.get("/ledger", **_documented("How complete the data is", (LIMIT,), _OBJECT))
    def ledger(request: Request) -> Response:
        """One account for each producer, the last seen first; all counts are spans."""
        asked = parse_parameters(request.query_params, (LIMIT,))
        now = time.time_ns()
        producers = store.producers(asked.get("limit", DEFAULT_LIMIT))
        return JSONResponse({"producers": [_producer_answer(p, now) for p in producers]})

    @app.get("/health", **_documented("Whether spans are taken and can be read", (), _OBJECT))
    def health() -> Response:
        """`status` is degraded while a thread fails that no span waits for. Of threads that ever
        failed, `threads` says how often each was replaced, and the error if it fails still."""
        for thread in threads:
            thread.ensure()
        states = [thread.state for thread in threads]
        failing = {state.name for state in states if state.error is not None}
        status = 200
        answer: dict[str, Any] = {"status": "degraded" if failing else "ok"}
        try:
            store.check()
            if WRITING_THREAD in failing:
                raise StoreError("the thread that writes fails")
        except StoreError as error:
            _log.error("the store is not healthy: %s", error)
            status, answer = 503, {"error": "the store cannot answer"}
            if WRITING_THREAD in failing:
                answer["error"] = "the store is not being written"
        if replaced := [state for state in states if state.restarts]:
            answer["threads"] = {
                state.name: {"restarts": state.restarts, "error": state.error} for state in replaced
            }
        return JSONResponse(answer, status)

    @app.get("/metrics", summary="Counters, as Prometheus text", response_class=PlainTextResponse)
    def metrics() -> Response:
        return Response(prometheus.text(), headers={"Content-Type": CONTENT_TYPE})

    return app


def _selection(
    asked: Mapping[str, Any], default_window: int, model: str | None = None
) -> Selection:
    """The spans that a statistic is asked of; raises ParameterError."""
    given = [name for name in ("since", "until") if name in asked]
    if "window" in asked and given:
        raise ParameterError(f"window: expected without {' and '.join(given)}")
    until = asked.get("until", time.time_ns())
    window = asked.get("window", default_window)
    since = asked.get("since", max(0, until - window))
    if since >= until:
        raise ParameterError("since: expected a time before until, which is now by default")
    return Selection(since, until, model, asked.get("operation"))


def _counted(selection: Selection) -> dict[str, Any]:
    spans = {None: "requests", ALL_OPERATIONS: "all"}.get(selection.operation, "operation")
    return {
        "spans": spans,
        "operation": selection.operation if spans == "operation" else None,
        "since": format_rfc3339(selection.since),
        "until": format_rfc3339(selection.until),
    }


def _next_link(request: Request, where: SpanFilter, cursor: str) -> str:
    # A time ago is fixed at the first page; the window would otherwise move between pages.
    fixed = {
        name: format_rfc3339(value)
        for name, value in (("since", where.since), ("until", where.until))
        if value is not None
    }
    given = request.query_params.multi_items()
    query = [(name, text) for name, text in given if name not in {*fixed, "cursor"}]
    query += [*fixed.items(), ("cursor", cursor)]
    return f'<{request.url.path}?{urlencode(query)}>; rel="next"'


def _model_answer(model: ModelStatistics) -> dict[str, Any]:
    answer: dict[str, Any] = {"model_name": model.model_name, "sample_count": model.sample_count}
    if not model.sample_count or model.first_start is None or model.last_end is None:
        return answer
    for name, nanos in (("p50_ms", model.p50), ("p95_ms", model.p95), ("p99_ms", model.p99)):
        answer[name] = None if nanos is None else nanos / NANOS_PER_MS
    for name in ("time_to_first_token", "queue_wait_time"):
        values = getattr(model, f"{name}_ms") or ()
        for percentile, value in zip(_PERCENTILES, values, strict=False):
            answer[f"{name}_{percentile}_ms"] = value
    answer["error_rate"] = model.error_count / model.sample_count
    elapsed = model.last_end - model.first_start
    if model.output_tokens is not None and elapsed > 0:
        answer["tokens_per_second"] = model.output_tokens * NANOS_PER_SECOND / elapsed
    answer["last_seen"] = format_rfc3339(model.last_end)
    return answer


def _change(now: dict[str, Any], before: dict[str, Any]) -> dict[str, float | None]:
    """How much more each statistic is, as a share; counts and sums are of one second."""
    changes: dict[str, float | None] = {}
    for name in _COMPARED:
        one, other = now.get(name), before.get(name)
        if name == "sample_count" and one is not None and other is not None:
            other = other * now["window_seconds"] / before["window_seconds"]
        changes[name] = one / other - 1 if one is not None and other else None
    return changes


def _producer_answer(producer: Producer, now: int) -> dict[str, Any]:
    return {
        "producer_id": producer.producer_id.hex(),
        "service_name": producer.service_name,
        "state": producer.state(now),
        "produced": producer.produced,
        "stored": producer.stored,
        "pending": producer.pending,
        "dropped": producer.dropped,
        "rejected": producer.rejected,
        "duplicates": producer.duplicates,
        "gaps": producer.gaps,
        "completeness": producer.completeness,
        "complete": producer.complete,
        "first_seen": format_rfc3339(producer.first_seen),
        "last_seen": format_rfc3339(producer.last_seen),
    }


_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
_OBJECT = {"type": "object"}
_OBJECTS = {"type": "array", "items": _OBJECT}
_SPANS = {"type": "array", "items": span_schema()}


def _documented(
    summary: str, parameters: Sequence[Parameter | KeyedParameter], schema: dict[str, Any]
) -> dict[str, Any]:
    def described(description: str, schema: dict[str, Any]) -> dict[str, Any]:
        return {"description": description, "content": {"application/json": {"schema": schema}}}

    return {
        "summary": summary,
        "responses": {
            200: described("The answer", schema),
            "4XX": described("A wrong parameter, or nothing found", _ERROR),
            503: described("The store cannot answer, or too many ask", _ERROR),
            504: described("The query took too long", _ERROR),
        },
        "openapi_extra": {"parameters": [parameter.openapi() for parameter in parameters]},
    }


def _error(status: int, text: str) -> JSONResponse:
    return JSONResponse({"error": text}, status)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = str(error.detail)
    if error.status_code == 404 and text == "Not Found":
        text = f"no such route: {request.url.path[:100]}"
    elif error.status_code == 405:
        text = f"{request.method}: expected GET or HEAD"
    answer = _error(error.status_code, text)
    answer.headers.update(error.headers or {})
    return answer


def _bad_parameter(_: Request, error: Exception) -> Response:
    return _error(400, str(error))


def _query_timeout(_: Request, error: Exception) -> Response:
    return _error(504, f"the query {error}; ask for less time, or raise --query-timeout")


def _store_error(_: Request, error: Exception) -> Response:
    _log.error("the store could not answer: %s", error)
    return _error(503, "the store cannot answer")


def _unexpected_error(_: Request, error: Exception) -> Response:
    _log.error("an answer failed", exc_info=error)
    return _error(500, "internal error")
