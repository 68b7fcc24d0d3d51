"""The tokens of a trace, where several spans may tell of the same request."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from infertrace.collector.store.span_filter import COLUMN_INDEX, Row

COUNTED = (
    "each request once: a span within one that has tokens too is left out, as an engine's within "
    "its client's; of spans with the same request id and start, one for each choice, the prompt "
    "counts once"
)


def trace_totals(rows: Sequence[Row]) -> dict[str, Any] | None:
    """Requests and their tokens, and how they are counted; None where no span has tokens."""
    covered = _covered(rows)
    outermost = [row for row in rows if _has_tokens(row) and _value(row, "span_id") not in covered]
    if not outermost:
        return None
    choices: dict[Hashable, list[Row]] = {}
    for row in outermost:
        choices.setdefault(_request_of(row), []).append(row)
    return {
        "requests": len(choices),
        "input_tokens": sum(
            max(_value(row, "input_tokens") or 0 for row in of_one) for of_one in choices.values()
        ),
        "output_tokens": sum(_value(row, "output_tokens") or 0 for row in outermost),
        "counted": COUNTED,
    }


def _value(row: Row, column: str) -> Any:
    return row[COLUMN_INDEX[column]]


def _has_tokens(row: Row) -> bool:
    return _value(row, "input_tokens") is not None or _value(row, "output_tokens") is not None


def _request_of(row: Row) -> Hashable:
    request_id: str | None = _value(row, "request_id")
    if request_id is None:
        span_id: int = _value(row, "span_id")
        return span_id
    return _value(row, "service_name"), request_id, _value(row, "start_time")


def _covered(rows: Sequence[Row]) -> set[int]:
    """The ids of the spans around which there is one with tokens."""
    by_id = {_value(row, "span_id"): row for row in rows}
    known: dict[int, bool] = {}
    for row in rows:
        path: list[int] = []
        span_id, is_covered = _value(row, "span_id"), False
        while span_id in by_id and span_id not in known:
            known[span_id] = False  # until the path ends; ids may name one another in a circle
            path.append(span_id)
            span_id = _value(by_id[span_id], "parent_span_id")
        if span_id in by_id and span_id not in path:
            is_covered = known[span_id] or _has_tokens(by_id[span_id])
        for span_id in reversed(path):
            known[span_id] = is_covered
            is_covered = is_covered or _has_tokens(by_id[span_id])
    return {span_id for span_id, is_covered in known.items() if is_covered}
