"""The end of a process: what it could not deliver goes to a sender, which holds it from then on.

A process waits for its collector only for a moment. Then it stops its own delivery, puts all that
is pending into a memory, and passes that to the sender, which answers when it has it.
"""

from __future__ import annotations

import os
import time

from infertrace.exporting.answer import SendError
from infertrace.exporting.connection import State

if os.name == "posix":  # not when it is needed: by then the process may have lost its rights
    from infertrace.buffering.spool_memory import write_memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, Protocol

    from infertrace.buffering.batch import Batch
    from infertrace.exporting.answer import Answer
    from infertrace.exporting.connection import Connection
    from infertrace.exporting.delivery import Delivery
else:
    Protocol = object

# How long the collector may take for what the process still has; not where it has just failed.
_PATIENCE_S: Final = 0.5
# How long the sender may take to answer. It has the spans already, unless it ends.
_ANSWER_PATIENCE_S: Final = 0.5
# After an attempt that failed at once.
_PAUSE_S: Final = 0.02


class Holding(Protocol):
    """Spans on their way to a sender; see `host_sender.Holding`."""

    def wait(self, timeout_s: float) -> Answer: ...
    def close(self) -> None: ...


class HandOver:
    """Of one exporter; used once, by the thread that shuts it down."""

    def __init__(
        self,
        delivery: Delivery,
        connection: Connection,
        *,
        is_possible: Callable[[], bool],
        pass_on: Callable[[int, int, float], Holding | None],
        end_thread: Callable[[], None],
    ) -> None:
        """is_possible: whether there may be a sender that holds spans. pass_on: passes a memory,
        given its descriptor, its spans and a timeout (s), or raises OSError. end_thread: returns
        when the exporter's thread has ended, or will not soon."""
        self._delivery = delivery
        self._connection = connection
        self._can = is_possible
        self._pass_on = pass_on
        self._end_thread = end_thread
        self._is_possible: bool | None = None
        self._due_s = 0.0
        self._left: list[Batch] | None = None
        self._memory = -1
        self._holding: Holding | None = None
        self._answer_due_s = 0.0
        self.is_done = False
        self.span_count = 0
        """How many spans a sender has taken over; they stay pending for the producer."""

    def begin(self, timeout_s: float) -> None:
        """From now on the collector has its time, at most half of this one."""
        self._due_s = time.monotonic() + min(_PATIENCE_S, timeout_s / 2)

    def is_due(self) -> bool:
        """Whether the collector has had its time."""
        return self._is_possible is not False and (
            time.monotonic() >= self._due_s or self._connection.state in (State.DOWN, State.REFUSED)
        )

    def attempt(self, timeout_s: float) -> bool:
        """Hand over what is pending; False where that cannot be done, or not within this time.

        Called again, it goes on waiting for the sender's answer.
        """
        deadline = time.monotonic() + timeout_s
        if self._is_possible is None:
            self._is_possible = self._can()
        if not self._is_possible:
            return False
        try:
            if self._holding is None:
                self._begin(deadline)
            if self._holding is not None:
                until = min(deadline, self._answer_due_s)
                self._holding.wait(max(until - time.monotonic(), 0.001))
                self._settle()
        except TimeoutError:  # on a busy machine
            if self._holding is not None and time.monotonic() >= self._answer_due_s:
                self._settle()
        except (OSError, SendError):
            self._end_holding()
            time.sleep(min(max(deadline - time.monotonic(), 0.0), _PAUSE_S))
        return self.is_done

    def _begin(self, deadline: float) -> None:
        if self._left is None:
            self._delivery.stop_for_another()
            transport = self._connection.park()
            if transport is not None:
                transport.stop_waiting()
                self._end_thread()
            self._left = self._delivery.leave()
        if self._memory < 0:
            self._memory = self._write()
        timeout_s = max(deadline - time.monotonic(), 0.001)
        self._holding = self._pass_on(self._memory, self._count(), timeout_s)
        self._answer_due_s = time.monotonic() + _ANSWER_PATIENCE_S

    def _count(self) -> int:
        return sum(batch.span_count for batch in self._left or ())

    def _settle(self) -> None:
        self.span_count = self._count()
        self._left = []
        self.is_done = True
        self._end_holding()

    def _end_holding(self) -> None:
        holding, self._holding = self._holding, None
        if holding is not None:
            holding.close()

    def _write(self) -> int:
        producer = self._delivery.producer()
        late = producer.dropped.get("rejected", 0)
        early = sum(producer.dropped.values()) - late
        return write_memory(
            self._left or [],
            producer_id=producer.producer_id,
            resource=producer.resource,
            batch_sequence=producer.batch_sequence,
            last_sequence=producer.produced - early,
            dropped=producer.dropped,
        )

    def finish(self) -> None:
        """Count as dropped what no sender has.

        One that has not answered, and has not ended either, finds the spans on its socket.
        """
        if self._holding is not None:
            self._settle()
        memory, self._memory = self._memory, -1
        if memory >= 0:
            os.close(memory)
        self._connection.close_parked()
        left, self._left = self._left, []
        self._delivery.give_up(left or [])
