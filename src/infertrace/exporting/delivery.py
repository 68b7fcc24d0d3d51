"""The delivery of one batch after another: send, retry, split, acknowledge.

Knows no thread, no socket and no clock but those that it is given.
"""

from __future__ import annotations

import contextlib
import threading
import time
from enum import Enum, auto

from infertrace.buffering.batch import PackedBatch, halves
from infertrace.buffering.ledger import dropped_by_reason
from infertrace.exporting import envelope
from infertrace.exporting.answer import (
    CannotEncode,
    Disconnected,
    Overloaded,
    Refused,
    Stumbled,
    TooLarge,
)
from infertrace.exporting.connection import State
from infertrace.exporting.log_text import one_line
from infertrace.exporting.packed_request import PackedRequest
from infertrace.log import INFO, WARNING, logger

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, Protocol

    from infertrace.backend import Packing
    from infertrace.buffering.batch import Batch
    from infertrace.buffering.ledger import DropReason
    from infertrace.exporting.answer import Answer
    from infertrace.exporting.connection import Connection
    from infertrace.exporting.envelope import Producer, Request
else:
    Protocol = object


_SEND_TIMEOUT_S: Final = 10.0
_MIN_SEND_TIMEOUT_S: Final = 0.05
_FIRST_BACKOFF_S: Final = 0.2
_MAX_BACKOFF_S: Final = 5.0
_MAX_RETRY_AFTER_S: Final = 30.0
_FLUSH_BACKOFF_S: Final = 0.1
# Pause between encoding steps so that the traced loop gets the GIL.
_ENCODING_PAUSE_S: Final = 0.001
# Answers in a row after which a batch is split, or a single span goes behind the others, in case
# it is the batch that a server cannot take.
_MAX_STUMBLES: Final = 5
_MAX_OVERLOADS: Final = 3


class BatchSource(Protocol):
    """What a delivery asks of a recorder; see `backend.Recorder`."""

    def take(self, partial: bool = True) -> Batch | None: ...
    def encode_some(self) -> bool: ...
    def settle(self, batch: Batch, delivered: int, reason: DropReason) -> None: ...
    def counts(self) -> tuple[int, int, int, tuple[int, ...], int]: ...


class Spool(Protocol):
    """What a delivery asks of the spool; see `own_spool.OwnSpool`."""

    @property
    def is_open(self) -> bool:
        """Whether it keeps what is not acknowledged at the end."""

    def set_batch_sequence(self, number: int) -> None: ...


class Clock(Protocol):
    """Time as a delivery sees it."""

    def now(self) -> float:
        """Seconds from an arbitrary origin; never goes back."""

    def wait(self, timeout_s: float) -> None:
        """Return after this time, or earlier."""


class SystemClock(Clock):
    """`wait` is the exporter thread's, which others can wake."""

    def __init__(self, wait: Callable[[float], None]) -> None:
        self._wait = wait

    def now(self) -> float:
        return time.monotonic()

    def wait(self, timeout_s: float) -> None:
        self._wait(timeout_s)


class OutOfTimeError(Exception):
    """The caller's thread, borrowed for delivery, has reached its deadline."""


class _Unacknowledged(Enum):
    """What becomes of a batch that is neither delivered nor refused."""

    SPLIT = auto()
    """It is sent again in halves."""
    LATER = auto()
    """The collector stumbles over this span: others go first. Where they are accepted, and it is
    not even then, it is that span's fault."""
    GIVEN_UP = auto()
    """The end of a shutdown found it on its way."""
    ENCODED = auto()
    """Nobody but this process encodes it."""


def _any_between(least: float, most: float) -> float:
    import random  # for few programs, and slow to load

    return random.uniform(least, most)


