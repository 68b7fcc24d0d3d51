"""Filters of ids, in Python."""

from __future__ import annotations

from typing import Any


class DuplicateFilter:
    """Remembers the last `capacity` to twice as many spans, in two sets that take turns."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._newer: set[bytes] = set()
        self._older: set[bytes] = set()

    def add(self, trace_ids: Any, span_ids: Any) -> list[int]:
        """Remember spans, of 16 and 8 bytes each; returns the positions of those added before."""
        traces, spans = bytes(trace_ids), bytes(span_ids)
        seen = []
        for place in range(len(spans) // 8):
            key = traces[16 * place : 16 * place + 16] + spans[8 * place : 8 * place + 8]
            if key in self._newer or key in self._older:
                seen.append(place)
                continue
            if len(self._newer) == self._capacity:
                self._newer, self._older = set(), self._newer
            self._newer.add(key)
        return seen


class TraceFilter:
    """Excludes no id: in Python, a filter would cost more than the scan that it saves."""

    def add(self, trace_ids: Any) -> None:
        """Add ids of 16 bytes each."""

    def may_hold(self, trace_id: Any) -> bool:
        """False would mean that this id was not added."""
        return True
