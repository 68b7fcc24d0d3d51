"""Where in time the spans of a trace can be, so that looking one up reads little of a table.

A trace id is random, so no order of the rows narrows the search for it. Rows come roughly in the
order of their time, so a block of them, with a filter of its trace ids, is a short time.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from infertrace.collector.store.id_filters import TraceFilter, new_trace_filter, trace_id_bytes

BLOCK_ROWS = 250_000
MAX_BLOCKS = 200  # of half a MiB each

TimeRange = tuple[int, int]
"""First and last start time, nanoseconds since 1970, both included."""


@dataclass
class _Block:
    first: int
    last: int
    rows: int = 0
    traces: TraceFilter = field(default_factory=new_trace_filter)


class BlockIndex:
    """The newest so many blocks; older rows, of which it knows only the last time, may be any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks: list[_Block] = []
        self._unknown_until: int | None = None

    def skip(self, last: int | None) -> None:
        """There are rows that are not added, the last of which started then."""
        self._unknown_until = last

    def add(self, rows: pa.RecordBatch) -> None:
        """Add rows, before they can be found; one thread at a time."""
        if not len(rows):
            return
        found = pc.min_max(rows.column("start_time")).as_py()
        blocks = self._blocks
        if not blocks or blocks[-1].rows + len(rows) > BLOCK_ROWS:
            blocks = [*blocks, _Block(found["min"], found["max"])]
        unknown = self._unknown_until
        if len(blocks) > MAX_BLOCKS:
            oldest, *blocks = blocks
            unknown = max(oldest.last, unknown or 0)
        block = blocks[-1]
        block.traces.add(trace_id_bytes(rows))
        block.first, block.last = min(block.first, found["min"]), max(block.last, found["max"])
        block.rows += len(rows)
        with self._lock:
            self._blocks, self._unknown_until = blocks, unknown

    def ranges(self, trace_id: bytes) -> list[TimeRange]:
        """Times outside of which no span of this trace was added, in order, apart."""
        with self._lock:
            blocks, unknown = self._blocks, self._unknown_until
        found = [(b.first, b.last) for b in blocks if b.traces.may_hold(trace_id)]
        if unknown is not None:
            found.append((0, unknown))
        merged: list[TimeRange] = []
        for first, last in sorted(found):
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(merged[-1][1], last))
            else:
                merged.append((first, last))
        return merged
