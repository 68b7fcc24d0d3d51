"""The buffer of the pure backend: holds finished spans, packs or encodes them on the exporter's
thread."""

from __future__ import annotations

import threading
from collections import deque
from itertools import islice, repeat, starmap

from infertrace.buffering.batch import Batch, PackedBatch, halves
from infertrace.buffering.ledger import DROP_REASONS
from infertrace.limits import MAX_SPAN_BYTES
from infertrace.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Protocol

    from infertrace.buffering.ledger import DropReason
    from infertrace.buffering.spool_writer import SpoolWriter

    class Span(Protocol):
        """What the buffer asks of a finished span."""

        _heavy: bool
        """Whether its size is not bounded: the buffer then measures it at once."""
        _invalid: int

        def _size(self) -> int: ...

    class Run(Protocol):
        """Spans of bounded size, packed."""

        @property
        def packed(self) -> bytes: ...
        @property
        def span_count(self) -> int: ...
        @property
        def encoded_bytes(self) -> int: ...
        @property
        def invalid_fields(self) -> int: ...

    class Packer(Protocol):
        """See `recording/packing.py`."""

        def count_light(self, ended: Sequence[Any]) -> int: ...
        def pack_light(self, spans: list[Any], max_encoded_bytes: int) -> Run | None: ...
        def pack(self, spans: list[Any]) -> bytes | None: ...
        def encode(self, packed: bytes) -> tuple[bytes, int]: ...
else:
    Protocol = object


# Upper bound on waiting for a lock whose owner may be suspended below us, for example because
# our finalizer interrupted it.
_PATIENCE_S = 0.1
# Wake the exporter after this many arrivals. To pack so many takes the GIL for some 2 ms; but what
# a loop of short steps sees is how often it has to hand over the GIL: with 64, its 99th percentile
# went up by half, and the 99.9th was no lower.
_WAKE_EVERY = 256
_WAKE_TO_PACK_EVERY = 2_048
# Above this backlog of arrivals, producers admit spans themselves,
_MAX_BACKLOG = 4_096
# this many per call, to bound their latency.
_BACKLOG_STEP = 4
_PACKING_BACKLOG_STEP = 32
_HEAVY_STEP = 256
# Above this one, threads record faster than the owner of the lock counts: then they wait for the
# lock this long, which lets the owner go on, and bounds the memory.
_CROWD = 8 * _MAX_BACKLOG
_CROWD_PATIENCE_S = 0.001
# Arrivals admitted, and spans encoded, per step while spans wait: some 0.2 ms of the GIL together.
_ADMISSION_STEP = 32
_ENCODING_STEP = 16
# Spans that are packed in one go, at least and at most.
_MIN_RUN = 8
_MAX_RUN = 4_096
# What one of these counts for the size of a batch, at least.
_LEAST_BYTES = 192
# With less room than that, the buffer is full for those that come in a run.
_LEAST_ROOM_BYTES = 1024
# What a thread near its end of the stack or of the memory meets: another one encodes the span.
_NO_ROOM_TO_ENCODE = (RecursionError, MemoryError)


class Unencodable(int):
    """Stands for a span that cannot be sent; its value is the number of its invalid fields."""


