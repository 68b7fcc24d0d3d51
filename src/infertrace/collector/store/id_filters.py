"""Filters of ids in bounded memory, compiled or pure; `backend.part` chooses."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from infertrace import backend

if TYPE_CHECKING:
    import pyarrow as pa


class DuplicateFilter(Protocol):
    """Remembers the newest spans; the module of a backend has a class of this name."""

    @property
    def forgotten_until_ns(self) -> int:
        """The latest start of a span that may be forgotten, nanoseconds since 1970; 0: none is."""

    def forget(self, latest_start_ns: int) -> None:
        """There are spans up to that start that were never added."""

    def add(self, trace_ids: Any, span_ids: Any, starts: Any) -> list[int]:
        """Remember spans, by the bytes of their ids and of their starts, nanoseconds since 1970.

        Returns the positions of those that have (probably) been added before.
        """


class TraceFilter(Protocol):
    """A Bloom filter of trace ids: no false negatives."""

    def add(self, trace_ids: Any) -> None:
        """Add ids of 16 bytes each."""

    def may_hold(self, trace_id: Any) -> bool:
        """False means that this id was not added."""


class IdFilters(Protocol):
    """A module that offers this has the filters."""

    @property
    def DuplicateFilter(self) -> Callable[[int], DuplicateFilter]:  # noqa: N802
        """For a capacity in spans."""

    @property
    def TraceFilter(self) -> Callable[[], TraceFilter]: ...  # noqa: N802


def _native() -> IdFilters:
    import infertrace.collector.store.native_id_filters as native

    return native


def _pure() -> IdFilters:
    import infertrace.collector.store.pure_id_filters as pure

    return pure


_NAMES = ("DuplicateFilter", "TraceFilter")


def new_trace_filter(name: str | None = None) -> TraceFilter:
    """On the backend of that name, `native` or `pure`, or on the selected one."""
    return backend.part(_native, _pure, _NAMES, name).TraceFilter()


def new_duplicate_filter(capacity: int, name: str | None = None) -> DuplicateFilter:
    """On the backend of that name, `native` or `pure`, or on the selected one."""
    return backend.part(_native, _pure, _NAMES, name).DuplicateFilter(capacity)


def add_rows(seen: DuplicateFilter, rows: pa.RecordBatch) -> list[int]:
    """Remember the spans of a batch; the positions of those seen before."""
    if not len(rows):
        return []
    return seen.add(
        trace_id_bytes(rows),
        _values(rows.column("span_id"), 8),
        _values(rows.column("start_time"), 8),
    )


def id_pairs(rows: pa.RecordBatch) -> list[tuple[bytes, int]]:
    """Trace id and span id of each row."""
    trace_ids = rows.column("trace_id").storage.to_pylist()
    return list(zip(trace_ids, rows.column("span_id").to_pylist(), strict=True))


def trace_id_bytes(rows: pa.RecordBatch) -> memoryview:
    """The trace ids of a batch, 16 bytes each."""
    return _values(rows.column("trace_id").storage, 16)


def _values(column: pa.Array, size: int) -> memoryview:
    values = memoryview(column.buffers()[1]).cast("B")
    return values[size * column.offset : size * (column.offset + len(column))]
