"""The exporter: one background thread that takes batches and gets them delivered.

Producers share nothing with it but the buffer, which neither side holds while it
does I/O. A batch is retried until it is delivered or refused; meanwhile the buffer
fills, and overflow is counted there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import sys
import threading
import time
from enum import Enum, auto
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from infertrace import lifecycle
from infertrace.buffering.batch import halves
from infertrace.buffering.ledger import DROP_REASONS
from infertrace.exporting import process_transport, request_header
from infertrace.exporting.log_text import one_line
from infertrace.exporting.process_transport import ProcessTransport
from infertrace.exporting.transport import (
    Disconnected,
    Overloaded,
    Refused,
    Stumbled,
    TooLarge,
    choose_transport,
)
from infertrace.green_threads import threads_are_green
from infertrace.recording.invalid_values import take_notices
from infertrace.resources.sampler import ResourceSampler

if TYPE_CHECKING:
    from collections.abc import Callable

    from infertrace.backend import Backend, Recorder
    from infertrace.buffering.batch import Batch
    from infertrace.buffering.ledger import DropReason, Ledger
    from infertrace.buffering.spool_file import SpoolFile
    from infertrace.configuration import Settings
    from infertrace.exporting.spool_drain import Leftovers
    from infertrace.exporting.transport import Answer, Request, Transport

logger = logging.getLogger("infertrace")

_SEND_TIMEOUT_S: Final = 10.0
_MIN_SEND_TIMEOUT_S: Final = 0.05
_FIRST_BACKOFF_S: Final = 0.2
_MAX_BACKOFF_S: Final = 5.0
_MAX_RETRY_AFTER_S: Final = 30.0
_HURRIED_BACKOFF_S: Final = 0.1
# Between two turns of encoding what waits: the GIL is for the traced loop then.
_ENCODING_PAUSE_S: Final = 0.001
_CLOCK_STEP_NS: Final = 50_000_000
_FOREVER_S: Final = 1e9
_INTERVALS_BETWEEN_LEFTOVERS: Final = 10
_PRODUCER_ID_BYTES: Final = 16
# Answers in a row after which a batch is parted, or a single span goes behind the others, in case
# it is the batch that a server cannot take.
_MAX_STUMBLES: Final = 5
_MAX_OVERLOADS: Final = 3
# After an error of our own that nobody foresaw; the next one waits longer.
_FIRST_RESTART_S: Final = 0.1
_MAX_RESTART_S: Final = 30.0


class _Unsettled(Enum):
    """What becomes of a batch that is neither delivered nor refused."""

    SPLIT = auto()
    """It is sent again in halves."""
    LATER = auto()
    """The collector stumbles over this span: others go first. Where they are accepted, and it is
    not even then, it is that span's fault."""
    GIVEN_UP = auto()
    """The end of a shutdown found it on its way."""


class _OutOfTime(Exception):
    """The thread that delivers was lent for so long only."""


