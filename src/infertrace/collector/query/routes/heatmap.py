"""Spans by time and by the size of a value."""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
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
from infertrace.collector.store.exponential_buckets import quantiles
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
        told = sorted(row for row in rows if row[0] is not None and row[1] is not None)
        cells = {
            part: [row[1:] for row in of_part] for part, of_part in groupby(told, itemgetter(0))
        }
        all_counts: dict[int, int] = {}
        for _, bucket, count, _ in told:
            all_counts[bucket] = all_counts.get(bucket, 0) + count
        total = sum(all_counts.values())

        def percentiles(counts: dict[int, int]) -> dict[str, float]:
            found = quantiles(counts, FRACTIONS.values())
            return {
                name: value / measure.per_unit
                for name, value in zip(FRACTIONS, found, strict=False)
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
            "total": total,
            "error_count": sum(row[3] for row in told),
            "without_value": sum(row[2] for row in rows) - total,
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
