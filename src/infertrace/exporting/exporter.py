"""The exporter of one tracer: what `Tracer` and `lifecycle.py` see of its delivery.

Threads that record share nothing with it but the buffer, which neither side locks during I/O. A
batch is retried until it is delivered or refused; while it is, the buffer fills, and counts what
overflows.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time

from infertrace import lifecycle
from infertrace.buffering.ledger import DROP_REASONS, dropped_by_reason
from infertrace.exporting import choice, envelope, rounds
from infertrace.exporting.connection import Connection, State
from infertrace.exporting.delivery import Delivery, OutOfTimeError, SystemClock
from infertrace.exporting.exporter_thread import ExporterThread, Work
from infertrace.exporting.hand_over import HandOver
from infertrace.exporting.own_spool import OwnSpool
from infertrace.green_threads import threads_are_green
from infertrace.log import logger
from infertrace.resources.sampler import ResourceSampler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from infertrace.backend import Backend, Recorder
    from infertrace.buffering.ledger import Ledger
    from infertrace.configuration import Settings
    from infertrace.exporting.hand_over import Holding
    from infertrace.exporting.transport import Transport


_PRODUCER_ID_BYTES: Final = 16
_REJECTED: Final = DROP_REASONS.index("rejected")
# While the end of a process waits for the collector, how often it looks whether to wait longer.
_LOOK_S: Final = 0.02
# For a sender that takes over the goodbye: to write it to the socket is enough.
_GOODBYE_S: Final = 0.05
# How long the thread may take to notice that its delivery is over.
_END_OF_THREAD_S: Final = 1.0


class Exporter:
    """Ships what its recorder holds. Starts its thread when it is first woken."""

    def __init__(self, backend: Backend, settings: Settings) -> None:
        self._backend = backend
        self.recorder: Recorder = backend.Recorder(
            max_buffer_bytes=settings.max_buffer_bytes,
            # A batch no larger than the buffer, or it would never be full.
            max_batch_bytes=min(settings.max_batch_bytes, settings.max_buffer_bytes // 2),
            wake=self.wake,
        )
        self._diversion: Callable[[], Transport] | None = None
        self._settings = settings
        self._connection = Connection(settings.endpoint, *self._choose_transports())
        producer_id = os.urandom(_PRODUCER_ID_BYTES)
        self._spool = OwnSpool(self.recorder, settings, producer_id)
        self._thread = ExporterThread(_Work(self))
        self._delivery = Delivery(
            self.recorder,
            self._connection,
            self._spool,
            producer_id=producer_id,
            resource=envelope.encode_resource(settings),
            clock=SystemClock(self._pause),
            packing=self.recorder.packing,
            send_timeout_s=settings.timeout_s,
        )
        self._rounds = rounds.Rounds(
            backend,
            self.recorder,
            self._connection,
            self._delivery,
            self._spool,
            wait=self._thread.wait,
            after_round=self.start_sampler,
            export_interval_s=settings.export_interval_s,
        )
        self._start_life()
        self._spool.open_if_wanted(self._delivery.resource)
        self._share_memory()
        self._choose_encoder()
        self._make_sampler()
        lifecycle.register(self)
        lifecycle.keep_open(self)

    @property
    def exit_timeout_s(self) -> float:
        return self._settings.exit_timeout_s

    @property
    def flush_on_sigterm(self) -> bool:
        return self._settings.flush_on_sigterm

    @property
    def sender_pid(self) -> int | None:
        """The process that sends now, if there is one beside this."""
        transport = self._connection.transport
        return None if transport is None else transport.sender_pid

    def _make_sampler(self) -> None:
        self._sampler = ResourceSampler(
            self._backend,
            self.recorder,
            interval_s=self._settings.resource_interval_s,
            gpu_device_index=self._settings.gpu_device_index,
            awaits_sender=self._diversion is None and choice.may_hand_over(self._settings),
        )

    def _take_gpu_page(self, descriptor: int | None) -> None:
        self._sampler.take_gpu_page(descriptor)

    def start_sampler(self) -> None:
        """Begin to read GPU and process, where a tracer that is switched on wants it."""
        if self._settings.enabled:
            self._sampler.start()

    def _pause(self, timeout_s: float) -> None:
        self.start_sampler()
        self._thread.wait(timeout_s)

    def _start_life(self) -> None:
        self.configuring = threading.RLock()  # a finalizer may interrupt the thread that holds it
        self._shutting_down_on: threading.Thread | None = None
        self._is_closing = self._is_shut_down = False
        self._left_by_shutdown = 0
        self._past_sampler_failures = 0
        self._hand_over: HandOver | None = None

    def reset(self) -> None:
        """Start anew, as a forked child must: no thread, lock or connection of its parent's."""
        self._connection.after_fork_in_child()
        choice.after_fork_in_child()
        self.recorder.reset()
        producer_id = os.urandom(_PRODUCER_ID_BYTES)
        self._thread.start_anew()
        self._spool.start_anew(producer_id)  # opened with the first span
        self._delivery.start_anew(producer_id)
        self._delivery.resource = envelope.encode_resource(self._settings)  # its process id
        self._share_memory()
        self._choose_encoder()
        self._start_life()
        if self._rounds.is_retired:
            lifecycle.let_go(self)
        self._sampler.forget()
        self._make_sampler()

    def configure(self, settings: Settings) -> None:
        """Use these settings from the next batch on."""
        self._settings = settings
        self._sampler.stop()
        self._past_sampler_failures += self._sampler.failures
        self._make_sampler()  # before the next connection, which tells it of the GPUs
        self._connection.use(settings.endpoint, *self._choose_transports())
        self._delivery.send_timeout_s = settings.timeout_s
        self._delivery.resource = envelope.encode_resource(settings)
        self._rounds.export_interval_s = settings.export_interval_s
        self._connection.state = State.UNKNOWN
        self._spool.set_resource(self._delivery.resource)
        self._share_memory()
        self._choose_encoder()
        self._connection.disconnect()

    def divert(self, open_transport: Callable[[], Transport] | None) -> None:
        """Send by this from the next batch on, whatever the endpoint; None: to the endpoint."""
        with self.configuring:
            self._diversion = open_transport
            if open_transport is not None:
                self._sampler.take_gpu_page(None)
            self._rounds.delivers_leftovers = open_transport is None
            self._connection.use(self._settings.endpoint, *self._choose_transports())
            self._choose_encoder()
            self._connection.state = State.UNKNOWN
            self._connection.disconnect()

    def _choose_encoder(self) -> None:
        """Have spans encoded in the sender, where that can be."""
        if self.recorder.packing is not None:
            self.recorder.packing.pack(
                self._diversion is None
                and self._settings.spool_dir is None
                and choice.may_leave_encoding(self._settings)
            )

    def _choose_transports(
        self,
    ) -> tuple[Callable[[], Transport], Callable[[], Transport] | None]:
        """What opens a transport, and what opens another where the endpoint takes OTLP."""
        if self._diversion is not None:
            return self._diversion, None
        what = (
            self._settings,
            self._backend,
            self._use_idle_time,
            self._memory,
            self._take_gpu_page,
        )
        return choice.choose_transport(*what), choice.choose_otlp_instead(*what)

    def _use_idle_time(self) -> bool:
        packing = self.recorder.packing
        if packing is None or not packing.is_packing:
            return self.recorder.encode_some()
        # Not a few: that would take the GIL from the traced loop once more.
        return packing.pack_crowd()

    def _memory(self) -> int | None:
        return self.recorder.memory_descriptor

    def _share_memory(self) -> None:
        """Have a sender deliver what this process leaves; a spool would do that as well."""
        if choice.may_hand_over(self._settings) and self._settings.spool_dir is None:
            self.recorder.share_memory(self._delivery.producer_id, self._delivery.resource)

    def _announce_memory(self) -> None:
        memory = self.recorder.memory_descriptor
        if memory is not None and self._connection.transport is None and self._diversion is None:
            choice.announce_memory(self._settings, memory)

    def wake(self) -> None:
        """Look for spans now; called on the threads that record, never blocks on I/O.

        Raises RuntimeError where no thread can be started.
        """
        self._thread.wake()

    def retire(self) -> None:
        """Deliver what is held, then end the thread, the sender and the sampler.

        For a tracer that nobody can reach any more, from its finalizer: takes no lock that the
        interrupted code may hold. A span that ends later wakes the exporter again.
        """
        self._rounds.is_retired = True
        self._sampler.retire()
        if self._thread.is_started:
            self._thread.notify()
        elif not self._pending():
            self._close_spool_until_next_span(0)
            lifecycle.let_go(self)

    def _close_spool_until_next_span(self, pending: int) -> None:
        if self._spool.is_open:
            self._spool.close(self._settings.endpoint, pending)
            self._spool.want()

    def ledger(self) -> Ledger:
        produced, delivered, pending, dropped, invalid_fields = self.recorder.counts()
        failures = self._thread.failures + self._past_sampler_failures + self._sampler.failures
        return {
            "produced": produced,
            "delivered": delivered,
            "pending": pending,
            "handed_over": 0 if self._hand_over is None else self._hand_over.span_count,
            "dropped": dropped_by_reason(dropped),
            "invalid_fields": invalid_fields,
            "thread_failures": failures,
        }

    def flush(
        self, timeout_s: float, *, until: Callable[[], bool] = lambda: False, look_s: float = 1e9
    ) -> bool:
        """Wait until nothing is pending that ended before, `timeout_s` at most; True when nothing
        is.

        until: ends the wait as well; looked at every `look_s`.
        """
        deadline = time.monotonic() + timeout_s
        self._delivery.request_flush()
        try:
            counts = self.recorder.counts()
            target = _settled(counts) + counts[2]
            while not self._has_settled(target):
                remaining_s = deadline - time.monotonic()
                if (
                    remaining_s <= 0
                    or self._thread.is_current
                    or self._delivery.is_stopping
                    or until()
                ):
                    return False
                try:
                    self.wake()
                except RuntimeError:  # there are no threads (Pyodide), or no more
                    self._deliver_here(deadline)
                    continue
                progress = self._delivery.progress
                with progress:
                    if not self._has_settled(target):
                        progress.wait(min(remaining_s, self._settings.export_interval_s, look_s))
            return True
        finally:
            self._delivery.end_flush()

    def _deliver_here(self, deadline: float) -> None:
        """On the caller's thread, until the deadline; what is not delivered by then stays."""

        def deliver() -> None:
            self._delivery.caller_deadline = deadline
            try:
                self._rounds.run_once()
            finally:
                self._delivery.caller_deadline = float("inf")

        with contextlib.suppress(OutOfTimeError):
            self._thread.borrow_caller(deliver)

    def shutdown(self, timeout_s: float) -> int:
        """Deliver what can be delivered in `timeout_s`, drop the rest; how many were dropped.

        Where a sender outlives this process, it gets what takes longer than a moment.

        Another call waits for the first, `timeout_s` at most, and answers the same.
        """
        with self._delivery.progress:
            is_first = self._shutting_down_on is None
            if is_first:
                self._shutting_down_on = threading.current_thread()
        if is_first:
            try:
                deadline = time.monotonic() + timeout_s
                self.begin_shutdown(deadline)
                while not self.wait_for_delivery(deadline - time.monotonic()):
                    if time.monotonic() >= deadline or not self._may_wait_longer():
                        break
            except BaseException:  # of a signal handler: another call takes it from there
                self._shutting_down_on = None
                raise
            return self.finish_shutdown()
        # Not a finalizer that interrupted the first call: that cannot go on before it returns.
        if self._shutting_down_on is not threading.current_thread():
            progress = self._delivery.progress
            with progress:
                progress.wait_for(lambda: self._is_shut_down, timeout_s)
        return self._left_by_shutdown if self._is_shut_down else max(self._pending(), 1)

    def begin_shutdown(self, deadline: float) -> None:
        """Take no more spans, and deliver those that are held, until this moment."""
        if self._is_closing:
            return
        self._delivery.deadline = deadline
        # First: threads that go on recording must not keep the delivery from its end.
        self.recorder.close()
        self._delivery.request_flush()
        if (hand_over := self._choose_hand_over()) is not None:
            hand_over.begin(deadline - time.monotonic())
        # RuntimeError: there are no threads; then wait_for_delivery() delivers.
        with contextlib.suppress(RuntimeError):
            if self._pending():
                self.wake()

    def wait_for_delivery(self, timeout_s: float) -> bool:
        """Wait until nothing is pending, or a sender has it, `timeout_s` at most."""
        hand_over = self._choose_hand_over()
        if hand_over is None:
            return self.flush(timeout_s)
        deadline = time.monotonic() + timeout_s
        if hand_over.is_done:
            return True
        if self.flush(timeout_s, until=hand_over.is_due, look_s=_LOOK_S):
            return True
        remaining_s = deadline - time.monotonic()
        return remaining_s > 0 and hand_over.is_due() and hand_over.attempt(remaining_s)

    def _may_wait_longer(self) -> bool:
        return self._hand_over is not None and not (self._is_closing or self._thread.is_current)

    def _choose_hand_over(self) -> HandOver | None:
        """Not where a spool keeps the spans, or where this thread has been delivering them."""
        if (
            self._diversion is not None
            or self._spool.is_open
            or self._thread.is_current
            or not choice.may_hand_over(self._settings)
        ):
            return None
        if self._hand_over is None:
            self._hand_over = HandOver(
                self._delivery,
                self._connection,
                is_possible=lambda: choice.can_hand_over(self._settings),
                pass_on=self._pass_on,
                end_thread=self._end_thread,
            )
        return self._hand_over

    def _pass_on(self, memory: int, span_count: int, timeout_s: float) -> Holding | None:
        return choice.hand_over(
            self._settings,
            memory,
            span_count,
            takes_otlp=self._connection.takes_otlp,
            timeout_s=timeout_s,
        )

    def _end_thread(self) -> None:
        self._thread.notify()
        self._thread.join(_END_OF_THREAD_S)

    def finish_shutdown(self) -> int:
        """Drop what is left; how many spans that were. Another call answers the same."""
        if self._is_closing:
            return self._left_by_shutdown
        self._is_closing = True  # also for a finalizer that comes here amid this
        if self._hand_over is not None:
            self._hand_over.finish()
        with self._delivery.progress:
            if not self._spool.is_open:
                self.recorder.discard()
            self._delivery.is_stopping = True
        self._thread.notify()
        self._thread.join(max(self._delivery.deadline - time.monotonic(), 0.0))
        self._delivery.abandon()
        if not self._thread.is_started:
            self._delivery.say_goodbye()
        if self._hand_over is not None and self._delivery.owes_goodbye:
            self._hand_over.attempt(_GOODBYE_S)
            self._hand_over.finish()
        self._connection.disconnect()
        choice.end_prestarted()
        self._sampler.stop()
        # From the ledger: at the deadline the exporter itself may have given up its batch.
        # If a finalizer called us, the thread it interrupted will drop what is still pending.
        ledger = self.ledger()
        left = ledger["dropped"].get("shutdown", 0) + ledger["pending"] - ledger["handed_over"]
        rounds.log_notices()
        if self._spool.is_open:
            self._spool.close(self._settings.endpoint, ledger["pending"])
        elif left:
            logger.warning(
                "%s: %d spans were not delivered before the shutdown",
                self._settings.endpoint,
                left,
            )
        self._left_by_shutdown = left
        lifecycle.let_go(self)
        with self._delivery.progress:
            self._is_shut_down = True
            self._delivery.progress.notify_all()
        return left

    def _pending(self) -> int:
        return self.recorder.counts()[2]

    def _has_settled(self, target: int) -> bool:
        """Whether nothing is pending, or `_settled` has reached this.

        Where threads or signal handlers go on recording, something always is.
        """
        counts = self.recorder.counts()
        return not counts[2] or (
            _settled(counts) >= target and not self._delivery.has_put_off_spans
        )


