"""The end of a process: what it could not deliver goes to a sender, which holds it from then on.

A process waits for its collector only for a moment. Then it stops its own delivery, puts all that
is pending into a memory, and passes that to the sender, which answers when it has it.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final, Protocol

from infertrace.exporting.answer import SendError
from infertrace.exporting.connection import State

if os.name == "posix":  # not when it is needed: by then the process may have lost its rights
    from infertrace.buffering.spool_memory import write_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from infertrace.buffering.batch import Batch
    from infertrace.exporting.answer import Answer
    from infertrace.exporting.connection import Connection
    from infertrace.exporting.delivery import Delivery

# How long the collector may take for what the process still has; not where it has just failed.
_PATIENCE_S: Final = 0.5
# For an answer; then the sender is asked again, and knows if it holds the spans already.
_ANSWER_TIMEOUT_S: Final = 1.0
_PAUSE_S: Final = 0.02


class Holder(Protocol):
    """A connection to a sender that holds spans; see `host_sender.HostSender`."""

    def hold(self, descriptor: int, span_count: int, timeout_s: float) -> Answer: ...
    def close(self) -> None: ...


class HandOver:
    """Of one exporter; used once, by the thread that shuts it down."""

    def __init__(
        self,
        delivery: Delivery,
        connection: Connection,
        *,
        open_holder: Callable[[float], Holder | None],
        end_thread: Callable[[], None],
    ) -> None:
        """open_holder: given its timeout (s); None where there is no such sender, and an OSError
        where it is not ready yet. end_thread: returns when the exporter's thread has ended, or will
        not soon."""
        self._delivery = delivery
        self._connection = connection
        self._open_holder = open_holder
        self._end_thread = end_thread
        self._is_possible = True
        self._due_s: float | None = None
        self._left: list[Batch] | None = None
        self._memory = -1
        self.is_done = False
        self.span_count = 0
        """How many spans a sender has taken over; they stay pending for the producer."""

    def is_due(self) -> bool:
        """Whether the collector has had its time. The time begins with the first call."""
        now = time.monotonic()
        if self._due_s is None:
            self._due_s = now + _PATIENCE_S
        return self._is_possible and (
            now >= self._due_s or self._connection.state in (State.DOWN, State.REFUSED)
        )

    def attempt(self, timeout_s: float) -> bool:
        """Hand over what is pending; False where that cannot be done, or not within this time."""
        deadline = time.monotonic() + timeout_s
        if self._attempt(deadline):
            return True
        time.sleep(min(max(deadline - time.monotonic(), 0.0), _PAUSE_S))
        return False

    def _attempt(self, deadline: float) -> bool:
        try:
            holder = self._open_holder(max(deadline - time.monotonic(), 0.001))
        except OSError:
            return False
        if holder is None:
            self._is_possible = False
            return False
        try:
            left = self._stop_delivery()
            count = sum(batch.span_count for batch in left)
            wait_s = min(max(deadline - time.monotonic(), 0.05), _ANSWER_TIMEOUT_S)
            holder.hold(self._memory, count, wait_s)
        except (OSError, SendError):
            return False
        finally:
            holder.close()
        self.span_count = count
        self.is_done = True
        self._left = []
        self._close_memory()
        return True

    def _stop_delivery(self) -> list[Batch]:
        if self._left is None:
            self._delivery.stop_for_another()
            transport = self._connection.park()
            if transport is not None:
                transport.stop_waiting()
            self._end_thread()
            self._left = self._delivery.leave()
        if self._memory < 0:
            self._memory = self._write()
        return self._left

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
        """Count as dropped what was to be handed over, and was not."""
        self._close_memory()
        self._connection.close_parked()
        left, self._left = self._left, []
        self._delivery.give_up(left or [])

    def _close_memory(self) -> None:
        memory, self._memory = self._memory, -1
        if memory >= 0:
            os.close(memory)
