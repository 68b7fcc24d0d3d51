"""What a dead process left: spans that ended in it and were not settled, wherever they lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from infertrace.buffering.ledger import DropReason


class Record(NamedTuple):
    """A span that was not settled."""

    sequence: int
    span: bytes
    """As it is sent: one entry of `SendSpanBatchRequest.spans`."""


class DamagedSpansError(Exception):
    """Nothing can be read: this is no such memory, or it is one of another version."""


class LeftSpans(Protocol):
    """A memory or a file that held the spans of one producer."""

    name: str
    """For messages."""
    producer_id: bytes
    resource: bytes
    """The encoded field `SendSpanBatchRequest.resource`."""
    batch_sequence: int
    """The number of the last batch."""
    settled_sequence: int
    """The number of the last span that was settled."""
    last_sequence: int
    """The number of the last span; known once all records are read."""
    dropped: Mapping[DropReason, int]
    damaged: int = 0
    """Spans that had ended, and that are neither settled nor here, beside those whose number is
    missing."""
    numbers_follow: bool = True
    """Whether a number without a span, behind the last one settled, is that of a damaged one."""

    @property
    def produced(self) -> int:
        """Spans that ended in the process that is gone."""

    def records(self) -> Iterator[Record]:
        """The spans that were not settled, in order; skips what is torn or damaged."""

    def settle(self, sequence: int, batch_sequence: int, rejected: int = 0) -> None:
        """Store that the spans up to this one are settled.

        rejected: how many the collector has refused, of those that were left.
        """

    def remove(self) -> None:
        """Called when all of it is settled."""

    def close(self) -> None: ...
