"""An index of row blocks, by time range and trace ids, so that a look-up of a trace reads little.

A trace id is random, so no order of the rows narrows the search for it. Rows arrive roughly in the
order of their start, so a block of them covers a short time, and a Bloom filter tells whether it
may hold a trace.
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
    first_ns: int
    last_ns: int
    rows: int = 0
    traces: TraceFilter = field(default_factory=new_trace_filter)


class BlockIndex:
    """Index of the newest MAX_BLOCKS blocks.

    Of older rows only the latest start time is known, so any of them may match.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks: list[_Block] = []
        self._unknown_until_ns: int | None = None

    def skip(self, last_start_ns: int | None) -> None:
        """Count rows as older that are not added, the latest of which starts at that time."""
        self._unknown_until_ns = last_start_ns

    def add(self, rows: pa.RecordBatch) -> None:
        """Add rows, before the table has them; one thread at a time."""
        if not len(rows):
            return
        found = pc.min_max(rows.column("start_time")).as_py()
        blocks = self._blocks
        if not blocks or blocks[-1].rows + len(rows) > BLOCK_ROWS:
            blocks = [*blocks, _Block(found["min"], found["max"])]
        unknown_ns = self._unknown_until_ns
        if len(blocks) > MAX_BLOCKS:
            oldest, *blocks = blocks
            unknown_ns = max(oldest.last_ns, unknown_ns or 0)
        block = blocks[-1]
        block.traces.add(trace_id_bytes(rows))
        block.first_ns = min(block.first_ns, found["min"])
        block.last_ns = max(block.last_ns, found["max"])
        block.rows += len(rows)
        with self._lock:
            self._blocks, self._unknown_until_ns = blocks, unknown_ns

    def ranges(self, trace_id: bytes) -> list[TimeRange]:
        """Disjoint times, in order, outside of which the table has no span of this trace."""
        with self._lock:
            blocks, unknown_ns = self._blocks, self._unknown_until_ns
        found = [(b.first_ns, b.last_ns) for b in blocks if b.traces.may_hold(trace_id)]
        if unknown_ns is not None:
            found.append((0, unknown_ns))
        merged: list[TimeRange] = []
        for first, last in sorted(found):
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(merged[-1][1], last))
            else:
                merged.append((first, last))
        return merged
