"""What arrives, in the order in which it does."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from infertrace.collector.query.chosen_spans import span_filter
from infertrace.collector.query.documentation import OBJECT, documented
from infertrace.collector.query.flat_span import flat_span
from infertrace.collector.query.parameters import (
    AFTER,
    ARRIVED,
    DEFAULT_LIMIT,
    KEYED_PARAMETERS,
    LIMIT,
    parse_keyed,
    parse_parameters,
)
from infertrace.collector.store.selection import ALL_OPERATIONS
from infertrace.collector.store.store import SpanReader


def tail_routes(store: SpanReader) -> APIRouter:
    """`/tail`."""
    router = APIRouter()

    @router.get(
        "/tail",
        **documented("What arrives", (*ARRIVED, AFTER, LIMIT, *KEYED_PARAMETERS), OBJECT),
    )
    def tail(request: Request) -> Response:
        """The last spans that this collector stored after `after`, at most `limit`, in the order in
        which it stored them, which is when they ended and not when they started. Ask again with
        `next` as `after`. `skipped` are spans that the filters let pass and that there was no room
        for; `forgotten` are those, of any kind, that came since `after` and are not remembered any
        more. What other collectors store in the same PostgreSQL is not in it."""
        keyed, others = parse_keyed(request.query_params, KEYED_PARAMETERS)
        known = (*ARRIVED, AFTER, LIMIT)
        values: dict[str, Any] = parse_parameters(others, known, KEYED_PARAMETERS)
        operation = values.get("operation")
        where = span_filter(
            {
                **values,
                "operation": None if operation == ALL_OPERATIONS else operation,
                "requests": operation is None,
            },
            keyed,
        )
        found = store.arrived(values.get("after"), where, values.get("limit", DEFAULT_LIMIT))
        return JSONResponse(
            {
                "spans": [flat_span(row) for row in found.rows],
                "next": found.next_place,
                "total": found.matching_count,
                "skipped": found.matching_count - len(found.rows),
                "forgotten": found.forgotten_count,
                "truncated": found.matching_count > len(found.rows) or found.forgotten_count > 0,
            }
        )

    return router
