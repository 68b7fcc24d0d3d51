"""Filters of ids, in Python."""

from __future__ import annotations

from array import array
from typing import Any


class _Generation:
    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.keys: set[bytes] = set()
        self.latest_start_ns = 0


class DuplicateFilter:
    """Remembers at least the last `capacity` spans, in sets that are filled one after the other."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._generations = [_Generation(max(1, capacity // 64))]
        self.forgotten_until_ns = 0

    def forget(self, latest_start_ns: int) -> None:
        """There are spans up to that start that were never added."""
        self.forgotten_until_ns = max(self.forgotten_until_ns, latest_start_ns)

    def add(self, trace_ids: Any, span_ids: Any, starts: Any) -> list[int]:
        """Remember spans, of 16, 8 and 8 bytes each; the positions of those added before."""
        traces, spans, start_times = bytes(trace_ids), bytes(span_ids), array("q", bytes(starts))
        seen = []
        for place, start_ns in enumerate(start_times):
            key = traces[16 * place : 16 * place + 16] + spans[8 * place : 8 * place + 8]
            if any(key in generation.keys for generation in self._generations):
                seen.append(place)
                continue
            if len(self._generations[-1].keys) == self._generations[-1].capacity:
                self._begin()
            self._generations[-1].keys.add(key)
            self._generations[-1].latest_start_ns = max(
                self._generations[-1].latest_start_ns, start_ns
            )
        return seen

    def _begin(self) -> None:
        capacity = min(2 * self._generations[-1].capacity, max(1, self._capacity // 4))
        while sum(len(kept.keys) for kept in self._generations[1:]) >= self._capacity:
            self.forget(self._generations.pop(0).latest_start_ns)
        self._generations.append(_Generation(capacity))


class TraceFilter:
    """Excludes no id: in Python, a filter would cost more than the scan that it saves."""

    def add(self, trace_ids: Any) -> None:
        """Add ids of 16 bytes each."""

    def may_hold(self, trace_id: Any) -> bool:
        """False would mean that this id was not added."""
        return True
