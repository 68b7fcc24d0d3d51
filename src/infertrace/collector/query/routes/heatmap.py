"""Spans by time and by the size of a value."""

from __future__ import annotations

from collections import Counter
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from infertrace.collector.query.chosen_spans import bounds, chosen_spans, counted
from infertrace.collector.query.documentation import OBJECT, documented
from infertrace.collector.query.parameters import (
    BY,
    CHOSEN,
    KEYED_PARAMETERS,
    VALUE,
    parts_of_time,
)
from infertrace.collector.store.exponential_buckets import quantile
from infertrace.collector.store.grouping import ERRORS, BucketKey, GroupedQuery, TimeKey
from infertrace.collector.store.measures import MEASURES
from infertrace.collector.store.metrics import FRACTIONS
from infertrace.collector.store.store import SpanReader
from infertrace.collector.store.timestamps import NANOS_PER_SECOND, format_rfc3339
from infertrace.wire.token_intervals import SCALE

DEFAULT_HEATMAP_COLUMNS = 120
MAX_HEATMAP_COLUMNS = 400


def heatmap_routes(store: SpanReader) -> APIRouter:
    """`/heatmap`."""
    router = APIRouter()
    own = (VALUE, BY, parts_of_time(DEFAULT_HEATMAP_COLUMNS, MAX_HEATMAP_COLUMNS))

    @router.get(
        "/heatmap",
        **documented("Spans by time and value", (*CHOSEN, *own, *KEYED_PARAMETERS), OBJECT),
    )
    def heatmap(request: Request) -> Response:
        """The window is 1h by default, in 120 columns. Of each column that has spans, `cells` are
        `[bucket, count, errors]`: a bucket holds more than 2**(bucket/8) and at most
        2**((bucket+1)/8) of what the value is times `per_unit`; bucket -2 is zero. The percentiles
        are made of the same cells, within 4.4 %, in the value's own unit. `without_value` spans do
        not say it; `total` are those in cells. With `by`, the columns are buckets of that number,
        times `by_per_unit`, in place of parts of the time; spans that do not say it are
        `without_value` too."""
        where, values = chosen_spans(request.query_params, own)
        measure = MEASURES[values.get("value", "duration_ms")]
        since_ns, until_ns = bounds(where)
        columns = values.get("columns", DEFAULT_HEATMAP_COLUMNS)
        length_ns = max(1, -(-(until_ns - since_ns) // columns))
        by = MEASURES[values["by"]] if "by" in values else None
        place = TimeKey(since_ns, length_ns) if by is None else BucketKey(by.name)
        (rows,) = store.grouped(GroupedQuery(where, [[place, BucketKey(measure.name)]], [ERRORS]))
        cells: dict[int, list[tuple[int, int, int]]] = {}
        all_counts: Counter[int] = Counter()
        errors = without_value = 0
        for part, bucket, count, error_count in sorted(
            rows, key=lambda row: (row[0] is None, row[0] or 0, row[1] is None, row[1] or 0)
        ):
            if bucket is None or part is None:
                without_value += count
                continue
            cells.setdefault(part, []).append((bucket, count, error_count))
            all_counts[bucket] += count
            errors += error_count

        def percentiles(counts: dict[int, int]) -> dict[str, float]:
            found = {name: quantile(counts, share) for name, share in FRACTIONS.items()}
            return {
                name: value / measure.per_unit for name, value in found.items() if value is not None
            }

        def named(part: int) -> dict[str, Any]:
            if by is not None:
                return {"bucket": part}
            return {"index": part, "time": format_rfc3339(since_ns + part * length_ns)}

        answer: dict[str, Any] = {
            "value": measure.name,
            "unit": measure.unit,
            "scale": SCALE,
            "per_unit": measure.per_unit,
            "counted": counted(where),
            "total": sum(all_counts.values()),
            "error_count": errors,
            "without_value": without_value,
            **percentiles(all_counts),
        }
        if by is None:
            answer["column_seconds"] = length_ns / NANOS_PER_SECOND
            answer["column_count"] = columns
        else:
            answer |= {"by": by.name, "by_unit": by.unit, "by_per_unit": by.per_unit}
        answer["columns"] = [
            {
                **named(part),
                "cells": found,
                **percentiles({bucket: count for bucket, count, _ in found}),
            }
            for part, found in cells.items()
        ]
        return JSONResponse(answer)

    return router