def _settled(counts: tuple[int, int, int, tuple[int, ...], int]) -> int:
    """How many of the spans that were held the collector has answered: the oldest, mostly."""
    _, delivered, _, dropped, _ = counts
    return delivered + dropped[_REJECTED]


class _Work(Work):
    """What an exporter's thread does, and what goes with its start and its end."""

    def __init__(self, exporter: Exporter) -> None:
        self._exporter = exporter

    @property
    def is_stopping(self) -> bool:
        return self._exporter._delivery.is_stopping

    def has_pending(self) -> bool:
        return self._exporter._pending() > 0

    def before_start(self) -> None:
        exporter = self._exporter
        exporter._spool.open_if_wanted(exporter._delivery.resource)
        exporter._announce_memory()
        if threads_are_green():
            exporter._delivery.renew_locks()
        lifecycle.keep_open(exporter)

    def run(self) -> None:
        exporter = self._exporter
        exporter._rounds.run()
        exporter._delivery.say_goodbye()
        exporter._connection.disconnect()  # also what was opened after the shutdown had looked

    def let_go(self) -> None:
        exporter = self._exporter
        exporter.recorder.sleep()
        exporter._connection.state = State.UNKNOWN
        exporter._close_spool_until_next_span(exporter._pending())
        lifecycle.let_go(exporter)

    def want_wake(self) -> None:
        self._exporter.recorder.sleep()

    def interrupt(self) -> None:
        if self._exporter.recorder.run_delivery_loop is not None:
            self._exporter.recorder.interrupt()
