"""Forwards durable spans: for each target a queue, a thread, and the exporter's delivery."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

from infertrace.buffering.batch import Batch
from infertrace.collector.background_thread import BackgroundThread
from infertrace.collector.forwarding.forward_account import ForwardAccount
from infertrace.collector.forwarding.forward_queue import ForwardQueue
from infertrace.collector.forwarding.forward_target import ForwardTarget
from infertrace.collector.ingest.sent_spans import SentSpans
from infertrace.exporting import envelope
from infertrace.exporting.choice import open_here
from infertrace.exporting.connection import Connection
from infertrace.exporting.delivery import Delivery, Spool, SystemClock
from infertrace.exporting.envelope import Request
from infertrace.exporting.transport import Transport

MAX_QUEUE_BYTES: Final = 64 * 1024 * 1024
"""Of the encoded spans that wait for one target."""
_LOOK_S: Final = 1.0  # between looks at the queue, which wakes the thread by itself
_LAST_REQUEST_S: Final = 1.0  # for a request that is being sent at the deadline
_PRODUCER_ID_BYTES: Final = 16


_log = logging.getLogger(__name__)


class Forwarder:
    """One target. Its collector knows the forwarder as a producer, by our own protocol."""

    def __init__(self, forward: ForwardTarget) -> None:
        self.name = forward.name
        self.share = forward.share
        self.account = ForwardAccount()
        self._queue = ForwardQueue(self.account, forward.share, MAX_QUEUE_BYTES)
        target = forward.target
        if target.wire == "infertrace":
            switch = partial(self._open_for_otlp, forward)
            self._connection = Connection(forward.name, partial(open_here, target), switch)
        else:
            self._connection = Connection(forward.name, partial(open_here, target))
        self._delivery = _Delivery(self._queue, self._connection, target.wire != "infertrace")
        self.thread = BackgroundThread(f"forward {forward.name}", self._work)

    def start(self) -> None:
        self.thread.start()

    def offer(self, sent: SentSpans) -> None:
        """Queue the valid spans of a durable request; neither blocks nor raises."""
        self._queue.offer(sent)
        self.thread.ensure()

    def begin_stop(self, deadline_s: float) -> None:
        """Take nothing more, and deliver what waits until then, by the monotonic clock."""
        self._delivery.deadline = deadline_s
        self._delivery.request_flush()
        self._queue.close()

    def finish_stop(self) -> None:
        """Drop what was not delivered by the deadline."""
        delivery = self._delivery
        self.thread.stop(max(delivery.deadline - time.monotonic(), 0.0))
        with delivery.progress:
            self._queue.discard()
            delivery.is_stopping = True
        self.thread.join(_LAST_REQUEST_S)
        delivery.abandon()
        self._connection.disconnect()
        lost = self.account.counts().dropped.get("shutdown", 0)
        if lost:
            _log.warning("%s: %d spans were not forwarded before the end", self.name, lost)

    def _open_for_otlp(self, forward: ForwardTarget) -> Transport:
        self._delivery.speaks_otlp = True
        return open_here(forward.target._replace(wire="otlp/grpc"))

    def _work(self, thread: BackgroundThread) -> None:
        delivery = self._delivery
        while not delivery.is_stopping:
            self._queue.wait(_LOOK_S)
            delivery.deliver_all(partial=False)
            thread.does_well()
            if delivery.flush_requests and not self._queue.has_requests:
                break
        delivery.say_goodbye()
        self._connection.disconnect()


class _NoSpool(Spool):
    """What is not delivered is lost when the collector ends; the store has it."""

    @property
    def is_open(self) -> bool:
        return False

    def set_batch_sequence(self, number: int) -> None: ...


class _Delivery(Delivery):
    """Whose batches have a resource each."""

    def __init__(self, queue: ForwardQueue, connection: Connection, speaks_otlp: bool) -> None:
        super().__init__(
            queue,
            connection,
            _NoSpool(),
            producer_id=os.urandom(_PRODUCER_ID_BYTES),
            resource=b"",
            clock=SystemClock(queue.pause),
        )
        self._queue = queue
        self.speaks_otlp = speaks_otlp
        """OTLP has no words for a producer, whose id would become that of an instance."""

    def encode(self, batch: Batch) -> Request:
        resource = self._queue.resource_of(batch.first_span_sequence)
        if self.speaks_otlp:
            return batch.payload, resource
        producer = self.producer()._replace(resource=resource)
        return envelope.encode(batch.payload, batch.first_span_sequence, producer)


class Forwarding:
    """All targets."""

    def __init__(self, targets: Sequence[ForwardTarget]) -> None:
        self.forwarders = [Forwarder(target) for target in targets]

    @property
    def threads(self) -> list[BackgroundThread]:
        return [forwarder.thread for forwarder in self.forwarders]

    def start(self) -> None:
        for forwarder in self.forwarders:
            forwarder.start()

    def pass_on(self, sent: SentSpans) -> None:
        """Queue the valid spans of a durable request for each target; neither blocks nor raises."""
        for forwarder in self.forwarders:
            forwarder.offer(sent)

    def stop(self, grace_s: float) -> None:
        """Deliver what waits, for that time at most and all targets at once; drop the rest."""
        deadline_s = time.monotonic() + grace_s
        for forwarder in self.forwarders:
            forwarder.begin_stop(deadline_s)
        for forwarder in self.forwarders:
            forwarder.finish_stop()
