"""What GPUs were doing, as the spans say that ended meanwhile."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from infertrace.collector.query.chosen_spans import counted, span_filter, time_of
from infertrace.collector.query.documentation import OBJECT, documented
from infertrace.collector.query.parameters import (
    COLUMNS,
    MODEL,
    SERVICE,
    SINCE,
    UNTIL,
    WINDOW,
    parse_parameters,
)
from infertrace.collector.store.grouping import Aggregate, ColumnKey, GroupedQuery, TimeKey
from infertrace.collector.store.store import SpanReader
from infertrace.collector.store.timestamps import NANOS_PER_SECOND, format_rfc3339

DEFAULT_GPU_WINDOW_NS = 3_600 * NANOS_PER_SECOND
DEFAULT_GPU_COLUMNS = 240
MAX_DEVICES = 64
READINGS = (
    "gpu_utilization_percent",
    "gpu_memory_used_bytes",
    "gpu_memory_total_bytes",
    "gpu_power_watts",
    "gpu_temperature_celsius",
)
_TOLD = tuple(
    Aggregate(function, name) for name in READINGS for function in ("present", "mean", "longest")
)


def gpu_routes(store: SpanReader) -> APIRouter:
    """`/gpu`."""
    router = APIRouter()
    own = (MODEL, SERVICE, WINDOW, SINCE, UNTIL, COLUMNS)

    @router.get("/gpu", **documented("GPUs over time", own, OBJECT))
    def gpu(request: Request) -> Response:
        """The window is 1h by default, in 240 columns. Of each device, the columns in which spans
        ended that read it: of each reading its mean, its maximum, and `count`, how many spans say
        it. A column that no span ended in is missing, and is not 0. `truncated` says that there are
        more than 64 devices."""
        values = parse_parameters(request.query_params, own)
        since_ns, until_ns = time_of(values, DEFAULT_GPU_WINDOW_NS)
        columns = values.get("columns", DEFAULT_GPU_COLUMNS)
        length_ns = max(1, -(-(until_ns - since_ns) // columns))
        where = span_filter({**values, "since": since_ns, "until": until_ns}, {})
        keys = (ColumnKey("gpu_device_id"), TimeKey(since_ns, length_ns, "end"))
        (rows,) = store.grouped(GroupedQuery(where, [keys], _TOLD))
        devices: dict[str, list[dict[str, Any]]] = {}
        for device, part, count, *told in sorted(
            (row for row in rows if row[0] is not None), key=lambda row: row[:2]
        ):
            # A span that started in the time may have ended after it.
            if part < columns and any(told[::3]):
                column = {"time": format_rfc3339(since_ns + part * length_ns), "count": count}
                for place, name in enumerate(READINGS):
                    present, mean, longest = told[3 * place : 3 * place + 3]
                    if present:
                        column[name] = {"count": present, "mean": mean, "max": longest}
                devices.setdefault(device, []).append(column)
        listed = sorted(devices)
        return JSONResponse(
            {
                "counted": counted(where),
                "column_seconds": length_ns / NANOS_PER_SECOND,
                "device_count": len(listed),
                "truncated": len(listed) > MAX_DEVICES,
                "total": sum(column["count"] for columns in devices.values() for column in columns),
                "devices": [
                    {"gpu_device_id": name, "columns": devices[name]}
                    for name in listed[:MAX_DEVICES]
                ],
            }
        )

    return router
