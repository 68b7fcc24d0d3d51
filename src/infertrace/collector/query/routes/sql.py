"""SQL over the embedded store, which no other process can open while the collector runs."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Callable
from datetime import date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from fastapi import APIRouter, Request
from fastapi.responses import Response

from infertrace.collector.query.documentation import OBJECT, documented
from infertrace.collector.query.parameters import Parameter, ParameterError, parse_parameters
from infertrace.collector.store.store import SpanReader, SqlError

MAX_SQL_ROWS = 100_000
DEFAULT_SQL_ROWS = 10_000


def sql_routes(store: SpanReader) -> APIRouter:
    """`/sql`."""
    router = APIRouter()
    known = (
        Parameter("query", "one SELECT of DuckDB", str, {"type": "string"}),
        Parameter(
            "format",
            "how to answer; default `json`",
            _parse_format,
            {"type": "string", "enum": list(_FORMATS)},
        ),
        Parameter(
            "limit",
            f"how many rows at most; default {DEFAULT_SQL_ROWS}",
            _parse_rows,
            {
                "type": "integer",
                "minimum": 1,
                "maximum": MAX_SQL_ROWS,
                "default": DEFAULT_SQL_ROWS,
            },
        ),
    )
    described = documented("SQL", known, OBJECT)
    for media_type, _ in list(_FORMATS.values())[1:]:
        described["responses"][200]["content"][media_type] = {"schema": {"type": "string"}}

    @router.get("/sql", **described)
    def sql(request: Request) -> Response:
        """One statement that reads, over a connection that can write nothing, open no file and
        reach no network, interrupted after the query timeout. The view `all_spans` has every column
        of docs/fields.md, `start_time` in nanoseconds since 1970; what came in the last half second
        may be missing. `X-Truncated` says whether there are more rows than `limit`. A store in
        PostgreSQL is asked by its own clients."""
        values = parse_parameters(request.query_params, known)
        limit = values.get("limit", DEFAULT_SQL_ROWS)
        try:
            table = store.sql(values.get("query", "SELECT 1 WHERE false"), limit + 1)
        except SqlError as error:
            raise ParameterError(f"query: {error}") from None
        media_type, written = _FORMATS[values.get("format", "json")]
        is_truncated = len(table) > limit
        headers = {"X-Truncated": "true" if is_truncated else "false"}
        content = written(_with_own_names(table.slice(0, limit)))
        return Response(content, media_type=media_type, headers=headers)

    return router


def _parse_format(text: str) -> str:
    if text not in _FORMATS:
        raise ValueError(f"one of {', '.join(_FORMATS)}")
    return text


def _parse_rows(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MAX_SQL_ROWS:
        raise ValueError(f"1 to {MAX_SQL_ROWS}")
    return int(text[:9])


def _with_own_names(table: pa.Table) -> pa.Table:
    """A second column of a name is `name_2`."""
    names: list[str] = []
    for name in table.column_names:
        number = 2
        own = name
        while own in names:
            own, number = f"{name}_{number}", number + 1
        names.append(own)
    return table.rename_columns(names)


def _json(table: pa.Table) -> bytes:
    columns = [[_plain(value) for value in column.to_pylist()] for column in table.columns]
    answer = {
        "columns": [{"name": field.name, "type": str(field.type)} for field in table.schema],
        "rows": [list(row) for row in zip(*columns, strict=True)],
    }
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()


def _csv(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    flat = [_as_text(column) if _has_parts(column.type) else column for column in table.columns]
    pyarrow.csv.write_csv(pa.table(flat, names=table.column_names), buffer)
    return buffer.getvalue()


def _has_parts(kind: pa.DataType) -> bool:
    """Whether Arrow cannot write it as CSV."""
    is_binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    return is_binary or pa.types.is_nested(kind) or isinstance(kind, pa.BaseExtensionType)


def _as_text(column: pa.ChunkedArray) -> pa.Array:
    texts = []
    for value in map(_plain, column.to_pylist()):
        is_text = value is None or isinstance(value, str)
        texts.append(value if is_text else json.dumps(value, ensure_ascii=False))
    return pa.array(texts, pa.string())


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer)
    return buffer.getvalue()


def _arrow(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    with pa.ipc.new_stream(buffer, table.schema) as stream:
        stream.write_table(table)
    return buffer.getvalue()


def _plain(value: Any) -> Any:
    """A value as JSON types; a number that JSON does not have is null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime | date | time_of_day):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, str | int | bool) else str(value)


_FORMATS: dict[str, tuple[str, Callable[[pa.Table], bytes]]] = {
    "json": ("application/json", _json),
    "csv": ("text/csv", _csv),
    "parquet": ("application/vnd.apache.parquet", _parquet),
    "arrow": ("application/vnd.apache.arrow.stream", _arrow),
}
