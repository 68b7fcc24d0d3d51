"""The ledger: `produced = delivered + pending + sum of dropped`, exact, always."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final, Literal, TypedDict

    DropReason = Literal["buffer_full", "oversize", "invalid", "rejected", "shutdown"]

    class Ledger(TypedDict):
        """What became of the spans of one tracer in this process; counts since it started."""

        produced: int
        """Recorded spans that ended."""
        delivered: int
        """Acknowledged by the collector as durable (or as already stored)."""
        pending: int
        """In the buffer, in flight, or handed over."""
        handed_over: int
        """Of those that are pending: what the sender has taken over at the end of the process."""
        dropped: dict[DropReason, int]
        """By reason; only reasons that occurred."""
        invalid_fields: int
        """Values that were left out or clamped on otherwise recorded spans."""
        thread_failures: int
        """Unforeseen errors of infertrace that its background threads survived."""


DROP_REASONS: Final[tuple[DropReason, ...]] = (
    "buffer_full",
    "oversize",
    "invalid",
    "rejected",
    "shutdown",
)
"""Why a finished span was not delivered, in the order of both backends' counters.

`buffer_full`: the buffer had no room when it ended (the newest goes, not the oldest).
`oversize`: its encoding is larger than `MAX_SPAN_BYTES` or than the whole buffer.
`invalid`: it could not be encoded.
`rejected`: the collector refused it for good.
`shutdown`: the tracer was shut down before it could be delivered, or had been already.
"""


def dropped_by_reason(counts: Iterable[int]) -> dict[DropReason, int]:
    """A recorder's counts, in the order of `DROP_REASONS`, as `Ledger.dropped` has them."""
    by_reason = zip(DROP_REASONS, counts, strict=True)
    return {reason: count for reason, count in by_reason if count}
