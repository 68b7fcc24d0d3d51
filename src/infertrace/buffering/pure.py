"""The buffer of the pure backend: holds finished spans, encodes them when they are taken."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from infertrace.buffering.batch import Batch
from infertrace.buffering.ledger import DROP_REASONS
from infertrace.recording.limits import MAX_SPAN_BYTES

if TYPE_CHECKING:
    from infertrace.buffering.ledger import DropReason
    from infertrace.recording.pure import Span

# Longest wait for a lock that nobody may be about to release.
_PATIENCE_S = 0.1
# Arrivals at which the exporter is called; at which producers begin to move them in
# themselves; and how many each then moves, so that none is held up for long.
_WAKE_EVERY = 256
_MAX_BACKLOG = 4_096
_BACKLOG_STEP = 4


class Unencodable(int):
    """Stands for a span that cannot be sent; its value is the number of its invalid fields."""


class SpanBuffer:
    """Bounded by bytes; overflow drops the newest span and counts it.

    A producer never waits. It appends to `_arrivals` (atomic) and goes on; whoever
    gets the lock without waiting for it, usually the exporter, measures the arrivals,
    moves them in and counts them. Who does not get it leaves its span to the one who
    has it, so a signal handler or a finalizer that records in the middle of another
    `put` cannot deadlock, and the counters have one writer at a time. What a finalizer
    may ask for by a shutdown (to close, to settle, to discard) arrives in the same way.
    Spans of unknown size, and a backlog of arrivals, are moved in by the producer itself,
    so that memory stays bounded while the exporter is held up.
    """

    def __init__(
        self, encode: Callable[[Span], bytes], *, max_buffer_bytes: int, max_batch_bytes: int
    ) -> None:
        self._encode = encode
        self._max_buffer_bytes = max_buffer_bytes
        self._max_batch_bytes = max_batch_bytes
        self.reset()

    def reset(self) -> None:
        """Forget everything, as a forked child must: its parent's spans are not its own."""
        self._lock = threading.Lock()
        self._arrivals: deque[Span | int | Callable[[], None]] = deque()
        self._spans: deque[tuple[int, Span]] = deque()
        self._held_bytes = 0  # queued and in flight
        self._queued_bytes = 0
        self._next_sequence = 1
        self._closed = False
        self.produced = 0
        self.delivered = 0
        self.pending = 0
        self.dropped = dict.fromkeys(DROP_REASONS, 0)
        self.invalid_fields = 0

    def put(self, span: Span) -> bool:
        """Take a finished span; True when the exporter should come."""
        arrivals = self._arrivals
        arrivals.append(span)
        waiting = len(arrivals)
        if span._heavy or waiting >= _MAX_BACKLOG:
            self._admit(at_most=waiting if span._heavy else _BACKLOG_STEP)
            return self._queued_bytes >= self._max_batch_bytes
        return waiting % _WAKE_EVERY == 0

    def count_late_fields(self, fields: int) -> None:
        """Count values that came for a span after its end."""
        self._arrivals.append(fields)
        self._admit()

    def count_unencodable(self, span: Span) -> None:
        """Count a finished span that cannot be sent, whatever it holds."""
        self._arrivals.append(Unencodable(span._invalid))
        self._admit()

    def take(self, partial: bool = True) -> Batch | None:
        """The oldest spans, encoded, at most `max_batch_bytes` (or one larger span).

        Without `partial`, None where what there is does not fill a batch yet.
        """
        while True:
            self._admit()
            if not partial and self._queued_bytes < self._max_batch_bytes:
                return None
            batch = self._take_and_encode()
            if batch is None or batch.span_count:
                return batch

    def settle(self, batch: Batch, delivered: int, reason: DropReason) -> None:
        """Close the account of a batch: so many spans delivered, the rest dropped for `reason`."""
        self._arrivals.append(lambda: self._settle(batch, delivered, reason))
        self._admit()

    def close(self) -> None:
        """From now on drop what comes, as `shutdown`; what is held can still be taken."""
        self._arrivals.append(self._close)
        self._admit()

    def discard(self) -> None:
        """Drop what is held, as `shutdown`."""
        self._arrivals.append(self._discard)
        self._admit()

    def counts(self) -> tuple[int, int, int, tuple[int, ...], int]:
        """Produced, delivered, pending, dropped (as `DROP_REASONS`), invalid fields; one moment."""
        # A signal handler may ask when it interrupted whoever holds the lock.
        locked = self._lock.acquire(timeout=_PATIENCE_S)
        try:
            while locked and self._arrivals:
                self._count_in(self._arrivals.popleft())
            return (
                self.produced,
                self.delivered,
                self.pending,
                tuple(self.dropped.values()),
                self.invalid_fields,
            )
        finally:
            if locked:
                self._lock.release()
                self._admit()  # what came since the last look, and relies on us

    def _admit(self, at_most: int = sys.maxsize) -> None:
        # Asked again after the release: an arrival between the last look and the
        # release found the lock taken and relies on us.
        while self._arrivals and at_most > 0 and self._lock.acquire(blocking=False):
            try:
                while self._arrivals and at_most > 0:
                    self._count_in(self._arrivals.popleft())
                    at_most -= 1
            finally:
                self._lock.release()

    def _count_in(self, arrival: Span | int | Callable[[], None]) -> None:
        if isinstance(arrival, int):
            self.invalid_fields += arrival
            if isinstance(arrival, Unencodable):
                self.produced += 1
                self.dropped["invalid"] += 1
        elif callable(arrival):
            arrival()
        else:
            self._count_in_span(arrival)

    def _count_in_span(self, span: Span) -> None:
        self.produced += 1
        self.invalid_fields += span._invalid
        try:
            size = span._size()
        except Exception:  # this span, and not the one who happened to measure it
            self.dropped["invalid"] += 1
            return
        if self._closed:
            self.dropped["shutdown"] += 1
        elif size > MAX_SPAN_BYTES or size > self._max_buffer_bytes:
            self.dropped["oversize"] += 1
        elif self._held_bytes + size > self._max_buffer_bytes:
            self.dropped["buffer_full"] += 1
        else:
            self._held_bytes += size
            self._queued_bytes += size
            self.pending += 1
            self._spans.append((size, span))

    def _settle(self, batch: Batch, delivered: int, reason: DropReason) -> None:
        self._held_bytes -= len(batch.payload)
        self.pending -= batch.span_count
        self.delivered += delivered
        self.dropped[reason] += batch.span_count - delivered

    def _close(self) -> None:
        self._closed = True

    def _discard(self) -> None:
        left = len(self._spans)
        self._held_bytes -= sum(size for size, _ in self._spans)
        self._spans.clear()
        self._queued_bytes = 0
        self.pending -= left
        self.dropped["shutdown"] += left

    def _take_and_encode(self) -> Batch | None:
        # A finalizer that interrupted whoever holds the lock may wait for the exporter.
        if not self._lock.acquire(timeout=_PATIENCE_S):
            return None
        try:
            taken: list[Span] = []
            taken_bytes = 0
            while self._spans and (
                not taken or taken_bytes + self._spans[0][0] <= self._max_batch_bytes
            ):
                size, span = self._spans.popleft()
                taken_bytes += size
                taken.append(span)
            self._queued_bytes -= taken_bytes
        finally:
            self._lock.release()
        if not taken:
            return None
        records = []
        for span in taken:
            try:
                records.append(self._encode(span))
            except Exception:  # one span, not its neighbours
                continue
        payload = b"".join(records)
        unencodable = len(taken) - len(records)
        self._arrivals.append(lambda: self._resize(len(payload) - taken_bytes, unencodable))
        self._admit()
        first = self._next_sequence
        self._next_sequence += len(records)
        return Batch(payload, len(records), first)

    def _resize(self, more_bytes: int, unencodable: int) -> None:
        self._held_bytes += more_bytes
        self.pending -= unencodable
        self.dropped["invalid"] += unencodable