class Delivery:
    """Takes batches from the recorder, and has each of them acknowledged or dropped.

    One thread at a time delivers. Any thread may request a flush, or stop the delivery.
    """

    def __init__(
        self,
        recorder: BatchSource,
        connection: Connection,
        spool: Spool,
        *,
        producer_id: bytes,
        resource: bytes,
        clock: Clock,
        packing: Packing | None = None,
        send_timeout_s: float = _SEND_TIMEOUT_S,
        jitter: Callable[[float, float], float] = _any_between,
    ) -> None:
        self._recorder = recorder
        self._connection = connection
        self._spool = spool
        self._clock = clock
        self._packing = packing
        self._jitter = jitter
        self.send_timeout_s = send_timeout_s
        """How long a request may take."""
        self.resource = resource
        """As `envelope.encode_resource` gives it."""
        self.start_anew(producer_id)

    def start_anew(self, producer_id: bytes) -> None:
        """Forget all batches, as a forked child must: they are its parent's."""
        self.producer_id = producer_id
        self.batch_sequence = 0
        """The number of the last batch."""
        self.renew_locks()
        self.unacknowledged: list[Batch] = []
        """The parts of the batch that is being delivered."""
        self.flush_requests = 0
        """How many callers wait for what is pending."""
        self.is_stopping = False
        self._has_said_goodbye = False
        self._is_left_to_another = False
        """Whether a sender will deliver what is not acknowledged."""
        self.deadline = float("inf")
        """When a shutdown gives up (seconds of the clock)."""
        self.caller_deadline = float("inf")
        """Until when the caller's thread is borrowed for delivery."""
        self._accepted_requests = 0
        # By the number of a single span, how many requests were accepted when it was put off.
        self._suspects: dict[int, int] = {}
        self._has_told_of_rejection = self._has_told_of_warning = False

    def renew_locks(self) -> None:
        """As is needed after `threading` was patched: locks made before stop all green threads."""
        self.progress = threading.Condition()
        """Guards `unacknowledged`, and tells callers of `flush` that a batch was acknowledged."""

    def request_flush(self) -> None:
        """Cut pauses short, and send what does not fill a batch, until `end_flush`."""
        with self.progress:
            self.flush_requests += 1

    def end_flush(self) -> None:
        with self.progress:
            # Already 0 in a child that a signal handler forked during the flush.
            self.flush_requests = max(self.flush_requests - 1, 0)

    def tell_of_progress(self) -> None:
        """Have callers of `flush` look again at what is pending."""
        with self.progress:
            self.progress.notify_all()

    def take(self, partial: bool) -> bool:
        """Whether there is a batch to deliver; a shutdown finds it either here or in the buffer."""
        with self.progress:
            if self.is_stopping:
                return False
            if not self.unacknowledged:
                batch = self._recorder.take(partial)
                if batch is None:
                    return False
                self.unacknowledged = [batch]
                self.batch_sequence += 1
        return True

    def _take_more(self) -> None:
        """Another batch before the one that is not acknowledged; `progress` is held."""
        batch = None if self.is_stopping else self._recorder.take(True)
        if batch is not None:
            self.unacknowledged.insert(0, batch)
            self.batch_sequence += 1

    def deliver_all(self, *, partial: bool) -> None:
        """Deliver all full batches; with `partial`, also the spans that do not fill one."""
        while self.take(partial):
            self.deliver()
            if partial and not self.flush_requests:
                return

    def deliver_sent(self, batch: Batch, outcome: Callable[[], Answer] | None) -> None:
        """Go on with a batch that was taken elsewhere, and sent if there is an outcome.

        outcome: answers, or raises, as `Connection.send` does.
        """
        with self.progress:
            self.unacknowledged = [batch]
        self.deliver(outcome)

    def deliver(self, first_outcome: Callable[[], Answer] | None = None) -> None:
        """Send what was taken until all of it is acknowledged or dropped.

        Raises OutOfTimeError at the caller's deadline, and keeps what is left.
        """
        self._spool.set_batch_sequence(self.batch_sequence)
        while (unacknowledged := self.unacknowledged) and not self._is_left_to_another:
            part = unacknowledged[0]
            outcome = self._send_until_acknowledged(part, first_outcome)
            first_outcome = None
            encoded = None
            if outcome is _Unacknowledged.ENCODED or outcome is _Unacknowledged.SPLIT:
                encoded = self._encoded(part)
            with self.progress:
                if part not in self.unacknowledged:  # a shutdown has counted it already
                    return
                if outcome is _Unacknowledged.GIVEN_UP:
                    if self._spool.is_open or self._is_left_to_another:  # which keeps it
                        return
                    del self.unacknowledged[0]
                    self._recorder.settle(part, 0, "shutdown")
                    self.progress.notify_all()
                elif encoded is not None:
                    self.unacknowledged[:1] = self._replaced(part, encoded, outcome)
                elif outcome is _Unacknowledged.LATER:
                    self.unacknowledged.append(self.unacknowledged.pop(0))
                    if len(self.unacknowledged) == 1:
                        self._take_more()
                elif isinstance(outcome, tuple):
                    del self.unacknowledged[0]
                    self._recorder.settle(part, *outcome)
                    self.progress.notify_all()

    def _encoded(self, batch: Batch) -> Batch:
        if self._packing is not None and isinstance(batch, PackedBatch):
            return self._packing.encode(batch)
        return batch

    def _replaced(
        self, batch: Batch, encoded: Batch, outcome: object = _Unacknowledged.ENCODED
    ) -> list[Batch]:
        """What is to be delivered in place of a batch; `progress` is held."""
        if self._packing is not None and isinstance(batch, PackedBatch):
            self._packing.replace(batch, encoded)
            # Where this process could encode it, others of it would come back as well.
            if outcome is _Unacknowledged.ENCODED and encoded.span_count == batch.span_count:
                self._packing.pack(False)
        if not encoded.span_count:
            return []
        if outcome is _Unacknowledged.SPLIT and encoded.span_count > 1:
            return [*halves(encoded)]
        return [encoded]

    def stop_for_another(self) -> None:
        """Begin nothing any more, and drop nothing: a sender will deliver what is left."""
        with self.progress:
            self._is_left_to_another = self.is_stopping = True

    def leave(self) -> list[Batch]:
        """All that is not acknowledged, in the order of the spans; the caller's from now on."""
        with self.progress:
            left, self.unacknowledged = self.unacknowledged, []
            held = sum(batch.span_count for batch in left)
            # Among threads that go on recording, the recorder may be busy for a moment.
            while True:
                while (batch := self._recorder.take(True)) is not None:
                    left.append(batch)
                    held += batch.span_count
                if self._recorder.counts()[2] <= held or self._clock.now() >= self.deadline:
                    break
            left = [it for batch in left for it in self._replaced(batch, self._encoded(batch))]
        return sorted(left, key=lambda batch: batch.first_span_sequence)

    def give_up(self, left: list[Batch]) -> None:
        """Drop what nobody has taken over."""
        for batch in left:
            self._recorder.settle(batch, 0, "shutdown")

    def abandon(self) -> None:
        """Drop what is not acknowledged; a spool keeps it."""
        with self.progress:
            abandoned, self.unacknowledged = self.unacknowledged, []
            if not self._spool.is_open:
                for part in abandoned:
                    self._recorder.settle(part, 0, "shutdown")

    def _send_until_acknowledged(
        self, batch: Batch, first_outcome: Callable[[], Answer] | None
    ) -> tuple[int, DropReason] | _Unacknowledged:
        """How many spans were delivered and why the others not, or what is to be done with it.

        first_outcome: what became of it already, where it was sent.
        """
        request = self.encode(batch)
        backoff_s = _FIRST_BACKOFF_S
        stumbles = overloads = 0
        while True:
            outcome, first_outcome = first_outcome, None
            try:
                answer = outcome() if outcome is not None else self.send(request, batch.span_count)
            except CannotEncode:
                return _Unacknowledged.ENCODED
            except TooLarge as error:
                if batch.span_count > 1:
                    return _Unacknowledged.SPLIT
                return self._refuse(error)
            except Refused as error:
                return self._refuse(error)
            except Exception as error:
                # Also an error that no transport foresaw: a thread that died would lose everything.
                if self._is_left_to_another or (
                    self.is_stopping and self._clock.now() >= self.deadline
                ):
                    return _Unacknowledged.GIVEN_UP
                if isinstance(error, Disconnected):
                    self._connection.disconnect()
                self._connection.change_state(
                    State.DOWN,
                    WARNING,
                    f"cannot deliver spans, will keep trying: {error}",
                )
                if self._clock.now() >= self.caller_deadline:
                    raise OutOfTimeError from None
                stumbles = stumbles + 1 if isinstance(error, Stumbled) else 0
                overloads += isinstance(error, Overloaded)
                if batch.span_count > 1 and (
                    stumbles >= _MAX_STUMBLES or overloads >= _MAX_OVERLOADS
                ):
                    return _Unacknowledged.SPLIT
                if stumbles >= _MAX_STUMBLES:
                    number = batch.first_span_sequence
                    if self._accepted_requests == self._suspects.setdefault(
                        number, self._accepted_requests
                    ):
                        return _Unacknowledged.LATER
                    del self._suspects[number]
                    return self._refuse(error)
                self._pause(backoff_s, getattr(error, "retry_after_s", None))
                backoff_s = min(backoff_s * 2, _MAX_BACKOFF_S)
            else:
                return self._accept(batch, answer)

    def encode(self, batch: Batch) -> Request | PackedRequest:
        """What to send for a batch."""
        if isinstance(batch, PackedBatch):
            rest = envelope.rest(batch.first_span_sequence, self.producer())
            return PackedRequest(batch.payload, rest)
        return envelope.encode(batch.payload, batch.first_span_sequence, self.producer())

    def _accept(self, batch: Batch, answer: Answer) -> tuple[int, DropReason]:
        self._connection.change_state(State.UP, INFO, "spans are being delivered")
        self._accepted_requests += 1
        self._suspects.pop(batch.first_span_sequence, None)
        accepted = max(0, min(answer.accepted_count, batch.span_count))
        if accepted < batch.span_count:
            self._tell_of_rejection(batch.span_count - accepted, answer.rejection_reason)
        elif answer.rejection_reason and not self._has_told_of_warning:
            self._has_told_of_warning = True
            logger.warning(
                "%s: accepted the spans, with a warning (said once): %s",
                self._connection.endpoint,
                one_line(answer.rejection_reason),
            )
        return accepted, "rejected"

    def _refuse(self, error: Exception) -> tuple[int, DropReason]:
        self._connection.change_state(State.REFUSED, WARNING, f"spans are refused: {error}")
        return 0, "rejected"

    def _tell_of_rejection(self, spans: int, reason: str) -> None:
        if not self._has_told_of_rejection:
            self._has_told_of_rejection = True
            logger.warning(
                "%s: rejected %d spans (said once, counted always): %s",
                self._connection.endpoint,
                spans,
                one_line(reason) or "no reason given",
            )

    def send(self, request: Request | PackedRequest, span_count: int) -> Answer:
        """Send one request, once; raises what `Transport.send` raises."""
        left_s = min(self.deadline, self.caller_deadline) - self._clock.now()
        timeout_s = max(min(self.send_timeout_s, left_s), _MIN_SEND_TIMEOUT_S)
        return self._connection.send(request, span_count, timeout_s)

    def say_goodbye(self) -> None:
        """Tell the collector that this producer is complete, when there is one to tell."""
        if (
            self._connection.state is State.UP
            and not self._is_left_to_another
            and self._clock.now() < self.deadline
        ):
            self.batch_sequence += 1
            with contextlib.suppress(Exception):
                self.send(envelope.goodbye(self.producer()), 0)
                self._has_said_goodbye = True

    @property
    def has_put_off_spans(self) -> bool:
        """Whether a span waits that others, which ended later, went before."""
        return bool(self._suspects)

    @property
    def owes_goodbye(self) -> bool:
        """Whether the collector knows this producer, and not that it is complete."""
        return (
            self._connection.state is State.UP
            and self.batch_sequence > 0
            and not self._has_said_goodbye
            and not self._is_left_to_another
        )

    def producer(self) -> Producer:
        """Who sends, as its ledger is now."""
        produced, _, _, dropped, _ = self._recorder.counts()
        return envelope.Producer(
            self.producer_id,
            self.batch_sequence,
            produced,
            dropped_by_reason(dropped),
            self.resource,
        )

    def _pause(self, backoff_s: float, retry_after_s: float | None) -> None:
        delay_s = self._jitter(backoff_s / 2, backoff_s)
        if retry_after_s is not None:
            delay_s = min(max(retry_after_s, delay_s), _MAX_RETRY_AFTER_S)
        began = self._clock.now()
        while not self.is_stopping:
            # Full batches wake this thread too: only a flush or a shutdown cuts the pause short.
            is_short = self.flush_requests and retry_after_s is None
            end = began + (min(delay_s, _FLUSH_BACKOFF_S) if is_short else delay_s)
            remaining_s = end - self._clock.now()
            if remaining_s <= 0:
                return
            if self._recorder.encode_some():
                remaining_s = min(remaining_s, _ENCODING_PAUSE_S)
            self._clock.wait(remaining_s)
