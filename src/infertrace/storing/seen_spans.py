"""The one place that chooses how the ids that came last are remembered."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from infertrace import backend

if TYPE_CHECKING:
    import pyarrow as pa


class SeenSpans(Protocol):
    """Remembers the last so many spans; the module of a backend has a class of this name."""

    def add(self, trace_ids: Any, span_ids: Any) -> list[int]:
        """Remember spans; the positions of those that have (probably) been added before."""


def new_seen_spans(capacity: int, name: str = backend.selected.NAME) -> SeenSpans:
    """On the backend of that name, `native` or `pure`."""
    module = import_module(f"infertrace.storing.{name}_seen_spans")
    seen: SeenSpans = module.SeenSpans(capacity)
    return seen


def add_rows(seen: SeenSpans, rows: pa.RecordBatch) -> list[int]:
    """Remember the spans of a batch; the positions of those seen before."""
    if not len(rows):
        return []
    trace_ids, span_ids = rows.column("trace_id").storage, rows.column("span_id")
    return seen.add(_values(trace_ids, 16), _values(span_ids, 8))


def _values(column: pa.Array, size: int) -> memoryview:
    values = memoryview(column.buffers()[1]).cast("B")
    return values[size * column.offset : size * (column.offset + len(column))]
