"""Which spans a request asks about: its parameters as a filter, and how an answer tells of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import QueryParams

from infertrace.collector.query.parameters import (
    CHOSEN,
    KEYED_PARAMETERS,
    TEXTS,
    Parameter,
    ParameterError,
    parse_keyed,
    parse_parameters,
)
from infertrace.collector.store.measures import MEASURES, MeasureRange
from infertrace.collector.store.selection import ALL_OPERATIONS
from infertrace.collector.store.span_filter import SpanFilter
from infertrace.collector.store.timestamps import NANOS_PER_SECOND, format_rfc3339

DEFAULT_WINDOW_NS = 3_600 * NANOS_PER_SECOND


def span_filter(values: Mapping[str, Any], keyed: Mapping[str, Any]) -> SpanFilter:
    """The filter that parsed parameters ask for; no condition where one is missing."""
    return SpanFilter(
        model=values.get("model"),
        service=values.get("service"),
        operation=values.get("operation"),
        status=values.get("status"),
        trace_id=values.get("trace_id"),
        since_ns=values.get("since"),
        until_ns=values.get("until"),
        min_duration_ns=values.get("min_duration_ms"),
        after=values.get("cursor"),
        texts=tuple((each.name, values[each.name]) for each in TEXTS if each.name in values),
        producer_id=values.get("producer"),
        ranges=tuple(_ranges(values)),
        is_request=values.get("requests", False),
        **keyed,
    )


def _ranges(values: Mapping[str, Any]) -> list[MeasureRange]:
    found = []
    for name in MEASURES:
        # The shortest duration has its own place in a filter, exact to the nanosecond.
        least = None if name == "duration_ms" else values.get(f"min_{name}")
        most = values.get(f"max_{name}")
        if least is not None or most is not None:
            found.append(MeasureRange(name, least, most))
    return found


def chosen_spans(
    given: QueryParams, more: tuple[Parameter, ...], window_ns: int = DEFAULT_WINDOW_NS
) -> tuple[SpanFilter, dict[str, Any]]:
    """The filter of a route that counts spans, and all its parameters; raises ParameterError.

    Without `operation`, requests; `*` is all spans. The time is always bounded.
    """
    keyed, others = parse_keyed(given, KEYED_PARAMETERS)
    values = parse_parameters(others, (*CHOSEN, *more), KEYED_PARAMETERS)
    since_ns, until_ns = time_of(values, window_ns)
    operation = values.get("operation")
    chosen = {
        **values,
        "since": since_ns,
        "until": until_ns,
        "operation": None if operation == ALL_OPERATIONS else operation,
        "requests": operation is None,
    }
    return span_filter(chosen, keyed), values


def time_of(values: Mapping[str, Any], window_ns: int) -> tuple[int, int]:
    """The time that `since`, `until` or `window` ask for; raises ParameterError."""
    given = [name for name in ("since", "until") if name in values]
    if "window" in values and given:
        raise ParameterError(f"window: expected without {' and '.join(given)}")
    until_ns = values.get("until", time.time_ns())
    since_ns = values.get("since", max(0, until_ns - values.get("window", window_ns)))
    if since_ns >= until_ns:
        raise ParameterError("since: expected a time before until, which is now by default")
    return since_ns, until_ns


def bounds(where: SpanFilter) -> tuple[int, int]:
    """The time of a filter that `chosen_spans` made."""
    assert where.since_ns is not None
    assert where.until_ns is not None
    return where.since_ns, where.until_ns


def counted(where: SpanFilter) -> dict[str, Any]:
    """What an answer says of the spans that it counts."""
    since_ns, until_ns = bounds(where)
    spans = "requests" if where.is_request else "all" if where.operation is None else "operation"
    return {
        "spans": spans,
        "operation": where.operation,
        "since": format_rfc3339(since_ns),
        "until": format_rfc3339(until_ns),
    }
