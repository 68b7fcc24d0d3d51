"""What became of the last batch of each producer, for whoever delivers what the producer left.

A process may end while its batch is on its way, and not know that it arrives; the sender does.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from infertrace.exporting.spool_drain import NOTHING, Settled

if TYPE_CHECKING:
    from infertrace.exporting.answer import Answer
    from infertrace.exporting.envelope import Sent

_MAX_PRODUCERS: Final = 4096
_WAIT_S: Final = 1.0


class SentBatches:
    """For any number of threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        # The newest last; the oldest are forgotten.
        self._last: OrderedDict[bytes, Settled] = OrderedDict()
        self._in_flight: dict[bytes, int] = {}
        # Whether by a goodbye: a tracer that nobody can reach says it, and may record all the same.
        self._ended: OrderedDict[bytes, bool] = OrderedDict()

    def begin(self, sent: Sent) -> None:
        """A batch of this producer is on its way."""
        with self._changed:
            if not sent.is_final and self._ended.get(sent.producer_id):
                del self._ended[sent.producer_id]
            self._in_flight[sent.producer_id] = self._in_flight.get(sent.producer_id, 0) + 1

    def end(self, sent: Sent, span_count: int, answer: Answer | None) -> None:
        """It has arrived, and this was the answer; None: it may come again."""
        with self._changed:
            count = self._in_flight.pop(sent.producer_id) - 1
            if count:
                self._in_flight[sent.producer_id] = count
            if answer is not None and span_count:
                first = sent.first_span_sequence
                self._last[sent.producer_id] = Settled(
                    range(first, first + span_count), answer.accepted_count
                )
                self._last.move_to_end(sent.producer_id)
                while len(self._last) > _MAX_PRODUCERS:
                    self._last.popitem(last=False)
            if answer is not None and sent.is_final:
                self._mark_ended(sent.producer_id, by_goodbye=True)
            self._changed.notify_all()

    def last_of(self, producer_id: bytes) -> Settled:
        """The last batch that was settled; waits until none is on its way."""
        with self._changed:
            while producer_id in self._in_flight:
                self._changed.wait(_WAIT_S)
            return self._last.get(producer_id, NOTHING)

    def mark_ended(self, producer_id: bytes) -> bool:
        """Whether this is the first time that somebody says so."""
        with self._changed:
            return self._mark_ended(producer_id, by_goodbye=False)

    def has_ended(self, producer_id: bytes) -> bool:
        with self._changed:
            return producer_id in self._ended

    def _mark_ended(self, producer_id: bytes, *, by_goodbye: bool) -> bool:
        is_new = producer_id not in self._ended
        self._ended[producer_id] = by_goodbye
        while len(self._ended) > _MAX_PRODUCERS:
            self._ended.popitem(last=False)
        return is_new

    def unmark_ended(self, producer_id: bytes) -> None:
        """It has not: nobody could hold what it left."""
        with self._changed:
            self._ended.pop(producer_id, None)
