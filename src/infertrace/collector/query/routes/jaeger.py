"""Jaeger's query routes, for Grafana's Jaeger data source.

Source: Jaeger, "APIs", HTTP JSON (internal); grafana-jaeger-datasource, pkg/jaeger/client.go.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException

from infertrace.collector.query.documentation import OBJECT, documented
from infertrace.collector.query.jaeger_trace import dependencies, jaeger_trace
from infertrace.collector.query.parameters import Parameter, ParameterError, parse_parameters
from infertrace.collector.query.routes.any_text import register_any_text
from infertrace.collector.store.grouping import ColumnKey, GroupedQuery
from infertrace.collector.store.keyed_filter import KeyedText
from infertrace.collector.store.measures import MeasureRange
from infertrace.collector.store.span_filter import COLUMN_INDEX, Row, SpanFilter, span_key
from infertrace.collector.store.store import SpanReader
from infertrace.collector.store.timestamps import MAX_UNIX_NANOS, NANOS_PER_MS

MAX_TRACES = 1_500  # of one answer, as in Jaeger
DEFAULT_TRACES = 20
MAX_SPANS_OF_TRACE = 10_000
MAX_NAMES = 10_000  # those with most spans
MAX_DEPENDENCY_SPANS = 10_000
RECENT_NS = 7 * 86_400 * 1_000_000_000  # services and operations are those of the last week
_PAGE = 1_000
_MAX_PAGES = 20
_UNITS_NS = {
    "ns": 1, "us": 1_000, "µs": 1_000, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3_600 * 10**9,
}  # fmt: skip
_LENGTH = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ns|us|µs|ms|s|m|h)")

# FastAPI only documents them; the route validates them, so that all errors have one form.
AnyTraceId = Annotated[str, Path(json_schema_extra={"pattern": "^[0-9a-fA-F]{1,32}$"})]
ServiceName = Annotated[str, Path(json_schema_extra={"minLength": 1})]

register_any_text()


def _micros(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text[:20]) > MAX_UNIX_NANOS // 1_000:
        raise ValueError("microseconds since 1970")
    return int(text) * 1_000


def _milliseconds(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text[:20]) > MAX_UNIX_NANOS // NANOS_PER_MS:
        raise ValueError("milliseconds")
    return int(text) * NANOS_PER_MS


def _length(text: str) -> int:
    found = _LENGTH.fullmatch(text)
    if found is None:
        raise ValueError("a duration such as 100ms or 1.2s")
    return min(int(float(found[1]) * _UNITS_NS[found[2]]), MAX_UNIX_NANOS)


def _traces(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MAX_TRACES:
        raise ValueError(f"1 to {MAX_TRACES}")
    return int(text[:9])


def _conditions(text: str) -> dict[str, str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or len(found) > 16:
        raise ValueError("a JSON object of at most 16 texts")
    return {key: each if isinstance(each, str) else json.dumps(each) for key, each in found.items()}


_TEXT = {"type": "string"}
_MICROS = {"type": "integer", "minimum": 0, "maximum": MAX_UNIX_NANOS // 1_000}
_MILLIS = {"type": "integer", "minimum": 0, "maximum": MAX_UNIX_NANOS // NANOS_PER_MS}
_LENGTH_SCHEMA = {"type": "string", "pattern": f"^{_LENGTH.pattern}$"}
_SEARCH = (
    Parameter("service", "the service's name", str, _TEXT),
    Parameter("operation", "the operation's name", str, _TEXT),
    Parameter(
        "tags",
        "a JSON object of tags or attributes that a span has; `error` is a failed one",
        _conditions,
        {"type": "string", "contentMediaType": "application/json"},
    ),
    Parameter(
        "minDuration", "a span took so long, such as `100ms`, or longer", _length, _LENGTH_SCHEMA
    ),
    Parameter("maxDuration", "a span took at most so long", _length, _LENGTH_SCHEMA),
    Parameter("start", "microseconds since 1970", _micros, _MICROS),
    Parameter("end", "microseconds since 1970", _micros, _MICROS),
    Parameter(
        "limit",
        f"how many traces at most; default {DEFAULT_TRACES}",
        _traces,
        {"type": "integer", "minimum": 1, "maximum": MAX_TRACES, "default": DEFAULT_TRACES},
    ),
)
_LOOKBACK = (
    Parameter("endTs", "milliseconds since 1970; default: now", _milliseconds, _MILLIS),
    Parameter("lookback", "milliseconds before that; default: a day", _milliseconds, _MILLIS),
)


def jaeger_routes(store: SpanReader) -> APIRouter:
    """`/jaeger/api/…`."""
    router = APIRouter(prefix="/jaeger/api")

    def names(column: str, where: SpanFilter) -> list[str]:
        (rows,) = store.grouped(GroupedQuery(where, [[ColumnKey(column)]], limit=MAX_NAMES))
        return sorted(name for name, _ in rows if name is not None)

    def shown(rows: list[Row]) -> dict[str, Any]:
        ids = {row[COLUMN_INDEX["resource_id"]] for row in rows} - {None}
        return jaeger_trace(rows, store.resources(ids) if ids else {})

    @router.get("/services", **documented("Jaeger: services", (), OBJECT))
    def services() -> Response:
        """Those with spans in the last 7 days."""
        recent = SpanFilter(since_ns=time.time_ns() - RECENT_NS)
        return _answer(names("service_name", recent))

    @router.get(
        "/services/{service:text}/operations", **documented("Jaeger: operations", (), OBJECT)
    )
    def operations(service: ServiceName) -> Response:
        """Those of a service with spans in the last 7 days."""
        recent = SpanFilter(service=service, since_ns=time.time_ns() - RECENT_NS)
        return _answer(names("operation_name", recent))

    @router.get("/traces", **documented("Jaeger: search", _SEARCH, OBJECT))
    def search(request: Request) -> Response:
        """The newest traces with a span that meets all conditions, whole. Other parameters do not
        count. Where the 20,000 newest of such spans belong to fewer traces, these are all."""
        where, limit = _search(_known(request.query_params, _SEARCH))
        found: dict[uuid.UUID, None] = {}
        for _ in range(_MAX_PAGES):
            rows = store.spans(where, _PAGE)
            for row in rows:
                found.setdefault(row[COLUMN_INDEX["trace_id"]])
            if len(rows) < _PAGE or len(found) >= limit:
                break
            where = replace(where, after=span_key(rows[-1]))
        traces = (store.trace(trace_id, MAX_SPANS_OF_TRACE) for trace_id in list(found)[:limit])
        return _answer([shown(rows) for rows in traces if rows])

    @router.get("/traces/{trace_id}", **documented("Jaeger: one trace", (), OBJECT))
    def trace(trace_id: AnyTraceId) -> Response:
        """Leading zeros of the id may be missing. At most 10,000 spans."""
        if not re.fullmatch("[0-9a-fA-F]{1,32}", trace_id):
            raise ParameterError(f"trace_id: expected hexadecimal digits, got {trace_id[:100]!r}")
        wanted = uuid.UUID(hex=trace_id.zfill(32))
        rows = store.trace(wanted, MAX_SPANS_OF_TRACE)
        if not rows:
            raise HTTPException(404, f"no trace {wanted.hex}")
        return _answer([shown(rows)])

    @router.get("/dependencies", **documented("Jaeger: dependencies", _LOOKBACK, OBJECT))
    def depends(request: Request) -> Response:
        """Among the 10,000 newest spans of the time."""
        values = _known(request.query_params, _LOOKBACK)
        end_ns = values.get("endTs", time.time_ns())
        since_ns = max(0, end_ns - values.get("lookback", 86_400 * 10**9))
        where = SpanFilter(since_ns=since_ns, until_ns=end_ns)
        return _answer(dependencies(store.spans(where, MAX_DEPENDENCY_SPANS)))

    return router


def _known(given: QueryParams, known: tuple[Parameter, ...]) -> dict[str, Any]:
    """Clients of Jaeger send more than its server reads."""
    names = {parameter.name for parameter in known}
    kept = [(name, text) for name, text in given.multi_items() if name in names]
    return parse_parameters(QueryParams(kept), known)


def _search(values: dict[str, Any]) -> tuple[SpanFilter, int]:
    conditions = dict(values.get("tags", {}))
    status = None
    if conditions.get("error") in ("true", "false"):
        status = "ERROR" if conditions.pop("error") == "true" else "OK"
    longest_ns = values.get("maxDuration")
    ranges: tuple[MeasureRange, ...] = ()
    if longest_ns is not None:
        ranges = (MeasureRange("duration_ms", None, longest_ns / NANOS_PER_MS),)
    return (
        SpanFilter(
            service=values.get("service"),
            operation=values.get("operation"),
            status=status,
            since_ns=values.get("start"),
            until_ns=values.get("end"),
            min_duration_ns=values.get("minDuration"),
            ranges=ranges,
            anywhere=tuple(KeyedText(key, text) for key, text in conditions.items()),
        ),
        values.get("limit", DEFAULT_TRACES),
    )


def _answer(data: list[Any]) -> Response:
    return JSONResponse({"data": data, "total": len(data), "limit": 0, "offset": 0, "errors": None})
