"""Spans that a sender delivers in the name of processes that have gone.

Each target has a queue and, while that holds something, a thread: what cannot be delivered here
delays nothing that goes elsewhere. What is held lies in memories that their owners made; so it ends
with the sender, unless it is a spool.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from infertrace.exporting.answer import Overloaded, Retryable, SendError
from infertrace.exporting.spool_drain import Drain, Leftovers

if TYPE_CHECKING:
    from collections.abc import Callable

    from infertrace.buffering.left_spans import LeftSpans
    from infertrace.exporting.answer import Answer
    from infertrace.exporting.envelope import Request
    from infertrace.exporting.introduction import Introduction
    from infertrace.exporting.sent_batches import SentBatches
    from infertrace.exporting.shared_transports import SharedTransport, SharedTransports
    from infertrace.exporting.spool_drain import Send

_MAX_HELD_BYTES: Final = 256 * 1024 * 1024
_SEND_TIMEOUT_S: Final = 10.0
_FIRST_BACKOFF_S: Final = 0.2
_MAX_BACKOFF_S: Final = 5.0
_MAX_RETRY_AFTER_S: Final = 30.0
# For how long a spool directory keeps a sender here: another process may deliver it as well.
_DIRECTORY_S: Final = 600.0


class Held(Protocol):
    """Something that is delivered in one go, or in several."""

    span_count: int
    size_bytes: int
    is_on_disk: bool = False
    """Whether it outlives the sender, and takes neither memory nor a descriptor."""

    def deliver(self, send: Send) -> tuple[int, int]:
        """Spans delivered, and rejected; raises Retryable to be called again."""

    def close(self) -> None: ...
    def discard(self) -> None:
        """Not to be delivered after all."""
        self.close()


class HeldMemory(Held):
    """What one producer left."""

    def __init__(
        self,
        left: LeftSpans,
        size_bytes: int,
        span_count: int,
        max_batch_bytes: int,
        sent: SentBatches,
        *,
        is_whole: bool,
    ) -> None:
        """is_whole: whether its owner has made it at its end, and nothing in it can be torn."""
        self.span_count = span_count
        self.size_bytes = size_bytes
        self.left = left
        self._max_batch_bytes = max_batch_bytes
        self.sent = sent
        self._is_whole = is_whole
        self._drain: Drain | None = None

    def deliver(self, send: Send) -> tuple[int, int]:
        if self._drain is None:
            settled = self.sent.last_of(self.left.producer_id)
            self._drain = Drain(
                self.left, self._max_batch_bytes, settled, counts_gaps=not self._is_whole
            )
        drained = self._drain.run(send)
        return drained.delivered, drained.rejected

    def close(self) -> None:
        self.left.close()


class HeldDirectory(Held):
    """The spools of a directory, one of whose owners has gone."""

    span_count = size_bytes = 0

    def __init__(self, directory: str, max_batch_bytes: int) -> None:
        self.directory = directory
        self._leftovers = Leftovers(Path(directory), max_batch_bytes)
        self._until = time.monotonic() + _DIRECTORY_S

    def deliver(self, send: Send) -> tuple[int, int]:
        done = self._leftovers.deliver(send)
        if self._leftovers.stopped_by is not None and time.monotonic() < self._until:
            raise self._leftovers.stopped_by
        return sum(d.delivered for _, d in done), sum(d.rejected for _, d in done)

    def close(self) -> None: ...


class HeldSpans:
    """All that a sender holds; for any number of threads."""

    def __init__(
        self,
        transports: SharedTransports,
        max_memories: int,
        keep: Callable[[HeldMemory, Introduction], Held | None] = lambda *_: None,
    ) -> None:
        """max_memories: each takes a descriptor. keep: makes something that lies on a disk of a
        memory; None where it cannot."""
        self._transports = transports
        self._max_memories = max_memories
        self._keep = keep
        self._lock = threading.Lock()
        self._queues: dict[SharedTransport, _Queue] = {}
        self._size_bytes = 0
        self._memories = 0
        self.delivered = self.rejected = self.unreadable = 0
        """Spans of those that have gone; memories that nobody could read."""

    @property
    def count(self) -> int:
        return self._memories

    @property
    def is_empty(self) -> bool:
        return not self._queues

    @property
    def is_on_disk(self) -> bool:
        """Whether all of it outlives this process."""
        with self._lock:
            return not self._memories

    def hold(self, held: Held, introduction: Introduction, *, anyway: bool = False) -> None:
        """Deliver it from now on; raises Overloaded where there is no room.

        anyway: where nobody else could do anything about it, and there is room for one more.
        """
        memory = held
        if isinstance(memory, HeldMemory):
            held = self._keep(memory, introduction) or memory
        transport = self._transports.acquire(introduction.target)
        try:
            with self._lock:
                if not (anyway or held.is_on_disk) and (
                    self._size_bytes + held.size_bytes > _MAX_HELD_BYTES
                    or self._memories >= self._max_memories
                ):
                    raise Overloaded("the sender holds as much as it can")
                queue = self._queues.get(transport)
                if queue is None:
                    queue = _Queue(self, transport)
                    thread = threading.Thread(target=queue.run, daemon=True)
                    try:
                        thread.start()
                    except RuntimeError as error:
                        raise Overloaded(f"the sender has no thread for it: {error}") from None
                    self._queues[transport] = queue
                queue.items.append(held)
                self._count(held, 1)
                queue.has_come.set()
        except BaseException:
            self._transports.release(transport)
            if held is not memory:
                held.discard()
            raise
        if held is not memory:
            memory.close()

    def _count(self, held: Held, more: int) -> None:
        if not held.is_on_disk:
            self._size_bytes += more * held.size_bytes
            self._memories += more

    def hold_directory(self, introduction: Introduction) -> None:
        """Deliver the spools of that process, which has gone; another time, where that fails."""
        if introduction.spool_dir is None:
            return
        for queue in list(self._queues.values()):
            for item in list(queue.items):
                if isinstance(item, HeldDirectory) and item.directory == introduction.spool_dir:
                    return
        with contextlib.suppress(Overloaded):
            self.hold(
                HeldDirectory(introduction.spool_dir, introduction.max_batch_bytes), introduction
            )

    def describe(self) -> list[dict[str, Any]]:
        """What is held for each target, without credentials."""
        with self._lock:
            return [
                {
                    "target": queue.transport.target.address,
                    "wire": queue.transport.target.wire,
                    "held": len(queue.items),
                    "spans": sum(item.span_count for item in queue.items),
                    "bytes": sum(item.size_bytes for item in queue.items),
                    "error": queue.error,
                }
                for queue in self._queues.values()
            ]

    def _next_of(self, queue: _Queue) -> Held | None:
        with self._lock:
            if queue.items:
                return queue.items[0]
            self._queues.pop(queue.transport, None)
            return None

    def _is_done(self, queue: _Queue, held: Held) -> None:
        with self._lock:
            queue.items.popleft()
            self._count(held, -1)
        held.close()
        self._transports.release(queue.transport)


class _Queue:
    """What is held for one target."""

    def __init__(self, all_held: HeldSpans, transport: SharedTransport) -> None:
        self._all = all_held
        self.transport = transport
        self.items: deque[Held] = deque()
        self.has_come = threading.Event()
        self.error = ""
        """Why the last delivery failed."""

    def run(self) -> None:
        """Deliver one after the other, until nothing is held."""
        self.has_come.wait()
        backoff_s = _FIRST_BACKOFF_S
        while (held := self._all._next_of(self)) is not None:
            try:
                delivered, rejected = held.deliver(self._send)
            except Retryable as error:
                self.error = str(error)
                self.items.rotate(-1)  # it may be what the collector stumbles over
                wait_s = min(error.retry_after_s or 0.0, _MAX_RETRY_AFTER_S)
                time.sleep(max(backoff_s, wait_s))
                backoff_s = min(backoff_s * 2, _MAX_BACKOFF_S)
                continue
            except Exception as error:  # nobody foresaw it, and others wait behind this one
                self.error = f"{type(error).__name__}: {error}"
                self._all.unreadable += 1
            else:
                self._all.delivered += delivered
                self._all.rejected += rejected
                self.error = ""
                backoff_s = _FIRST_BACKOFF_S
            self._all._is_done(self, held)

    def _send(self, request: Request, span_count: int) -> Answer:
        try:
            return self.transport.send_either_way(request, span_count, _SEND_TIMEOUT_S)
        except SendError:
            raise
        except Exception as error:  # what gRPC does not document
            raise Retryable(f"{type(error).__name__}: {error}") from None
