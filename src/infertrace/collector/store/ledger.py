"""The account of one producer: how many of its spans are stored, lost or still to come.

A sender of OTLP numbers no spans, so its account says what came and what became of that; whether
something is missing cannot be known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from infertrace.collector.store.timestamps import NANOS_PER_SECOND

MAX_PRODUCERS = 10_000  # accounts that a store keeps: those of the producers seen last
MAX_INTERVALS = 1_000  # of received sequence numbers, for one producer
MAX_DROP_REASONS = 32  # for one producer; as many of rejections
MAX_NAME_CHARACTERS = 256  # of a service name or a drop reason
SILENT_AFTER_S = 60  # without a batch, a producer that has not finished counts as silent

Interval = tuple[int, int]
"""First and last sequence number, both included."""


@dataclass(frozen=True)
class ProducerReport:
    """What a batch reports of its producer; the counters are cumulative, as of its making."""

    producer_id: bytes
    service_name: str
    first_span_sequence: int
    produced: int
    dropped: Mapping[str, int]
    final: bool


@dataclass(frozen=True)
class SenderReport:
    """What a request holds of one sender that does not number its spans.

    `sender_id` has 16 bytes. `span_count` counts the spans as received, `rejected` those of them
    that cannot be stored, by reason.
    """

    sender_id: bytes
    service_name: str
    span_count: int
    rejected: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Producer:
    """One producer's account, in spans; times are nanoseconds since 1970, by this machine.

    `rejected_reasons` splits `rejected`, for a sender that is not `numbered`; `produced`,
    `dropped`, `gaps` and `finished` say nothing about such a one.
    """

    producer_id: bytes
    first_seen_ns: int
    last_seen_ns: int
    service_name: str = ""
    produced: int = 0
    stored: int = 0
    rejected: int = 0
    duplicates: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    received: tuple[Interval, ...] = ()
    finished: bool = False
    numbered: bool = True
    rejected_reasons: Mapping[str, int] = field(default_factory=dict)

    def after(
        self,
        report: ProducerReport,
        *,
        span_count: int,
        rejected_positions: Sequence[int],
        duplicates: int,
        now_ns: int,
    ) -> Producer:
        """The account after one more batch of `span_count` spans is durable.

        A batch that is sent again, in full or in part, counts by its sequence numbers, so once.
        `duplicates` is the number of its valid spans that were stored before.
        """
        received = self.received
        stored = span_count - len(rejected_positions) - duplicates
        rejected = len(rejected_positions)
        if span_count and report.first_span_sequence:
            first = report.first_span_sequence
            last = first + span_count - 1
            rejected = sum(
                not _contains(received, first + position) for position in rejected_positions
            )
            stored = _missing(received, (first, last)) - rejected
            received = _with(received, (first, last))
        return replace(
            self,
            last_seen_ns=now_ns,
            service_name=report.service_name[:MAX_NAME_CHARACTERS] or self.service_name,
            # A retry carries older counters than a batch that overtook it.
            produced=max(self.produced, report.produced, received[-1][1] if received else 0),
            stored=self.stored + stored,
            rejected=self.rejected + rejected,
            duplicates=self.duplicates + duplicates,
            dropped=_maximum(self.dropped, report.dropped),
            received=received,
            finished=self.finished or report.final,
        )

    def after_unnumbered(self, report: SenderReport, *, duplicates: int, now_ns: int) -> Producer:
        """The account after one more request with spans of this sender is durable.

        `duplicates` is the number of its valid spans that were stored before. Spans that are
        rejected again count again: nothing tells them from new ones.
        """
        rejected = sum(report.rejected.values())
        return replace(
            self,
            last_seen_ns=now_ns,
            service_name=report.service_name[:MAX_NAME_CHARACTERS] or self.service_name,
            stored=self.stored + report.span_count - rejected - duplicates,
            rejected=self.rejected + rejected,
            duplicates=self.duplicates + duplicates,
            numbered=False,
            rejected_reasons=_sum(self.rejected_reasons, report.rejected),
        )

    @property
    def received_count(self) -> int:
        """Spans that arrived, each as often as it did."""
        return self.stored + self.rejected + self.duplicates

    def has_received(self, first: int, span_count: int) -> bool:
        """Whether any of `span_count` spans numbered from `first` on has been received."""
        wanted = (first, first + span_count - 1)
        return _missing(self.received, wanted) < span_count

    @property
    def lost(self) -> int:
        """Spans that will never arrive: dropped by the producer or rejected here.

        The producer counts a rejection as a drop once it gets the answer; the larger of the two
        numbers is up to date.
        """
        by_producer = sum(count for reason, count in self.dropped.items() if reason != "rejected")
        return by_producer + max(self.rejected, self.dropped.get("rejected", 0))

    @property
    def pending(self) -> int:
        """Spans that the producer had not delivered as of its last report."""
        return max(0, self.produced - self.stored - self.lost)

    @property
    def completeness(self) -> float:
        """The share of the produced spans that is stored, 0 to 1; 1 when none was produced."""
        return min(1.0, self.stored / self.produced) if self.produced else 1.0

    @property
    def complete(self) -> bool:
        """Whether the producer has finished and every span that it produced is stored."""
        return self.finished and self.stored >= self.produced

    def state(self, now_ns: int) -> Literal["active", "finished", "silent"]:
        """Whether to expect further batches; `now_ns` is nanoseconds since 1970."""
        if self.finished:
            return "finished"
        silent = now_ns - self.last_seen_ns > SILENT_AFTER_S * NANOS_PER_SECOND
        return "silent" if silent else "active"

    @property
    def gaps(self) -> list[Interval]:
        """Sequence numbers that have not been received although later ones have."""
        gaps = []
        expected = 1
        for first, last in self.received:
            if first > expected:
                gaps.append((expected, first - 1))
            expected = last + 1
        return gaps


def _contains(intervals: Sequence[Interval], number: int) -> bool:
    return any(first <= number <= last for first, last in intervals)


def _missing(intervals: Sequence[Interval], wanted: Interval) -> int:
    """How many numbers of `wanted` no interval holds."""
    overlap = sum(
        max(0, min(last, wanted[1]) - max(first, wanted[0]) + 1) for first, last in intervals
    )
    return wanted[1] - wanted[0] + 1 - overlap


def _with(intervals: Sequence[Interval], added: Interval) -> tuple[Interval, ...]:
    merged: list[Interval] = []
    for first, last in sorted((*intervals, added)):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    while len(merged) > MAX_INTERVALS:
        # Closing the oldest gap understates what is stored if it is filled after all, which is
        # the safe side; it never overstates.
        merged[:2] = [(merged[0][0], merged[1][1])]
    return tuple(merged)


def _maximum(known: Mapping[str, int], reported: Mapping[str, int]) -> dict[str, int]:
    return _merged(known, reported, max)


def _sum(known: Mapping[str, int], added: Mapping[str, int]) -> dict[str, int]:
    return _merged(known, added, int.__add__)


def _merged(
    known: Mapping[str, int], reported: Mapping[str, int], join: Callable[[int, int], int]
) -> dict[str, int]:
    counts = dict(known)
    for reason, count in sorted(reported.items()):
        name = reason[:MAX_NAME_CHARACTERS]
        if name in counts or len(counts) < MAX_DROP_REASONS:
            counts[name] = join(counts.get(name, 0), count)
    return counts
