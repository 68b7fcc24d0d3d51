"""What came last, in the order in which it was stored: for whoever watches.

Rows are stored when their spans end, so no order of their start times tells what is new.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import pyarrow as pa

from infertrace.collector.store.row_filter import matching_positions
from infertrace.collector.store.span_filter import SpanFilter, holds_keyed
from infertrace.collector.store.span_rows import byte_count
from infertrace.collector.store.store import Arrival

Listener = Callable[[Sequence[pa.RecordBatch]], None]

_log = logging.getLogger(__name__)

KEPT_ROWS = 200_000
KEPT_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True)
class Arrived:
    """Rows that came after a place, and where the next ones will be.

    `forgotten_count` are rows that came after that place and are not kept any more.
    """

    batches: Sequence[pa.RecordBatch]
    next_place: int
    forgotten_count: int


class Arrivals:
    """Keeps the newest rows of this process, up to KEPT_ROWS and about KEPT_BYTES.

    Places count rows; they begin with a time, so that those of an earlier process are before.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: deque[tuple[int, pa.RecordBatch, int]] = deque()
        self._first = self._next = time.time_ns() // 1_000
        self._bytes = 0
        self._rows = 0
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """Have it called with all further rows, by the thread that stores them."""
        self._listeners.append(listener)

    def add(self, batches: Sequence[pa.RecordBatch]) -> None:
        """Add rows that are stored now."""
        for listener in self._listeners:
            try:
                listener(batches)
            except Exception:
                # The rows are durable: what counts them must not make their sender send them again.
                _log.exception("what was stored could not be counted")
        with self._lock:
            for rows in batches:
                if not len(rows):
                    continue
                size = byte_count(rows)
                self._kept.append((self._next, rows, size))
                self._next += len(rows)
                self._rows += len(rows)
                self._bytes += size
            while len(self._kept) > 1 and (self._rows > KEPT_ROWS or self._bytes > KEPT_BYTES):
                _, rows, size = self._kept.popleft()
                self._rows -= len(rows)
                self._bytes -= size

    def after(self, place: int | None) -> Arrived:
        """The rows from a place on; None asks for all that are kept."""
        with self._lock:
            kept, end = list(self._kept), self._next
        oldest = kept[0][0] if kept else end
        if place is None:
            return Arrived([rows for _, rows, _ in kept], end, 0)
        # What came before this process is not known, so it cannot be counted.
        asked = min(max(place, self._first), end)
        batches = [
            rows.slice(max(0, asked - first))
            for first, rows, _ in kept
            if first + len(rows) > asked
        ]
        return Arrived(batches, end, max(0, oldest - asked))


def arrival(
    arrived: Arrived,
    where: SpanFilter,
    limit: int,
    resource_ids: Collection[uuid.UUID] | None,
) -> Arrival:
    """The last `limit` rows that a filter lets pass, of those that came after a place."""
    if not arrived.batches:
        return Arrival([], 0, arrived.forgotten_count, arrived.next_place)
    table = pa.Table.from_batches(arrived.batches)
    positions = matching_positions(table, where, resource_ids)
    if where.tags or where.attributes or where.anywhere:
        texts = table.select(["tags", "attributes"]).take(positions)
        holds = [
            holds_keyed(where, tags, attributes)
            for tags, attributes in zip(*(column.to_pylist() for column in texts), strict=True)
        ]
        positions = positions.filter(pa.array(holds, pa.bool_()))
    last = table.take(positions.slice(max(0, len(positions) - limit)))
    rows = list(zip(*(column.to_pylist() for column in last.columns), strict=True))
    return Arrival(rows, len(positions), arrived.forgotten_count, arrived.next_place)
