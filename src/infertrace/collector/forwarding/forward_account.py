"""What became of the spans that were to go to one target."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

ForwardDropReason = Literal["buffer_full", "rejected", "shutdown", "not_in_share"]
REASONS: Final[tuple[ForwardDropReason, ...]] = (
    "buffer_full",
    "rejected",
    "shutdown",
    "not_in_share",
)
"""Why a span was not delivered.

`buffer_full`: too much waited for the target. `rejected`: the target refused it for good.
`shutdown`: the collector ended first. `not_in_share`: its trace is not one of the share.
"""


class ForwardCounts(NamedTuple):
    """Spans since the start: received = delivered + pending + the sum of dropped."""

    received: int
    delivered: int
    pending: int
    dropped: Mapping[ForwardDropReason, int]
    """By reason; only reasons that occurred."""


class ForwardAccount:
    """For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._received = self._delivered = 0
        self._dropped: Counter[ForwardDropReason] = Counter()

    def receive(self, count: int, drop_as: ForwardDropReason | None = None) -> None:
        """Count spans that came, and dropped at once where there is a reason."""
        with self._lock:
            self._received += count
            if drop_as is not None:
                self._dropped[drop_as] += count

    def settle(self, delivered: int, dropped: int, reason: ForwardDropReason) -> None:
        """Count what became of spans that came before."""
        with self._lock:
            self._delivered += delivered
            if dropped:
                self._dropped[reason] += dropped

    def counts(self) -> ForwardCounts:
        """All of them, as of one moment."""
        with self._lock:
            dropped = {reason: n for reason in REASONS if (n := self._dropped[reason])}
            pending = self._received - self._delivered - sum(dropped.values())
            return ForwardCounts(self._received, self._delivered, pending, dropped)
