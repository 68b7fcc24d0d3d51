"""Spans as a file for Perfetto."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException

from infertrace.collector.query.chosen_spans import chosen_spans
from infertrace.collector.query.documentation import documented
from infertrace.collector.query.engine_reader import LONGEST_STEP_NS
from infertrace.collector.query.parameters import CHOSEN, KEYED_PARAMETERS, TRACE_ID
from infertrace.collector.query.perfetto_trace import perfetto_trace
from infertrace.collector.store.engine_filter import DEFAULT_ENGINE, EngineFilter
from infertrace.collector.store.selection import ALL_OPERATIONS
from infertrace.collector.store.span_filter import COLUMN_INDEX, Row, SpanFilter
from infertrace.collector.store.store import SpanReader
from infertrace.collector.store.timestamps import MAX_UNIX_NANOS, NANOS_PER_SECOND

MAX_EXPORTED_SPANS = 50_000  # Perfetto takes some times the size of the file in memory
DEFAULT_EXPORT_WINDOW_NS = 60 * NANOS_PER_SECOND
CONTENT_TYPE = "application/vnd.google.protobuf"


def perfetto_routes(store: SpanReader) -> APIRouter:
    """`/export/perfetto`."""
    router = APIRouter()
    described = documented(
        "Spans as a Perfetto trace", (TRACE_ID, *CHOSEN, *KEYED_PARAMETERS), {"type": "string"}
    )
    described["responses"][200]["content"] = {
        CONTENT_TYPE: {"schema": {"type": "string", "format": "binary"}}
    }

    @router.get("/export/perfetto", **described)
    def export(request: Request) -> Response:
        """A file for https://ui.perfetto.dev, with TrackEvents: of one trace, by `trace_id`, with
        the steps that its requests were in; or of what started in a time, 1m by default, of all
        operations unless one is named. `X-Truncated` says that there are more than the 50,000
        newest spans."""
        where, values = _asked(request.query_params)
        rows = store.spans(where, MAX_EXPORTED_SPANS + 1)
        if "trace_id" in values:
            if not rows:
                raise HTTPException(404, f"no trace {values['trace_id'].hex}")
            rows = [*rows, *_steps_of(store, rows)]
        is_truncated = len(rows) > MAX_EXPORTED_SPANS
        headers = {
            "Content-Disposition": 'attachment; filename="infertrace.pftrace"',
            "X-Truncated": "true" if is_truncated else "false",
        }
        content = perfetto_trace(rows[:MAX_EXPORTED_SPANS])
        return Response(content, media_type=CONTENT_TYPE, headers=headers)

    return router


def _asked(given: QueryParams) -> tuple[SpanFilter, dict[str, Any]]:
    """All operations where none is named; a trace at any time, unless one is given."""
    names = set(given.keys())
    more = [] if given.get("operation") else [("operation", ALL_OPERATIONS)]
    if given.get("trace_id") and not names & {"since", "until", "window"}:
        more += [("since", "0"), ("until", str(MAX_UNIX_NANOS // NANOS_PER_SECOND))]
    others = [(name, text) for name, text in given.multi_items() if name != "operation" or text]
    return chosen_spans(QueryParams([*others, *more]), (TRACE_ID,), DEFAULT_EXPORT_WINDOW_NS)


def _steps_of(store: SpanReader, rows: Sequence[Row]) -> list[Row]:
    """The steps that the requests among these were in, each once, but for those among them."""
    found: dict[tuple[Any, Any], Row] = {}
    for row in rows:
        values = dict(zip(COLUMN_INDEX, row, strict=True))
        first, last = values["first_step"], values["last_step"]
        if first is None or last is None or values["producer_id"] is None:
            continue
        start_ns, end_ns = values["start_time"], values["start_time"] + values["duration_nanos"]
        where = EngineFilter(
            "step",
            max(0, start_ns - LONGEST_STEP_NS),
            min(end_ns + 1, MAX_UNIX_NANOS),
            engine=values["engine"] or DEFAULT_ENGINE,
            producer_id=values["producer_id"],
            steps=(first, last),
        )
        for step in store.engine_rows(where, tuple(COLUMN_INDEX), MAX_EXPORTED_SPANS):
            found[step[COLUMN_INDEX["trace_id"]], step[COLUMN_INDEX["span_id"]]] = step
        if len(found) >= MAX_EXPORTED_SPANS:
            break
    for row in rows:
        found.pop((row[COLUMN_INDEX["trace_id"]], row[COLUMN_INDEX["span_id"]]), None)
    return list(found.values())
