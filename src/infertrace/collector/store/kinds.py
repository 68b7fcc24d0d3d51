"""The kinds of columns: what a value of each is in Arrow, in a database and in an answer."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from infertrace.collector.store.columns import Kind
from infertrace.collector.store.timestamps import NANOS_PER_MS, format_rfc3339
from infertrace.generated.span_pb2 import SpanKind
from infertrace.wire import token_intervals

_FLOAT32 = struct.Struct("f")

SPAN_KINDS: Mapping[int, str] = {
    number: name.removeprefix("SPAN_KIND_") for name, number in SpanKind.items()
}
"""OTLP's names, by number."""


@dataclass(frozen=True)
class ColumnKind:
    """One kind of column.

    `duckdb` and `postgres` are its types in SQL, and `openapi` is its schema in an answer, for
    which `to_json` turns the value that a store returns into a JSON type (None: it is one).
    """

    arrow: pa.DataType
    duckdb: str
    postgres: str
    postgres_bytes: int
    """The size of a value in PostgreSQL's binary format; 0 for text and bytes, which vary."""
    openapi: Mapping[str, Any]
    to_json: Callable[[Any], Any] | None = None
    is_unsigned: bool = False
    """Whether values may exceed PostgreSQL's bigint, which is signed."""


def exact_float32(value: float) -> float:
    """The 32-bit float itself, of which PostgreSQL tells the shortest decimal."""
    return float(_FLOAT32.unpack(_FLOAT32.pack(value))[0])


def shortest_float32(value: float) -> float:
    """The number with the fewest digits that is the same 32-bit float: 0.1, not 0.100000001."""
    packed = _FLOAT32.pack(value)
    for digits in range(6, 9):
        shorter = float(f"{value:.{digits}g}")
        try:
            if _FLOAT32.pack(shorter) == packed:
                return shorter
        except OverflowError:  # rounded up beyond the largest one
            continue
    return float(f"{value:.9g}")


def _shown_intervals(message: bytes) -> dict[str, Any]:
    """A histogram as OpenTelemetry writes an exponential one."""
    offset, counts = token_intervals.decode(message)
    return {"scale": token_intervals.SCALE, "offset": offset, "counts": counts}


# PostgreSQL compares these texts by their bytes, as the other stores do.
_POSTGRES_TEXT = 'text COLLATE "C"'

KINDS: Mapping[Kind, ColumnKind] = {
    "uuid": ColumnKind(
        pa.uuid(),
        "UUID",
        "uuid",
        16,
        {"type": "string", "pattern": "^[0-9a-f]{32}$"},
        lambda value: value.hex,
    ),
    "span_id": ColumnKind(
        pa.uint64(),
        "UBIGINT",
        "bigint",
        8,
        {"type": "string", "pattern": "^[0-9a-f]{16}$"},
        lambda span_id: f"{span_id:016x}",
        is_unsigned=True,
    ),
    "text": ColumnKind(pa.string(), "VARCHAR", _POSTGRES_TEXT, 0, {"type": "string"}),
    "time": ColumnKind(
        pa.int64(),
        "BIGINT",
        "bigint",
        8,
        {"type": "string", "format": "date-time"},
        format_rfc3339,
    ),
    "duration": ColumnKind(
        pa.int64(),
        "BIGINT",
        "bigint",
        8,
        {"type": "number"},
        lambda duration_ns: duration_ns / NANOS_PER_MS,
    ),
    "int32": ColumnKind(
        pa.int32(), "INTEGER", "integer", 4, {"type": "integer", "format": "int32"}
    ),
    "int64": ColumnKind(pa.int64(), "BIGINT", "bigint", 8, {"type": "integer", "format": "int64"}),
    "float32": ColumnKind(
        pa.float32(),
        "FLOAT",
        "real",
        4,
        {"type": "number", "format": "float"},
        shortest_float32,
    ),
    "float64": ColumnKind(
        pa.float64(), "DOUBLE", "double precision", 8, {"type": "number", "format": "double"}
    ),
    "span_kind": ColumnKind(
        pa.int32(),
        "INTEGER",
        "integer",
        4,
        {"type": "string", "pattern": "^([A-Z]+|-?[0-9]+)$"},
        lambda kind: SPAN_KINDS.get(kind, str(kind)),
    ),
    "intervals": ColumnKind(
        pa.binary(),
        "BLOB",
        "bytea",
        0,
        {
            "type": "object",
            "required": ["scale", "offset", "counts"],
            "properties": {
                "scale": {"type": "integer"},
                "offset": {"type": "integer", "format": "int32"},
                "counts": {"type": "array", "items": {"type": "integer"}},
            },
        },
        _shown_intervals,
    ),
    "json": ColumnKind(pa.string(), "VARCHAR", _POSTGRES_TEXT, 0, {"type": "object"}, json.loads),
}
