"""Counts of what a collector has done since it started, for `/metrics`."""

from __future__ import annotations

import threading
from dataclasses import dataclass, fields


@dataclass
class Counters:
    """Totals since the start of the process; `pending_bytes` goes up and down."""

    requests: int = 0
    requests_refused: int = 0
    spans_accepted: int = 0
    spans_rejected: int = 0
    spans_duplicate: int = 0
    commits: int = 0
    commit_failures: int = 0
    pending_bytes: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def add(self, **amounts: int) -> None:
        """Add to the named counters in one step."""
        with self._lock:
            for name, amount in amounts.items():
                setattr(self, name, getattr(self, name) + amount)

    def snapshot(self) -> dict[str, int]:
        """All counters, as of one moment."""
        with self._lock:
            return {field.name: getattr(self, field.name) for field in fields(self)}
