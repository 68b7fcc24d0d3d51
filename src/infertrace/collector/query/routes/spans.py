"""Spans and traces."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from infertrace.collector.query.chosen_spans import span_filter
from infertrace.collector.query.documentation import OBJECT, SPANS, documented
from infertrace.collector.query.explanation import explain
from infertrace.collector.query.flat_span import flat_span, flat_spans_with_resources
from infertrace.collector.query.parameters import (
    DEFAULT_LIMIT,
    EXPLAIN,
    KEYED_PARAMETERS,
    SPAN_PARAMETERS,
    ParameterError,
    format_cursor,
    parse_keyed,
    parse_parameters,
)
from infertrace.collector.query.routes.trace_ids import TraceId, wanted_trace
from infertrace.collector.query.trace_totals import trace_totals
from infertrace.collector.store.grouping import GroupedQuery
from infertrace.collector.store.span_filter import SpanFilter, span_key
from infertrace.collector.store.store import SpanReader
from infertrace.collector.store.timestamps import format_rfc3339

MAX_TRACE_SPANS = 10_000  # in one answer


def span_routes(store: SpanReader) -> APIRouter:
    """`/spans` and `/traces/{trace_id}`."""
    router = APIRouter()

    @router.get(
        "/spans",
        **documented("Spans, newest first", (*SPAN_PARAMETERS, *KEYED_PARAMETERS), SPANS),
    )
    def spans(request: Request) -> Response:
        """Every filter must hold. A page that is not the last names the next one in `Link`, and
        `X-Truncated` says whether there are more. `fields` leaves out what is not asked for."""
        keyed, others = parse_keyed(request.query_params, KEYED_PARAMETERS)
        values = parse_parameters(others, SPAN_PARAMETERS, KEYED_PARAMETERS)
        limit = values.get("limit", DEFAULT_LIMIT)
        where = span_filter(values, keyed)
        headers = {}
        if values.get("total"):
            ((count,),) = store.grouped(GroupedQuery(replace(where, after=None), [[]]))[0]
            headers["X-Total-Count"] = str(count)
        order = values.get("order", "start")
        if order == "start":
            rows = store.spans(where, limit + 1)
        elif where.after is not None:
            raise ParameterError("cursor: expected only with order=start")
        else:
            rows = store.ranked(where, order, limit + 1)
        if len(rows) > limit and order == "start":
            cursor = format_cursor(span_key(rows[limit - 1]))
            headers |= {"X-Next-Cursor": cursor, "Link": _next_link(request, where, cursor)}
        headers["X-Truncated"] = "true" if len(rows) > limit else "false"
        rows = rows[:limit]
        found = (
            flat_spans_with_resources(store, rows)
            if values.get("include") == "resource" or "resource" in values.get("fields", ())
            else [flat_span(row) for row in rows]
        )
        if (fields := values.get("fields")) is not None:
            found = [{key: value for key, value in span.items() if key in fields} for span in found]
        return JSONResponse(found, headers=headers)

    @router.get("/traces/{trace_id}", **documented("One trace, in start order", (EXPLAIN,), OBJECT))
    def trace(trace_id: TraceId, request: Request) -> Response:
        """At most 10000 spans, each with its resource; `truncated` is true when there are more.

        `totals` are the tokens of the requests in the trace; it says how these are counted.
        """
        values = parse_parameters(request.query_params, (EXPLAIN,))
        wanted = wanted_trace(trace_id)
        rows = store.trace(wanted, MAX_TRACE_SPANS + 1)
        if not rows:
            raise HTTPException(404, f"no trace {wanted.hex}")
        is_truncated, rows = len(rows) > MAX_TRACE_SPANS, rows[:MAX_TRACE_SPANS]
        found = flat_spans_with_resources(store, rows)
        if values.get("explain"):
            found = [
                {**span, "explain": explain(row)} for span, row in zip(found, rows, strict=True)
            ]
        answer: dict[str, Any] = {"trace_id": wanted.hex, "spans": found}
        if (totals := trace_totals(rows)) is not None:
            answer["totals"] = totals
        if is_truncated:
            answer["truncated"] = True
        return JSONResponse(answer)

    return router


def _next_link(request: Request, where: SpanFilter, cursor: str) -> str:
    # A relative time is fixed at the first page; the window would otherwise move between pages.
    fixed = {
        name: format_rfc3339(unix_ns)
        for name, unix_ns in (("since", where.since_ns), ("until", where.until_ns))
        if unix_ns is not None
    }
    given = request.query_params.multi_items()
    query = [(name, text) for name, text in given if name not in {*fixed, "cursor"}]
    query += [*fixed.items(), ("cursor", cursor)]
    return f'<{request.url.path}?{urlencode(query)}>; rel="next"'
