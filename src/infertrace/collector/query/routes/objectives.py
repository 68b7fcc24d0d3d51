"""How many requests meet their targets, and how fast the budget of those that do not is spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from infertrace.collector.query.chosen_spans import bounds, chosen_spans, counted
from infertrace.collector.query.documentation import OBJECT, documented
from infertrace.collector.query.parameters import (
    CHOSEN,
    KEYED_PARAMETERS,
    OBJECTIVE,
    TARGET_PREFIX,
    TARGETS,
)
from infertrace.collector.store.grouping import ERRORS, GroupedQuery, MatchKey, TimeKey
from infertrace.collector.store.measures import MeasureRange
from infertrace.collector.store.span_filter import SpanFilter
from infertrace.collector.store.store import SpanReader
from infertrace.collector.store.timestamps import NANOS_PER_SECOND

_MINUTE_NS = 60 * NANOS_PER_SECOND
_PART_NS = 5 * _MINUTE_NS
_HOUR_NS = 60 * _MINUTE_NS
_WINDOWS_NS = {
    "5m": _PART_NS,
    "30m": 30 * _MINUTE_NS,
    "1h": _HOUR_NS,
    "6h": 6 * _HOUR_NS,
    "3d": 72 * _HOUR_NS,
}
# Source: Google, "The Site Reliability Workbook", chapter 5, table 5-8: of a budget for 30 days,
# 2 % in an hour, 5 % in six hours, 10 % in three days.
_ALERTS = ((14.4, "1h", "5m"), (6.0, "6h", "30m"), (1.0, "3d", "6h"))


def objective_routes(store: SpanReader) -> APIRouter:
    """`/slo`."""
    router = APIRouter()
    own = (OBJECTIVE, *TARGETS)

    @router.get(
        "/slo", **documented("Targets and burn rates", (*CHOSEN, *own, *KEYED_PARAMETERS), OBJECT)
    )
    def slo(request: Request) -> Response:
        """A good request is no error and meets each target that is given, such as
        `target_time_to_first_token_ms=200`; one that does not say such a value is not good. `range`
        is the time that was asked for, 1h by default, with `goodput`, good requests a second;
        `windows` end with it. A `burn_rate` of 1 spends the budget of 30 days in 30 days. An alert
        of `alerts` fires where both of its windows burn faster than its rate."""
        where, values = chosen_spans(request.query_params, own)
        targets = {
            target.name.removeprefix(TARGET_PREFIX): values[target.name]
            for target in TARGETS
            if target.name in values
        }
        objective = values.get("objective", 0.99)
        good = MatchKey(
            SpanFilter(
                ranges=tuple(MeasureRange(name, None, most) for name, most in targets.items())
            )
        )
        since_ns, until_ns = bounds(where)
        (rows,) = store.grouped(GroupedQuery(where, [[good]], [ERRORS]))
        asked = _attained(rows, objective)
        seconds = (until_ns - since_ns) / NANOS_PER_SECOND
        windows = _windows(store, where, good, objective, until_ns)
        return JSONResponse(
            {
                "counted": counted(where),
                "objective": objective,
                "targets": targets,
                "total": asked["total"],
                "range": {**asked, "seconds": seconds, "goodput": asked["good"] / seconds},
                "windows": [{"window": name, **window} for name, window in windows.items()],
                "alerts": [
                    {
                        "burn_rate": rate,
                        "long": long,
                        "short": short,
                        "firing": all(
                            (windows[name]["burn_rate"] or 0) > rate for name in (long, short)
                        ),
                    }
                    for rate, long, short in _ALERTS
                ],
            }
        )

    return router


def _windows(
    store: SpanReader, where: SpanFilter, good: MatchKey, objective: float, until_ns: int
) -> dict[str, dict[str, Any]]:
    longest_ns = max(_WINDOWS_NS.values())
    first_ns = max(0, until_ns - longest_ns)
    around = replace(where, since_ns=first_ns)
    parts = TimeKey(until_ns - longest_ns, _PART_NS)
    (rows,) = store.grouped(GroupedQuery(around, [[parts, good]], [ERRORS]))
    part_count = longest_ns // _PART_NS
    return {
        name: _attained(
            [row[1:] for row in rows if row[0] >= part_count - length_ns // _PART_NS], objective
        )
        for name, length_ns in _WINDOWS_NS.items()
    }


def _attained(rows: Sequence[tuple[Any, ...]], objective: float) -> dict[str, Any]:
    total = sum(count for _, count, _ in rows)
    good = sum(count - errors for is_met, count, errors in rows if is_met)
    bad_share = 1 - good / total if total else None
    return {
        "total": total,
        "good": good,
        "errors": sum(errors for *_, errors in rows),
        "attained": good / total if total else None,
        "burn_rate": None if bad_share is None else bad_share / (1 - objective),
    }
