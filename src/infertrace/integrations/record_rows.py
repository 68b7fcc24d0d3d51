"""Finished spans that differ in what they say, by as few calls of `record_batch` as they need."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from infertrace.span import SpanKind
from infertrace.tracer import Tracer


def record_rows(
    tracer: Tracer,
    model_name: str,
    operation_name: str,
    rows: Sequence[Mapping[str, Any]],
    kind: SpanKind | None = None,
) -> None:
    """Record a span for each row: names and values of `record_batch`'s columns, None for none."""
    by_names: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        names = tuple(name for name, value in row.items() if value is not None)
        by_names.setdefault(names, []).append(row)
    for names, same in by_names.items():
        columns: Any = {name: _column([row[name] for row in same]) for name in names}
        tracer.record_batch(model_name, operation_name, kind=kind, **columns)


def _column(values: list[Any]) -> Any:
    if isinstance(values[0], float):
        return array("d", values)
    return array("q", values) if isinstance(values[0], int) else values
