"""What the exporter's thread does, round after round."""

from __future__ import annotations

import time

from infertrace.exporting import envelope
from infertrace.exporting.answer import Retryable
from infertrace.exporting.connection import State
from infertrace.green_threads import threads_are_green
from infertrace.log import logger
from infertrace.recording.invalid_values import take_notices

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from infertrace.backend import Backend, Recorder
    from infertrace.exporting.answer import Answer
    from infertrace.exporting.connection import Connection
    from infertrace.exporting.delivery import Delivery
    from infertrace.exporting.envelope import Request
    from infertrace.exporting.own_spool import OwnSpool


_CLOCK_STEP_NS: Final = 50_000_000
_FOREVER_S: Final = 1e9
_INTERVALS_BETWEEN_LEFTOVERS: Final = 10


class Rounds:
    """Full batches at once; at each interval, or for a flush, all that is held and the chores."""

    def __init__(
        self,
        backend: Backend,
        recorder: Recorder,
        connection: Connection,
        delivery: Delivery,
        spool: OwnSpool,
        *,
        wait: Callable[[float], None],
        after_round: Callable[[], None],
        export_interval_s: float,
    ) -> None:
        self._monotonic_ns = backend.monotonic_ns
        self._recorder = recorder
        self._connection = connection
        self._delivery = delivery
        self._spool = spool
        self._wait = wait
        self._after_round = after_round
        self.export_interval_s = export_interval_s
        self.delivers_leftovers = True
        """Whether what dead processes left is delivered too."""
        self.is_retired = False
        """Whether the rounds end once nothing is pending."""

    def run(self) -> None:
        """Until a shutdown, or until nothing is pending for a retired exporter."""
        delivery = self._delivery
        due = time.monotonic() + self.export_interval_s
        while not delivery.is_stopping:
            if self._recorder.memory_descriptor is not None:
                self._connection.prepare()  # from now on a sender delivers what a kill leaves
            if not self._deliver_without_gil():
                self._wait(max(due - time.monotonic(), 0.0))
            # Spans that do not fill a batch wait for the interval: sending a few at a time, over
            # and over, would take the GIL from the traced loop each time.
            delivery.deliver_all(partial=False)
            if delivery.flush_requests or self.is_retired or time.monotonic() >= due:
                log_notices()
                self._follow_wall_clock()
                delivery.deliver_all(partial=True)
                self._replace_damaged_spool()
                self._deliver_leftovers()
                due = time.monotonic() + self.export_interval_s
            delivery.tell_of_progress()
            self._after_round()  # what the first spans of a forked child need not wait for
            if self.is_retired and not self._recorder.counts()[2]:
                return

    def run_once(self) -> None:
        """Deliver all that is held, without the chores; raises OutOfTimeError."""
        self._follow_wall_clock()
        while self._delivery.take(partial=True):
            self._delivery.deliver()

    def _deliver_without_gil(self) -> bool:
        """Deliver while all goes well and spans come; whether that was possible."""
        transport = self._connection.transport
        run = self._recorder.run_delivery_loop
        delivery = self._delivery
        if (
            run is None
            or transport is None
            or self._connection.state is not State.UP
            or delivery.unacknowledged
            or delivery.flush_requests
            or self.is_retired
            or threads_are_green()
        ):
            return False
        interval_s = self.export_interval_s
        result = transport.run_delivery_loop(
            run,
            envelope.encode_producer_id(delivery.producer_id),
            delivery.resource,
            delivery.batch_sequence,
            timeout_s=delivery.send_timeout_s,
            interval_s=interval_s,
            stay_s=_INTERVALS_BETWEEN_LEFTOVERS * interval_s
            if self._spool.has_neighbours
            else _FOREVER_S,
        )
        if result is None:
            return False
        delivery.batch_sequence = result.batch_sequence
        if result.batch is not None:
            delivery.deliver_sent(result.batch, result.outcome)
        elif result.outcome is not None and transport is self._connection.transport:
            self._connection.disconnect()
        return True

    def _follow_wall_clock(self) -> None:
        anchor = time.time_ns() - self._monotonic_ns()
        if abs(anchor - self._recorder.anchor) > _CLOCK_STEP_NS:
            while self._recorder.encode_some():  # by the clock that they were recorded by
                pass
            self._recorder.anchor = anchor

    def _replace_damaged_spool(self) -> None:
        damaged = self._spool.find_damaged()
        if damaged is None:
            return
        logger.warning(
            "the spool %s was cut short or removed, or cannot be written; another takes its place",
            damaged,
        )
        delivery = self._delivery
        with delivery.progress:
            file = None if delivery.is_stopping else self._spool.detach()
        if file is None:
            return
        file.close(keep=False)
        self._spool.want()
        self._spool.open_if_wanted(delivery.resource)
        if delivery.is_stopping:  # a shutdown did not find the new one
            self._spool.close(self._connection.endpoint, self._recorder.counts()[2])

    def _deliver_leftovers(self) -> None:
        """When there is a collector to take them; newer spans go first once a flush waits."""
        delivery = self._delivery
        if (
            not self.delivers_leftovers
            or self._connection.state is not State.UP
            or delivery.is_stopping
        ):
            return
        has_sent = False

        def send(request: Request, span_count: int) -> Answer:
            nonlocal has_sent
            # One request in each round, or a program that flushes all the time would starve them.
            if has_sent and delivery.flush_requests:
                raise Retryable("a flush waits for newer spans")
            has_sent = True
            return delivery.send(request, span_count)

        self._spool.deliver_leftovers(send)


def log_notices() -> None:
    """Log the wrong values that have been noticed since the last time."""
    for notice in take_notices():
        logger.warning("%s (said once for each kind; stats() counts invalid_fields)", notice)
