"""One thread that writes; batches that arrive together share one transaction."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

from infertrace.collector.background_thread import BackgroundThread
from infertrace.collector.counters import Counters
from infertrace.collector.store.store import Batch, SpanWriter, StoreBusyError, StoreError

MAX_PENDING_BYTES = 64 * 1024 * 1024  # of requests that are decoded or wait for their commit
WRITING_THREAD = "store"
MAX_GROUP_SPANS = 100_000  # in one transaction


class OverloadError(Exception):
    """Too many bytes wait for the store; the sender should retry later."""


@dataclass
class Reservation:
    """The room that one request takes until it is durable or has failed."""

    byte_count: int
    submitted: bool = False


@dataclass(frozen=True)
class _Pending:
    batch: Batch
    byte_count: int
    done: Future[None] = field(default_factory=Future)


class GroupCommit:
    """Writes batches to a store from one thread."""

    def __init__(
        self, store: SpanWriter, counters: Counters, max_pending_bytes: int = MAX_PENDING_BYTES
    ) -> None:
        self._store = store
        self._counters = counters
        self._max_pending_bytes = max_pending_bytes
        self._pending_bytes = 0
        self._is_stopping = False
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[_Pending | None] = queue.SimpleQueue()
        self.thread = BackgroundThread(WRITING_THREAD, self._run)

    def start(self) -> None:
        """Start the writing thread."""
        self.thread.start()

    @contextmanager
    def reserve(self, byte_count: int) -> Iterator[Reservation]:
        """Reserve room for a request of `byte_count` bytes, before it is decoded.

        A submitted request keeps its room until it is durable or has failed. Raises OverloadError.
        """
        with self._lock:
            # One request always fits, however large.
            if self._pending_bytes and self._pending_bytes + byte_count > self._max_pending_bytes:
                raise OverloadError(f"{self._pending_bytes} bytes wait for the store")
            self._pending_bytes += byte_count
        self._counters.add(pending_bytes=byte_count)
        reservation = Reservation(byte_count)
        try:
            yield reservation
        finally:
            if not reservation.submitted:
                self._release(byte_count)

    def submit(self, batch: Batch, reservation: Reservation) -> Future[None]:
        """Queue a batch; the future is done when it is durable, or fails with StoreError."""
        pending = _Pending(batch, reservation.byte_count)
        reservation.submitted = True
        self._queue.put(pending)
        self.thread.ensure()
        return pending.done

    def stop(self, timeout_s: float) -> bool:
        """Write what is queued, then end the thread; False if that took too long."""
        self._queue.put(None)
        return self.thread.join(timeout_s)

    def _release(self, byte_count: int) -> None:
        with self._lock:
            self._pending_bytes -= byte_count
        self._counters.add(pending_bytes=-byte_count)

    def _settle(self, pending: _Pending, failure: Exception | None) -> None:
        if pending.done.done():
            return
        self._release(pending.byte_count)
        if failure is None:
            pending.done.set_result(None)
        else:
            pending.done.set_exception(failure)

    def _run(self, thread: BackgroundThread) -> None:
        while not self._is_stopping:
            first = self._queue.get()
            if first is None:
                return
            group = [first]
            span_count = len(first.batch.rows)
            while span_count < MAX_GROUP_SPANS:
                try:
                    following = self._queue.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    self._is_stopping = True
                    break
                group.append(following)
                span_count += len(following.batch.rows)
            try:
                if not self._commit(group):
                    # A batch that cannot be written must not fail its neighbours.
                    for pending in group:
                        self._commit([pending])
            finally:
                # Whatever ended this thread, no request may wait for it forever.
                for pending in group:
                    self._settle(pending, StoreError("the thread that writes has ended"))
            thread.does_well()

    def _commit(self, group: list[_Pending]) -> bool:
        """Write a group and settle its batches; False where one of several may have failed it."""
        failure: Exception | None = None
        duplicates = 0
        try:
            duplicates = self._store.commit([pending.batch for pending in group])
        except Exception as error:  # whatever it is, this thread has to continue
            failure = error if isinstance(error, StoreError) else StoreError(repr(error))
        if failure is not None:
            self._counters.add(commit_failures=1)
            if len(group) > 1 and not isinstance(failure, StoreBusyError):
                return False
        else:
            self._counters.add(
                commits=1,
                spans_duplicate=duplicates,
                spans_accepted=sum(len(pending.batch.rows) for pending in group),
            )
        for pending in group:
            self._settle(pending, failure)
        return True