class Exporter:
    """Ships what its recorder holds. Starts its thread when it is first woken."""

    _spool: SpoolFile | None
    _leftovers: Leftovers | None

    def __init__(self, backend: Backend, settings: Settings) -> None:
        self._backend = backend
        self.recorder: Recorder = backend.Recorder(
            max_buffer_bytes=settings.max_buffer_bytes,
            # A batch no larger than the buffer, or it would never be full.
            max_batch_bytes=min(settings.max_batch_bytes, settings.max_buffer_bytes // 2),
            wake=self.wake,
        )
        self._transport: Transport | None = None
        self._diversion: Callable[[], Transport] | None = None
        self._settings = settings
        self._choose_transport()
        self._resource = request_header.resource(settings)
        self._start_anew()
        self._open_spool()
        self._make_sampler()
        lifecycle.register(self)
        lifecycle.keep_open(self)

    @property
    def exit_timeout_s(self) -> float:
        return self._settings.exit_timeout_s

    @property
    def flush_on_sigterm(self) -> bool:
        return self._settings.flush_on_sigterm

    def _make_sampler(self) -> None:
        self._sampler = ResourceSampler(
            self._backend,
            self.recorder,
            interval_s=self._settings.resource_interval_s,
            gpu_device_index=self._settings.gpu_device_index,
        )

    def start_sampler(self) -> None:
        """Begin to read GPU and process, where a tracer that is switched on wants it."""
        if self._settings.enabled:
            self._sampler.start()

    def _open_spool(self) -> None:
        """Where one is wanted; without room for it spans are held in memory only."""
        self._wants_spool = False
        if self._settings.spool_dir is None:
            return
        from infertrace.buffering.spool_file import SpoolFile
        from infertrace.exporting.spool_drain import Leftovers

        directory = Path(self._settings.spool_dir)
        try:
            spool = SpoolFile(
                directory,
                producer_id=self._producer_id,
                resource=self._resource,
                max_buffer_bytes=self._settings.max_buffer_bytes,
            )
            try:
                self.recorder.attach_spool(spool)
            except OSError:
                spool.close(keep=False)
                raise
        except OSError as error:
            logger.warning("no spool in %s (%s): spans are held in memory", directory, error)
            return
        self._spool = spool
        self._leftovers = Leftovers(directory, self._settings.max_batch_bytes)

    def _start_anew(self) -> None:
        self._thread: threading.Thread | None = None
        self._make_waits()
        self._unsettled: list[Batch] = []
        self._hurried = 0
        self._stopping = False
        self._deadline = float("inf")
        self._borrowed_until = float("inf")
        self._producer_id = os.urandom(_PRODUCER_ID_BYTES)
        self._batch_sequence = 0
        self._state = ""
        self._told_of_rejection = False
        # Held by whoever starts the thread, and by the one thread that delivers; never waited for.
        self._starting = threading.Lock()
        self._delivering = threading.Lock()
        self._deliverer: threading.Thread | None = None
        self.configuring = threading.RLock()  # a finalizer may interrupt whoever holds it
        self._retired = False
        self._shutting_down_on: threading.Thread | None = None
        self._is_closing = self._is_shut_down = False
        self._left_by_shutdown = 0
        self._thread_failures = 0
        self._accepted_requests = 0
        # By the number of a single span, how many requests were accepted when it was put off.
        self._suspects: dict[int, int] = {}
        self._spool = None
        self._leftovers = None
        self._wants_spool = True  # a forked child makes its own, with its first span

    def _make_waits(self) -> None:
        # A semaphore of one. To release it takes no lock, so a signal handler or a
        # finalizer may wake the exporter wherever it interrupts.
        self._bell = threading.Lock()
        self._bell.acquire()
        # Guards _unsettled, and tells those who flush that something was settled.
        self._settled = threading.Condition()

    def reset(self) -> None:
        """Start anew, as a forked child must: no thread, lock or connection of its parent's."""
        if self._transport is not None:
            self._transport.forget()
        process_transport.forget_spare()
        self._transport = None
        self.recorder.reset()
        if self._spool is not None:
            self._spool.forget()
        was_retired = self._retired
        self._start_anew()
        self._retired = was_retired
        if was_retired:
            lifecycle.let_go(self)
        self._sampler.forget()
        self._make_sampler()

    def configure(self, settings: Settings) -> None:
        """Use these settings from the next batch on."""
        self._settings = settings
        self._choose_transport()
        self._resource = request_header.resource(settings)
        self._state = ""
        if self._spool is not None:
            self._spool.set_resource(self._resource)
        self._disconnect()
        self._sampler.stop()
        self._thread_failures += self._sampler.failures
        self._make_sampler()

    def divert(self, open_transport: Callable[[], Transport] | None) -> None:
        """Send by this from the next batch on, whatever the endpoint; None: to the endpoint."""
        with self.configuring:
            self._diversion = open_transport
            self._choose_transport()
            self._state = ""
            self._disconnect()

    def _choose_transport(self) -> None:
        self._open_transport = self._diversion or choose_transport(
            self._settings, self._backend, self.recorder.encode_some
        )

    def wake(self) -> None:
        """Look for spans now; called on the threads that record, never blocks on I/O.

        Raises RuntimeError where no thread can be started.
        """
        if self._thread is None:
            self._start()
        self._ring()

    def retire(self) -> None:
        """Deliver what is held, then end the thread, the sender and the sampler.

        For a tracer that nobody can reach any more, from its finalizer: takes no lock that the
        interrupted code may hold. A span that ends later wakes the exporter again.
        """
        self._retired = True
        self._sampler.retire()
        if self._thread is not None:
            self._ring()
        elif not self._pending():
            if self._spool is not None:
                self._close_spool(0)
                self._wants_spool = True
            lifecycle.let_go(self)

    def ledger(self) -> Ledger:
        produced, delivered, pending, dropped, invalid_fields = self.recorder.counts()
        by_reason = zip(DROP_REASONS, dropped, strict=True)
        return {
            "produced": produced,
            "delivered": delivered,
            "pending": pending,
            "dropped": {reason: count for reason, count in by_reason if count},
            "invalid_fields": invalid_fields,
            "thread_failures": self._thread_failures + self._sampler.failures,
        }

    def flush(self, timeout_s: float) -> bool:
        """Wait until nothing is pending, `timeout_s` at most; True when nothing is."""
        deadline = time.monotonic() + timeout_s
        with self._settled:
            self._hurried += 1
        try:
            while self._pending():
                remaining_s = deadline - time.monotonic()
                own_thread = threading.current_thread() is self._thread
                if remaining_s <= 0 or own_thread or self._stopping:
                    return False
                try:
                    self.wake()
                except RuntimeError:  # there are no threads (Pyodide), or no more
                    self._deliver_here(deadline)
                    continue
                with self._settled:
                    if self._pending():
                        self._settled.wait(min(remaining_s, self._settings.export_interval_s))
            return True
        finally:
            with self._settled:
                self._hurried -= 1

    def shutdown(self, timeout_s: float) -> int:
        """Deliver what can be delivered in `timeout_s`, drop the rest; how many were dropped.

        Another call waits for the first, `timeout_s` at most, and answers the same.
        """
        with self._settled:
            is_first = self._shutting_down_on is None
            if is_first:
                self._shutting_down_on = threading.current_thread()
        if is_first:
            try:
                self.begin_shutdown(time.monotonic() + timeout_s)
                self.flush(timeout_s)
            except BaseException:  # of a signal handler: another call takes it from there
                self._shutting_down_on = None
                raise
            return self.finish_shutdown()
        # Not a finalizer that interrupted the first call: that cannot go on before it returns.
        if self._shutting_down_on is not threading.current_thread():
            with self._settled:
                self._settled.wait_for(lambda: self._is_shut_down, timeout_s)
        return self._left_by_shutdown if self._is_shut_down else max(self._pending(), 1)

    def begin_shutdown(self, deadline: float) -> None:
        """Take no more spans, and hurry with those that are held, until this moment."""
        if self._is_closing:
            return
        self._deadline = deadline
        # First: threads that go on recording must not keep the delivery from its end.
        self.recorder.close()
        with self._settled:
            self._hurried += 1
        # RuntimeError: there are no threads; then wait_for_delivery() delivers.
        with contextlib.suppress(RuntimeError):
            if self._pending():
                self.wake()

    def wait_for_delivery(self, timeout_s: float) -> bool:
        return self.flush(timeout_s)

    def finish_shutdown(self) -> int:
        """Drop what is left; how many spans that were. Another call answers the same."""
        if self._is_closing:
            return self._left_by_shutdown
        self._is_closing = True  # also for a finalizer that comes here amid this
        with self._settled:
            if self._spool is None:
                self.recorder.discard()
            self._stopping = True
        self._ring()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(max(self._deadline - time.monotonic(), 0.0))
        with self._settled:
            abandoned, self._unsettled = self._unsettled, []
            for part in abandoned:
                if self._spool is None:
                    self.recorder.settle(part, 0, "shutdown")
        if self._thread is None:
            self._say_goodbye()
        self._disconnect()
        process_transport.end_spare()
        self._sampler.stop()
        # From the ledger: at the deadline the exporter itself may have given up its batch.
        # If a finalizer called us, the thread it interrupted will drop what is still pending.
        ledger = self.ledger()
        left = ledger["dropped"].get("shutdown", 0) + ledger["pending"]
        self._log_notices()
        if self._spool is not None:
            self._close_spool(ledger["pending"])
        elif left:
            logger.warning(
                "%s: %d spans were not delivered before the shutdown",
                self._settings.endpoint,
                left,
            )
        self._left_by_shutdown = left
        lifecycle.let_go(self)
        with self._settled:
            self._is_shut_down = True
            self._settled.notify_all()
        return left

    def _close_spool(self, pending: int) -> None:
        spool, self._spool = self._spool, None
        assert spool is not None
        self.recorder.detach_spool()
        spool.close(keep=pending > 0)
        if pending:
            logger.warning(
                "%s: %d spans were not delivered before the shutdown; they are left in %s",
                self._settings.endpoint,
                pending,
                spool.path,
            )

    def _pending(self) -> int:
        return self.recorder.counts()[2]

    def _ring(self) -> None:
        # RuntimeError: it rings already.
        with contextlib.suppress(RuntimeError):
            self._bell.release()
        if self.recorder.attend is not None:
            self.recorder.interrupt()

    def _start(self) -> None:
        # Two threads, or a thread and a finalizer on it, may come here at once.
        if not self._starting.acquire(blocking=False):
            return
        try:
            if self._thread is not None or self._stopping:
                return
            if self._wants_spool:
                self._open_spool()
            if threads_are_green():
                # Those made before `threading` was patched stop all green threads that wait.
                self._make_waits()
            lifecycle.keep_open(self)
            thread = threading.Thread(target=self._run, name="infertrace-exporter", daemon=True)
            # Before start(): a span recorded while it waits for the thread must not start another.
            self._thread = thread
            try:
                thread.start()
            except BaseException:
                # A signal handler may have raised while start() waited for a thread that runs.
                self._thread = self._deliverer
                raise
        finally:
            self._starting.release()
        if not self._retired:
            self.start_sampler()

    def _run(self) -> None:
        if not self._delivering.acquire(blocking=False):
            # A start that was interrupted had started a thread all the same.
            self._thread = self._deliverer
            return
        self._thread = self._deliverer = threading.current_thread()
        is_done = False
        try:
            self._deliver_until_stopped()
            is_done = True
        finally:
            self._deliverer = None
            self._delivering.release()
            if self._thread is None and self._pending():
                # Let go, and a span came meanwhile.
                with contextlib.suppress(RuntimeError):
                    self.wake()
            # Not an Exception, which is caught further in: somebody ended this thread.
            if not is_done and not self._stopping:
                self._tell_of_failure("was ended from outside")
                self._thread = None
                with contextlib.suppress(RuntimeError):  # the next span that ends tries again
                    self.recorder.sleep()
                    self._start()

    def _deliver_until_stopped(self) -> None:
        restart_s = _FIRST_RESTART_S
        while True:
            try:
                self._deliver_in_turns()
                self._say_goodbye()
                self._disconnect()  # also what was opened after the shutdown had looked
            except Exception as error:
                self._tell_of_failure(f"{type(error).__name__}: {error}")
                self._bell.acquire(timeout=restart_s)
                restart_s = min(restart_s * 2, _MAX_RESTART_S)
                continue
            if not self._stopping:
                self._let_go()
            return

    def _let_go(self) -> None:
        """End the thread of a retired exporter; a span that comes meanwhile starts another."""
        self.recorder.sleep()
        self._state = ""
        if self._spool is not None:
            self._close_spool(self._pending())
            self._wants_spool = True
        lifecycle.let_go(self)
        self._thread = None

    def _deliver_in_turns(self) -> None:
        due = time.monotonic() + self._settings.export_interval_s
        while not self._stopping:
            if not self._attend():
                self._bell.acquire(timeout=max(due - time.monotonic(), 0.0))
            # What does not fill a batch waits for the interval: to send what there is, again
            # and again, would make the traced loop hand over the GIL without end.
            self._deliver_all(partial=False)
            if self._hurried or self._retired or time.monotonic() >= due:
                self._log_notices()
                self._follow_wall_clock()
                self._deliver_all(partial=True)
                self._replace_cut_spool()
                self._deliver_leftovers()
                due = time.monotonic() + self._settings.export_interval_s
            with self._settled:
                self._settled.notify_all()
            if self._retired and not self._pending():
                return

    def _tell_of_failure(self, what: str) -> None:
        """Count an error of ours, and log the first: what failed goes on."""
        self._thread_failures += 1
        if self._thread_failures == 1:
            logger.error(
                "the exporter's thread goes on after an error that nobody foresaw "
                "(said once; stats() counts thread_failures): %s",
                one_line(what),
                exc_info=sys.exc_info()[1] is not None,
            )

    def _log_notices(self) -> None:
        for notice in take_notices():
            logger.warning("%s (said once for each kind; stats() counts invalid_fields)", notice)

    def _replace_cut_spool(self) -> None:
        """A spool that somebody cut short or removed keeps nothing: go on with another."""
        if self._spool is None or self._spool.is_whole():
            return
        logger.warning(
            "the spool %s was cut short or removed, or cannot be written; another takes its place",
            self._spool.path,
        )
        with self._settled:
            if self._spool is None or self._stopping:
                return
            spool, self._spool = self._spool, None
            self.recorder.detach_spool()
        spool.close(keep=False)
        self._open_spool()
        if self._is_closing and self._spool is not None:
            self._close_spool(self._pending())

    def _attend(self) -> bool:
        """Deliver without the GIL while all goes well and spans come; whether that was possible."""
        transport = self._transport
        attend = self.recorder.attend
        if (
            attend is None
            or not isinstance(transport, ProcessTransport)
            or self._state != "up"
            or self._unsettled
            or self._hurried
            or self._retired
            or threads_are_green()
        ):
            return False
        interval_s = self._settings.export_interval_s
        attendance = transport.attend(
            attend,
            request_header.producer(self._producer_id),
            self._resource,
            self._batch_sequence,
            timeout_s=_SEND_TIMEOUT_S,
            interval_s=interval_s,
            stay_s=_INTERVALS_BETWEEN_LEFTOVERS * interval_s if self._leftovers else _FOREVER_S,
        )
        if attendance is None:
            return False
        self._batch_sequence, batch, answer = attendance
        if batch is not None:
            with self._settled:
                self._unsettled = [batch]
            self._deliver(None if answer is None else partial(transport.outcome, answer))
        elif answer is not None and transport is self._transport:
            self._disconnect()
        return True

    def _deliver_here(self, deadline: float) -> None:
        """On the caller's thread, until the deadline; what is not settled by then stays."""
        if not self._starting.acquire(blocking=False):
            return
        try:
            if self._thread is not None:
                return
            self._thread = threading.current_thread()  # nobody else delivers meanwhile
        finally:
            self._starting.release()
        self._borrowed_until = deadline
        try:
            self._follow_wall_clock()
            while self._take(partial=True):
                self._deliver()
        except _OutOfTime:
            pass
        finally:
            self._borrowed_until = float("inf")
            self._thread = None

    def _deliver_all(self, *, partial: bool) -> None:
        """All full batches; or what there is, up to one that is not full."""
        while self._take(partial):
            self._deliver()
            if partial and not self._hurried:
                return

    def _deliver_leftovers(self) -> None:
        """What dead processes left, when there is a collector to take it."""
        if self._leftovers is None or self._diversion is not None:
            return
        if self._state == "up" and not self._stopping:
            self._leftovers.deliver(self._send)

    def _follow_wall_clock(self) -> None:
        anchor = time.time_ns() - self._backend.monotonic_ns()
        if abs(anchor - self.recorder.anchor) > _CLOCK_STEP_NS:
            while self.recorder.encode_some():  # by the clock that they were recorded by
                pass
            self.recorder.anchor = anchor

    def _take(self, partial: bool) -> bool:
        """Whether there is a batch to deliver; a shutdown finds it either here or in the buffer."""
        with self._settled:
            if self._stopping:
                return False
            if not self._unsettled:
                batch = self.recorder.take(partial)
                if batch is None:
                    return False
                self._unsettled = [batch]
                self._batch_sequence += 1
        return True

    def _take_more(self) -> None:
        """Another batch before the one that is not settled, if there is one; `_settled` is held."""
        batch = None if self._stopping else self.recorder.take(True)
        if batch is not None:
            self._unsettled.insert(0, batch)
            self._batch_sequence += 1

    def _deliver(self, first_outcome: Callable[[], Answer] | None = None) -> None:
        if self._spool is not None:
            self._spool.set_batch_sequence(self._batch_sequence)
        while unsettled := self._unsettled:
            part = unsettled[0]
            outcome = self._send_until_settled(part, first_outcome)
            first_outcome = None
            with self._settled:
                if part not in self._unsettled:  # shut down meanwhile, and counted there
                    return
                if outcome is _Unsettled.GIVEN_UP:
                    if self._spool is None:  # which would keep it
                        del self._unsettled[0]
                        self.recorder.settle(part, 0, "shutdown")
                        self._settled.notify_all()
                        continue
                    return
                if outcome is _Unsettled.LATER:
                    self._unsettled.append(self._unsettled.pop(0))
                    if len(self._unsettled) == 1:
                        self._take_more()
                    continue
                if outcome is _Unsettled.SPLIT:
                    self._unsettled[:1] = halves(part)
                else:
                    del self._unsettled[0]
                    self.recorder.settle(part, *outcome)
                    self._settled.notify_all()

    def _send_until_settled(
        self, batch: Batch, first_outcome: Callable[[], Answer] | None
    ) -> tuple[int, DropReason] | _Unsettled:
        """How many spans were delivered and why the others not, or what is to be done with it.

        first_outcome: what became of it already, where it was sent.
        """
        request = batch.payload, self._header(batch.first_span_sequence)
        backoff_s = _FIRST_BACKOFF_S
        stumbles = overloads = 0
        while True:
            outcome, first_outcome = first_outcome, None
            try:
                answer = outcome() if outcome is not None else self._send(request)
            except TooLarge as error:
                if batch.span_count > 1:
                    return _Unsettled.SPLIT
                self._change_state("refused", logging.WARNING, f"spans are refused: {error}")
                return 0, "rejected"
            except Refused as error:
                self._change_state("refused", logging.WARNING, f"spans are refused: {error}")
                return 0, "rejected"
            except Exception as error:
                # Also what no transport foresaw: a thread that died would lose everything.
                if self._stopping and time.monotonic() >= self._deadline:
                    return _Unsettled.GIVEN_UP
                if isinstance(error, Disconnected):
                    self._disconnect()
                self._change_state(
                    "down", logging.WARNING, f"cannot deliver spans, will keep trying: {error}"
                )
                if time.monotonic() >= self._borrowed_until:
                    raise _OutOfTime from None
                stumbles = stumbles + 1 if isinstance(error, Stumbled) else 0
                overloads += isinstance(error, Overloaded)
                if batch.span_count > 1 and (
                    stumbles >= _MAX_STUMBLES or overloads >= _MAX_OVERLOADS
                ):
                    return _Unsettled.SPLIT
                if stumbles >= _MAX_STUMBLES:
                    number = batch.first_span_sequence
                    if self._accepted_requests == self._suspects.setdefault(
                        number, self._accepted_requests
                    ):
                        return _Unsettled.LATER
                    del self._suspects[number]
                    self._change_state("refused", logging.WARNING, f"spans are refused: {error}")
                    return 0, "rejected"
                self._pause(backoff_s, getattr(error, "retry_after_s", None))
                backoff_s = min(backoff_s * 2, _MAX_BACKOFF_S)
            else:
                self._change_state("up", logging.INFO, "spans are being delivered")
                self._accepted_requests += 1
                self._suspects.pop(batch.first_span_sequence, None)
                accepted = max(0, min(answer.accepted_count, batch.span_count))
                if accepted < batch.span_count:
                    self._tell_of_rejection(batch.span_count - accepted, answer.rejection_reason)
                return accepted, "rejected"

    def _send(self, request: Request) -> Answer:
        return self._connected().send(request, self._patience_s())

    def _connected(self) -> Transport:
        while (transport := self._transport) is None:
            opening = self._open_transport
            self._transport = opening()
            if opening is not self._open_transport:  # configured anew meanwhile
                self._disconnect()
        return transport

    def _disconnect(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def _patience_s(self) -> float:
        left_s = min(self._deadline, self._borrowed_until) - time.monotonic()
        return max(min(_SEND_TIMEOUT_S, left_s), _MIN_SEND_TIMEOUT_S)

    def _pause(self, backoff_s: float, retry_after_s: float | None) -> None:
        delay_s = random.uniform(backoff_s / 2, backoff_s)
        if retry_after_s is not None:
            delay_s = min(max(retry_after_s, delay_s), _MAX_RETRY_AFTER_S)
        began = time.monotonic()
        while not self._stopping:
            # Full batches ring too: only who flushes or shuts down cuts the pause short.
            is_hurried = self._hurried and retry_after_s is None
            end = began + (min(delay_s, _HURRIED_BACKOFF_S) if is_hurried else delay_s)
            remaining_s = end - time.monotonic()
            if remaining_s <= 0:
                return
            if self.recorder.encode_some():
                remaining_s = min(remaining_s, _ENCODING_PAUSE_S)
            self._bell.acquire(timeout=remaining_s)

    def _header(self, first_span_sequence: int = 0, *, final: bool = False) -> bytes:
        """The fields of the request that follow its spans; protobuf lets them be appended."""
        ledger = self.ledger()
        counters = request_header.counters(
            self._producer_id,
            self._batch_sequence,
            first_span_sequence,
            ledger["produced"],
            ledger["dropped"],
            final=final,
        )
        return counters + self._resource

    def _say_goodbye(self) -> None:
        """Tell the collector that this producer is complete, when there is one to tell."""
        if self._state == "up" and time.monotonic() < self._deadline:
            self._batch_sequence += 1
            with contextlib.suppress(Exception):
                self._send((self._header(final=True),))

    def _change_state(self, state: str, level: int, message: str) -> None:
        """Log one line when the state changes, never one for each failure."""
        if state != self._state:
            self._state = state
            logger.log(level, "%s: %s", self._settings.endpoint, one_line(message))

    def _tell_of_rejection(self, spans: int, reason: str) -> None:
        if not self._told_of_rejection:
            self._told_of_rejection = True
            logger.warning(
                "%s: rejected %d spans (said once, counted always): %s",
                self._settings.endpoint,
                spans,
                one_line(reason) or "no reason given",
            )
