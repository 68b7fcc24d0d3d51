"""The buffer of the pure backend: holds finished spans, encodes them on the exporter's thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from infertrace.buffering.batch import Batch, halves
from infertrace.buffering.ledger import DROP_REASONS
from infertrace.limits import MAX_SPAN_BYTES

if TYPE_CHECKING:
    from infertrace.buffering.ledger import DropReason
    from infertrace.buffering.spool_writer import SpoolWriter

    class Span(Protocol):
        """What the buffer asks of a finished span."""

        _heavy: bool
        """Whether its size is not bounded: the buffer then measures it at once."""
        _invalid: int

        def _size(self) -> int: ...


# Upper bound on waiting for a lock whose owner may be suspended below us, for example because
# our finalizer interrupted it.
_PATIENCE_S = 0.1
# Wake the exporter after this many arrivals.
_WAKE_EVERY = 256
# Above this backlog of arrivals, producers admit spans themselves,
_MAX_BACKLOG = 4_096
# this many per call, to bound their latency.
_BACKLOG_STEP = 4
_HEAVY_STEP = 256
# Above this one, threads record faster than the owner of the lock counts: then they wait for the
# lock this long, which lets the owner go on, and bounds the memory.
_CROWD = 8 * _MAX_BACKLOG
_CROWD_PATIENCE_S = 0.001
# Arrivals admitted, and spans encoded, per step while spans wait: some 0.2 ms of the GIL together.
_ADMISSION_STEP = 32
_ENCODING_STEP = 16
# What a thread near its end of the stack or of the memory meets: another one encodes the span.
_NO_ROOM_TO_ENCODE = (RecursionError, MemoryError)


class Unencodable(int):
    """Stands for a span that cannot be sent; its value is the number of its invalid fields."""


class SpanBuffer:
    """Bounded by bytes; overflow drops the newest span and counts it.

    A producer never waits. It appends to `arrivals`, which is atomic, and goes on. The thread that
    gets the lock without waiting, usually the exporter's, admits the arrivals: measures, queues and
    counts them. A thread that does not get the lock leaves its span to the owner, so a signal
    handler or a finalizer that records in the middle of another `put` cannot deadlock, and the
    counters have one writer at a time. The requests of a shutdown (close, settle, discard) arrive
    in the same way, since a finalizer may make them. A producer admits spans of unbounded size, and
    a backlog of arrivals, itself, so that memory stays bounded while the exporter is held up.

    A span is held as an object, and counted as larger than its encoding, until the exporter
    takes it or, where it cannot deliver, encodes what waits. Where the exporter had no turn, a
    producer that finds the buffer full encodes the oldest, a few a call, before it drops its span.
    """

    def __init__(
        self, encode: Callable[[Any], bytes], *, max_buffer_bytes: int, max_batch_bytes: int
    ) -> None:
        self._encode = encode
        self._max_buffer_bytes = max_buffer_bytes
        self._max_batch_bytes = max_batch_bytes
        self.reset()

    def reset(self) -> None:
        """Forget everything, as a forked child must: its parent's spans are not its own."""
        self._lock = threading.Lock()
        self._owner = 0  # the id of the thread that holds it, or 0
        self._turns = 0  # how often it was taken
        self.arrivals: deque[Span | int | Callable[[], None]] = deque()
        """Spans that ended and are not counted yet; ending a span only appends to it."""
        # The older spans are encoded, several to a piece with their count; the newer are objects.
        self._pieces: deque[tuple[bytes, int]] = deque()
        self._spans: deque[tuple[int, Span]] = deque()
        self._spool: SpoolWriter | None = None
        self._spooled_sequence = 0
        self._held_bytes = 0  # queued and in flight
        self._queued_bytes = 0
        self._next_sequence = 1
        self._closed = False
        self.produced = 0
        self.delivered = 0
        self.pending = 0
        self.dropped = dict.fromkeys(DROP_REASONS, 0)
        self.invalid_fields = 0
        self._counts = self._count()

    def put(self, span: Span) -> bool:
        """Take a finished span; True when the exporter should come.

        A RecursionError means that there was no room on the stack to begin, and that the span
        was not taken.
        """
        arrivals = self.arrivals
        arrivals.append(span)
        waiting = len(arrivals)
        if self._spool is None and not span._heavy and waiting < _MAX_BACKLOG:
            return waiting % _WAKE_EVERY == 0
        try:
            if self._spool is not None:
                self._admit_in_turn()
            else:
                step = _HEAVY_STEP if span._heavy else _BACKLOG_STEP
                self._admit(step, _CROWD_PATIENCE_S if waiting > _CROWD else 0.0)
        except (RecursionError, MemoryError):
            return True
        return self._queued_bytes >= self._max_batch_bytes

    def put_encoded(self, record: bytes) -> bool:
        """Take a span that is encoded already, with its tag; True when the exporter should come."""
        self.arrivals.append(
            lambda: self._hold(self._refusal(len(record), record), len(record), record)
        )
        if self._spool is not None:
            self._admit_in_turn()
        else:
            self._admit(_HEAVY_STEP)
        return self._queued_bytes >= self._max_batch_bytes

    def count_late_fields(self, fields: int) -> None:
        """Count values that came for a span after its end."""
        self.arrivals.append(fields)
        self._admit()

    def count_unencodable(self, span: Span) -> None:
        """Count a finished span that cannot be sent, whatever it holds."""
        self.arrivals.append(Unencodable(span._invalid))
        self._admit()

    def take(self, partial: bool = True) -> Batch | None:
        """The oldest spans, encoded, at most `max_batch_bytes` (or one larger span).

        Without `partial`, None until they fill a batch.
        """
        while True:
            # Once it is closed, all that has come since is to be dropped, which nobody waits for.
            self._admit(_ADMISSION_STEP if self._closed else None)
            if not partial and self._queued_bytes < self._max_batch_bytes:
                return None
            batch = self._take_and_encode()
            if batch is None or batch.span_count:
                return batch

    def encode_some(self) -> bool:
        """Encode a few queued spans, on the exporter's thread; returns whether any are left."""
        self._admit(at_most=_ADMISSION_STEP)
        if not self._spans or not self._acquire(0):
            return False
        try:
            self._encode_step(_ENCODING_STEP)
        finally:
            self._release()
            # Threads that found the lock taken rely on us to admit their spans.
            self._admit(at_most=_ADMISSION_STEP)
        return bool(self._spans or self.arrivals)

    def settle(self, batch: Batch, delivered: int, reason: DropReason) -> None:
        """Close the account of a batch: `delivered` spans, the rest dropped for `reason`."""
        self.arrivals.append(lambda: self._settle(batch, delivered, reason))
        self._admit()

    def close(self) -> None:
        """From now on drop what comes, as `shutdown`; what is held can still be taken."""
        self.arrivals.append(self._close)
        self._admit()

    def discard(self) -> None:
        """Drop what is held, as `shutdown`."""
        self.arrivals.append(self._discard)
        self._admit()

    def counts(self) -> tuple[int, int, int, tuple[int, ...], int]:
        """Produced, delivered, pending, dropped (as `DROP_REASONS`), invalid fields; one moment."""
        if self._acquire_in_turn():
            try:
                self._count_in_arrivals(len(self.arrivals))
            finally:
                self._release()
            counts = self._counts
            self._admit()  # arrivals of threads that found the lock taken
            return counts
        return self._counts

    def _admit(self, at_most: int | None = None, patience_s: float = 0.0) -> None:
        """Count in what has arrived, unless another thread has the lock and does so.

        at_most: how many arrivals; by default those of now and some more, since threads that
            record faster than this one counts would hold it up for ever.
        patience_s: how long to wait for the lock, but not where this thread has it and was
            interrupted.
        """
        if patience_s and self._owner == threading.get_ident():
            return
        left = len(self.arrivals) + _MAX_BACKLOG if at_most is None else at_most
        # Checked again after the release: a thread that appended between our last check and
        # the release found the lock taken and relies on us.
        while self.arrivals and left > 0 and self._acquire(patience_s):
            try:
                left -= self._count_in_arrivals(left)
            finally:
                self._release()

    def _count_in_arrivals(self, at_most: int) -> int:
        """Count in the oldest arrivals; returns how many there were. The lock is held."""
        for done in range(at_most):
            if not self.arrivals:
                return done
            self._count_in_next()
        return at_most

    def _admit_in_turn(self) -> None:
        """Admit after waiting for the lock: an ended span must be in the spool.

        A thread that was interrupted with the lock in its hands admits these arrivals when it
        goes on. The owner of the lock only copies memory, so the wait is short.
        """
        if self._owner != threading.get_ident() and self._acquire(_PATIENCE_S):
            try:
                self._count_in_arrivals(len(self.arrivals))
            finally:
                self._release()
                self._admit()

    def _acquire(self, timeout_s: float) -> bool:
        if not self._lock.acquire(timeout=timeout_s):
            return False
        self._owner = threading.get_ident()
        self._turns += 1
        return True

    def _acquire_in_turn(self) -> bool:
        """Wait while owners change; give up on one that is held up, or that we interrupted."""
        turns = -1
        while self._turns != turns and self._owner != threading.get_ident():
            turns = self._turns
            if self._acquire(_PATIENCE_S):
                return True
        return False

    def _release(self) -> None:
        # A consistent snapshot for readers that cannot take the lock.
        self._counts = self._count()
        self._owner = 0
        self._lock.release()

    def _count(self) -> tuple[int, int, int, tuple[int, ...], int]:
        dropped = tuple(self.dropped.values())
        return self.produced, self.delivered, self.pending, dropped, self.invalid_fields

    def _count_in_next(self) -> None:
        arrival = self.arrivals.popleft()
        try:
            self._count_in(arrival)
        except (RecursionError, MemoryError):
            # Nothing is counted yet; the next thread, with more stack left, does it.
            self.arrivals.appendleft(arrival)
            raise

    def _count_in(self, arrival: Span | int | Callable[[], None]) -> None:
        if isinstance(arrival, int):
            if isinstance(arrival, Unencodable):
                self._drop("invalid")
                self.produced += 1
            self.invalid_fields += arrival
        elif callable(arrival):
            arrival()
        else:
            self._count_in_span(arrival)

    def _count_in_span(self, span: Span) -> None:
        if self._closed:
            self._hold("shutdown", 0, span)
            self.invalid_fields += span._invalid
            return
        # All calls that need a stack come before the first counter changes.
        encoded: bytes | None = None
        reason: DropReason | None = None
        size = 0
        try:
            if self._spool is None:
                size = span._size()
            else:
                encoded = self._encode(span)
                size = len(encoded)
        except (RecursionError, MemoryError):
            raise
        except Exception:  # drop this span; the thread that measures it is not to blame
            reason = "invalid"
        self._hold(reason or self._refusal(size, encoded), size, encoded or span)
        self.invalid_fields += span._invalid

    def _refusal(self, size: int, encoded: bytes | None) -> DropReason | None:
        """Why a span of this size cannot be held, or None; the spool, if there is one, has it."""
        if self._closed:
            return "shutdown"
        if size > MAX_SPAN_BYTES or size > self._max_buffer_bytes:
            return "oversize"
        if not self._make_room(size) or not self._keep(encoded):
            return "buffer_full"
        return None

    def _hold(self, refusal: DropReason | None, size: int, held: Span | bytes) -> None:
        self.produced += 1
        if refusal is not None:
            self._drop(refusal)
            return
        if isinstance(held, bytes):
            self._pieces.append((held, 1))
        else:
            self._spans.append((size, held))
        self._held_bytes += size
        self._queued_bytes += size
        self.pending += 1

    def _make_room(self, size: int) -> bool:
        """Whether this many bytes fit; older spans are encoded, and so shrink, to make room.

        The exporter encodes them in its pauses, but on a busy machine it may have had none.
        """
        while self._held_bytes + size > self._max_buffer_bytes and self._spans:
            self._encode_step(_BACKLOG_STEP, _NO_ROOM_TO_ENCODE)
        return self._held_bytes + size <= self._max_buffer_bytes

    def _keep(self, encoded: bytes | None) -> bool:
        """Whether the spool, if there is one, has the span now."""
        if self._spool is None or encoded is None:
            return True
        if not self._spool.append(encoded, self._spooled_sequence + 1):
            return False
        self._spooled_sequence += 1
        return True

    def _encode_step(self, at_most: int, passed_on: tuple[type[Exception], ...] = ()) -> None:
        """The oldest objects become one piece, which fits into a batch if it is of several.

        passed_on: errors that are the caller's, and not the span's; nothing has changed then.
        """
        records: list[bytes] = []
        unencodable = measured = size = 0
        for span_size, span in islice(self._spans, at_most):
            try:
                record = self._encode(span)
            except passed_on:
                raise
            except Exception:  # drop this span, not its neighbours
                unencodable += 1
            else:
                if records and size + len(record) > self._max_batch_bytes:
                    break
                records.append(record)
                size += len(record)
            measured += span_size
        for _ in range(len(records) + unencodable):
            self._spans.popleft()
        if records:
            self._pieces.append((b"".join(records), len(records)))
        self._queued_bytes += size - measured
        self._resize(size - measured, unencodable)

    def _drop(self, reason: DropReason, spans: int = 1) -> None:
        self.dropped[reason] += spans
        if self._spool is not None:
            self._spool.set_dropped(self.dropped.values())

    def attach(self, spool: SpoolWriter) -> None:
        """Keep in this spool what is held and what will be; from now on encode at once."""
        self.arrivals.append(lambda: self._attach(spool))
        self._admit()

    def _attach(self, spool: SpoolWriter) -> None:
        self._spool = spool
        self._spooled_sequence = self._next_sequence - 1
        pieces, self._pieces = self._pieces, deque()
        for piece, count in pieces:
            self._keep_piece(Batch(piece, count, 0))
        spans, self._spans = self._spans, deque()
        for size, span in spans:
            self._held_bytes -= size
            self._queued_bytes -= size
            try:
                record = self._encode(span)
            except Exception:
                self.pending -= 1
                self._drop("invalid")
                continue
            self._keep_piece(Batch(record, 1, 0))
            self._held_bytes += len(record)
            self._queued_bytes += len(record)

    def _keep_piece(self, piece: Batch) -> None:
        """Write to the spool too; its ring is larger than what the buffer may hold."""
        if piece.span_count > 1:
            for half in halves(piece):
                self._keep_piece(half)
            return
        self._keep(piece.payload)
        self._pieces.append((piece.payload, 1))

    def detach(self) -> None:
        """Leave the spool as it is."""
        self.arrivals.append(self._detach)
        self._admit()

    def _detach(self) -> None:
        spool, self._spool = self._spool, None
        if spool is not None:
            spool.close()

    def _settle(self, batch: Batch, delivered: int, reason: DropReason) -> None:
        self._held_bytes -= len(batch.payload)
        self.pending -= batch.span_count
        self.delivered += delivered
        self._drop(reason, batch.span_count - delivered)
        if self._spool is not None:
            self._spool.settle(batch.first_span_sequence + batch.span_count - 1)

    def _close(self) -> None:
        self._closed = True

    def _discard(self) -> None:
        left = len(self._spans) + sum(count for _, count in self._pieces)
        self._held_bytes -= self._queued_bytes
        self._spans.clear()
        self._pieces.clear()
        self._queued_bytes = 0
        self.pending -= left
        self._drop("shutdown", left)

    def _take_and_encode(self) -> Batch | None:
        # A finalizer that interrupted the owner of the lock may be waiting for the exporter.
        if not self._acquire(_PATIENCE_S):
            return None
        try:
            records: list[bytes] = []
            taken: list[Span] = []
            taken_bytes = encoded_count = 0
            while self._pieces and (
                not records or taken_bytes + len(self._pieces[0][0]) <= self._max_batch_bytes
            ):
                piece, count = self._pieces.popleft()
                taken_bytes += len(piece)
                encoded_count += count
                records.append(piece)
            while (
                not self._pieces
                and self._spans
                and (
                    not (records or taken)
                    or taken_bytes + self._spans[0][0] <= self._max_batch_bytes
                )
            ):
                size, span = self._spans.popleft()
                taken_bytes += size
                taken.append(span)
            self._queued_bytes -= taken_bytes
        finally:
            self._release()
        if not (records or taken):
            return None
        unencodable = 0
        for span in taken:
            try:
                records.append(self._encode(span))
            except Exception:  # drop this span, not its neighbours
                unencodable += 1
        payload = b"".join(records)
        self.arrivals.append(lambda: self._resize(len(payload) - taken_bytes, unencodable))
        self._admit(_ADMISSION_STEP if self._closed else None)
        first = self._next_sequence
        count = encoded_count + len(taken) - unencodable
        self._next_sequence += count
        return Batch(payload, count, first)

    def _resize(self, more_bytes: int, unencodable: int) -> None:
        self._held_bytes += more_bytes
        self.pending -= unencodable
        if unencodable:
            self._drop("invalid", unencodable)