class _Piece(NamedTuple):
    """Spans that are objects no longer."""

    content: bytes
    span_count: int
    encoded_bytes: int
    """At most; what counts for the size of a batch."""
    is_packed: bool = False


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

    Where somebody else encodes (`pack`), spans are packed in place of all that; those of bounded
    size as they are admitted, without a look at each.
    """

    def __init__(
        self,
        encode: Callable[[Any], bytes],
        packer: Packer | None = None,
        *,
        max_buffer_bytes: int,
        max_batch_bytes: int,
    ) -> None:
        self._encode = encode
        self._packer = packer
        self.pack(False)
        self._max_run = max(min(_MAX_RUN, max_batch_bytes // _LEAST_BYTES), _MIN_RUN)
        self._run_limit = self._max_run
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
        self._pieces: deque[_Piece] = deque()
        self._spans: deque[tuple[int, Span]] = deque()
        self._use_spool(None)
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

    def _use_spool(self, spool: SpoolWriter | None) -> None:
        self._spool = spool
        # With so many arrivals, producers count in what they add.
        self._calm_below = _MAX_BACKLOG if spool is None else 0

    def pack(self, wanted: bool) -> None:
        """From now on give batches of packed spans, or of encoded ones; not beside a spool."""
        self._packing = self._packer if wanted else None
        if self._packing is None:
            self._wake_every, self._backlog_step = _WAKE_EVERY, _BACKLOG_STEP
        else:
            self._wake_every, self._backlog_step = _WAKE_TO_PACK_EVERY, _PACKING_BACKLOG_STEP

    @property
    def is_packing(self) -> bool:
        return self._packing is not None

    def put(self, span: Span) -> bool:
        """Take a finished span; True when the exporter should come.

        A RecursionError means that there was no room on the stack to begin, and that the span
        was not taken.
        """
        arrivals = self.arrivals
        arrivals.append(span)
        waiting = len(arrivals)
        if waiting < self._calm_below and not span._heavy:
            return waiting % self._wake_every == 0
        try:
            if self._spool is not None:
                self._admit_in_turn()
            else:
                step = _HEAVY_STEP if span._heavy else self._backlog_step
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
        """Encode a few queued spans, on the exporter's thread; returns whether any are left.

        To pack many takes no longer, and is done in place of it.
        """
        packs = self._packing is not None
        self._admit(at_most=_MAX_RUN if packs else _ADMISSION_STEP)
        if not self._spans or not self._acquire(0):
            return False
        try:
            self._encode_step(_HEAVY_STEP if packs else _ENCODING_STEP)
        finally:
            self._release()
            # Threads that found the lock taken rely on us to admit their spans.
            self._admit(at_most=_ADMISSION_STEP)
        return bool(self._spans or self.arrivals)

    def pack_crowd(self) -> bool:
        """Pack what has arrived, where that is much; returns whether it was."""
        is_crowd = len(self.arrivals) >= self._wake_every
        if is_crowd:
            self.encode_some()
        return is_crowd

    def settle(self, batch: Batch, delivered: int, reason: DropReason) -> None:
        """Close the account of a batch: `delivered` spans, the rest dropped for `reason`."""
        if not self._acquire(0):
            self.arrivals.append(lambda: self._settle(batch, delivered, reason))
            self._admit()
            return
        # At once: what has arrived can wait until the exporter takes it.
        try:
            self._settle(batch, delivered, reason)
        finally:
            self._release()
            self._admit(_ADMISSION_STEP)

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
        done = 0
        next_run = 0
        while self.arrivals and done < at_most:
            if done >= next_run and (run := self._count_in_run(at_most - done)):
                done += run
                next_run = done
                continue
            if done >= next_run:
                next_run = done + _MIN_RUN
            self._count_in_next()
            done += 1
        return done

    def _count_in_run(self, at_most: int) -> int:
        """Pack and count in the oldest arrivals as far as they are spans of bounded size.

        Returns how many these were; 0 where each has to be looked at.
        """
        packer = self._packing
        if packer is None or self._closed or min(len(self.arrivals), at_most) < _MIN_RUN:
            return 0
        try:
            spans: list[Any] = list(islice(self.arrivals, min(at_most, self._run_limit)))
        except RuntimeError:  # a finalizer has ended a span meanwhile
            return 0
        del spans[packer.count_light(spans) :]
        if len(spans) < _MIN_RUN:
            return 0
        if self._spans:  # these ended before
            self._encode_step(_HEAVY_STEP, _NO_ROOM_TO_ENCODE)
            if self._spans:
                return 0
        room = self._max_buffer_bytes - self._held_bytes
        if room < _LEAST_ROOM_BYTES:
            return self._refuse_run(spans)
        run = packer.pack_light(spans, self._max_batch_bytes)
        if run is None or run.encoded_bytes > self._max_buffer_bytes:
            return 0
        # Not thousands, over and over, where only a few of them fit into a batch.
        limit = self._run_limit if run.span_count == len(spans) else run.span_count
        self._run_limit = min(max(2 * limit, _MIN_RUN), self._max_run)
        if len(run.packed) > room:
            fitting = run.span_count * (room - _LEAST_ROOM_BYTES // 2) // len(run.packed)
            run = packer.pack_light(spans[:fitting], self._max_batch_bytes) if fitting else None
            if run is None or len(run.packed) > room:
                return self._refuse_run(spans)
        # Before any of them is popped: there may be no memory for it.
        piece = _Piece(run.packed, run.span_count, run.encoded_bytes, True)
        self._pop_run(run.span_count, run.invalid_fields)
        self._pieces.append(piece)
        self._held_bytes += len(run.packed)
        self._queued_bytes += len(run.packed)
        self.pending += run.span_count
        return run.span_count

    def _refuse_run(self, spans: list[Span]) -> int:
        self._pop_run(len(spans), sum(span._invalid for span in spans))
        self._drop("buffer_full", len(spans))
        return len(spans)

    def _pop_run(self, spans: int, invalid_fields: int) -> None:
        # Without a step in between at which a signal handler could raise.
        list(starmap(self.arrivals.popleft, repeat((), spans)))
        self.produced += spans
        self.invalid_fields += invalid_fields

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
            self._pieces.append(_Piece(held, 1, size))
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
            self._encode_step(self._backlog_step, _NO_ROOM_TO_ENCODE)
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
        if self._packing is not None and self._pack_step(self._packing, at_most, passed_on):
            return
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
            self._pieces.append(_Piece(b"".join(records), len(records), size))
        self._queued_bytes += size - measured
        self._resize(size - measured, unencodable)

    def _pack_step(
        self, packer: Packer, at_most: int, passed_on: tuple[type[Exception], ...]
    ) -> bool:
        """The same, packed; False where they cannot be."""
        spans: list[Span] = []
        measured = 0
        for size, span in islice(self._spans, at_most):
            if spans and measured + size > self._max_batch_bytes:
                break
            spans.append(span)
            measured += size
        try:
            packed = packer.pack(spans)
        except passed_on:
            raise
        except Exception:
            return False
        if packed is None or len(packed) > measured:
            return False
        list(starmap(self._spans.popleft, repeat((), len(spans))))
        self._pieces.append(_Piece(packed, len(spans), measured, True))
        self._queued_bytes += len(packed) - measured
        self._held_bytes += len(packed) - measured
        return True

    def _drop(self, reason: DropReason, spans: int = 1) -> None:
        self.dropped[reason] += spans
        if self._spool is not None:
            self._spool.set_dropped(self.dropped.values())

    def attach(self, spool: SpoolWriter) -> None:
        """Keep in this spool what is held and what will be; from now on encode at once."""
        self.arrivals.append(lambda: self._attach(spool))
        self._admit()

    def _attach(self, spool: SpoolWriter) -> None:
        self._use_spool(spool)
        self._spooled_sequence = self._next_sequence - 1
        self.pack(False)
        pieces, self._pieces = self._pieces, deque()
        for piece in pieces:
            content = piece.content
            if piece.is_packed:
                batch = PackedBatch(content, piece.span_count, 0)
                content, span_count, _ = encoded = self.encode(batch)
                self._queued_bytes += len(content) - len(piece.content)
                self._replace(batch, encoded)
            else:
                span_count = piece.span_count
            if span_count:
                self._keep_piece(Batch(content, span_count, 0))
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
        self._pieces.append(_Piece(piece.payload, 1, len(piece.payload)))

    def detach(self) -> None:
        """Leave the spool as it is."""
        self.arrivals.append(self._detach)
        self._admit()

    def _detach(self) -> None:
        spool = self._spool
        self._use_spool(None)
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
        left = len(self._spans) + sum(piece.span_count for piece in self._pieces)
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
            if self._packing is not None:
                self._pack_for_batch()
            pieces = self._take_pieces()
            taken_bytes = sum(len(piece.content) for piece in pieces)
            taken: list[Span] = []
            while (
                not self._pieces
                and self._spans
                and not (pieces and pieces[0].is_packed)
                and (
                    not (pieces or taken)
                    or taken_bytes + self._spans[0][0] <= self._max_batch_bytes
                )
            ):
                size, span = self._spans.popleft()
                taken_bytes += size
                taken.append(span)
            self._queued_bytes -= taken_bytes
        finally:
            self._release()
        if not (pieces or taken):
            return None
        records = [piece.content for piece in pieces]
        unencodable = 0
        for span in taken:
            try:
                records.append(self._encode(span))
            except Exception:  # drop this span, not its neighbours
                unencodable += 1
        payload = b"".join(records)
        if taken:
            self.arrivals.append(lambda: self._resize(len(payload) - taken_bytes, unencodable))
        self._admit(_ADMISSION_STEP if self._closed else None)
        first = self._next_sequence
        count = sum(piece.span_count for piece in pieces) + len(taken) - unencodable
        self._next_sequence += count
        kind = PackedBatch if pieces and pieces[0].is_packed else Batch
        return kind(payload, count, first)

    def _pack_for_batch(self) -> None:
        """Pack objects until there are enough for a batch."""
        ready = sum(piece.encoded_bytes for piece in self._pieces)
        while self._spans and ready < self._max_batch_bytes:
            self._encode_step(_HEAVY_STEP)
            if not self._pieces:  # all of these were dropped
                continue
            ready += self._pieces[-1].encoded_bytes

    def _take_pieces(self) -> list[_Piece]:
        """The oldest, as many as fit into a batch and are of one kind."""
        taken: list[_Piece] = []
        room = self._max_batch_bytes
        while self._pieces:
            piece = self._pieces[0]
            if taken and (piece.encoded_bytes > room or piece.is_packed != taken[0].is_packed):
                break
            taken.append(self._pieces.popleft())
            room -= piece.encoded_bytes
        return taken

    def encode(self, batch: PackedBatch) -> Batch:
        """The same, encoded; without spans that cannot be. To be told of by `replace`."""
        if self._packer is None:
            raise TypeError("this buffer packs nothing")
        payload, span_count = self._packer.encode(batch.payload)
        return Batch(payload, span_count, batch.first_span_sequence)

    def replace(self, batch: PackedBatch, encoded: Batch) -> None:
        """From now on a batch that was taken is this one, as `encode` gave it."""
        self.arrivals.append(lambda: self._replace(batch, encoded))
        self._admit(_ADMISSION_STEP)

    def _replace(self, batch: PackedBatch, encoded: Batch) -> None:
        self._resize(
            len(encoded.payload) - len(batch.payload), batch.span_count - encoded.span_count
        )

    def _resize(self, more_bytes: int, unencodable: int) -> None:
        self._held_bytes += more_bytes
        self.pending -= unencodable
        if unencodable:
            self._drop("invalid", unencodable)
