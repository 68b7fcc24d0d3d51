"""The connections of a sender: one for each target, whoever of its clients sends there.

Clients do not wait for one another's targets: each has its own connection, and so its own luck.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from infertrace.exporting.answer import Retryable, SpeaksOtlp
from infertrace.exporting.choice import OTLP_INSTEAD, open_here
from infertrace.exporting.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Iterator

    from infertrace.exporting.answer import Answer
    from infertrace.exporting.envelope import Request
    from infertrace.exporting.target import Target

# A channel of gRPC takes any number of calls at once; a connection of HTTP takes one.
_HTTP_CONNECTIONS: Final = 4
_UNUSED_S: Final = 10.0


class SharedTransports:
    """For any number of threads; `acquire` and `release` go in pairs."""

    def __init__(self, unused_s: float = _UNUSED_S) -> None:
        self._unused_s = unused_s
        self._lock = threading.Lock()
        self._open: dict[str, SharedTransport] = {}
        self._delivered_before = 0

    def acquire(self, target: Target) -> SharedTransport:
        """What sends there; connects with the first request."""
        key = json.dumps(target._asdict(), sort_keys=True)
        with self._lock:
            shared = self._open.get(key)
            if shared is None:
                shared = self._open[key] = SharedTransport(target)
            shared.users += 1
            return shared

    def release(self, shared: SharedTransport) -> None:
        """It may close, unless somebody else uses it."""
        with self._lock:
            shared.users -= 1
            shared.unused_since = time.monotonic()

    def close_unused(self) -> None:
        """Close what nobody has used for a while."""
        with self._lock:
            before = time.monotonic() - self._unused_s
            unused = [
                key
                for key, shared in self._open.items()
                if not shared.users and shared.unused_since <= before
            ]
            closing = [self._open.pop(key) for key in unused]
            self._delivered_before += sum(shared.delivered for shared in closing)
        for shared in closing:
            shared.close()

    @property
    def delivered(self) -> int:
        """Spans, wherever they went; a few may be missing where threads count at once."""
        with self._lock:
            return self._delivered_before + sum(it.delivered for it in self._open.values())

    def describe(self) -> list[dict[str, Any]]:
        """Where to, and for how many; without credentials."""
        with self._lock:
            return [
                {
                    "address": shared.target.address,
                    "wire": shared.target.wire,
                    "users": shared.users,
                    "delivered": shared.delivered,
                }
                for shared in self._open.values()
            ]


class SharedTransport(Transport):
    """Sends for any number of threads, each of which gets its turn."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.users = 0
        self.unused_since = 0.0
        self.delivered = 0
        """Spans; a few may be missing where threads count at once."""
        self._is_concurrent = target.wire != "otlp/http"
        self._turns = FairTurns(1 if self._is_concurrent else _HTTP_CONNECTIONS)
        self._idle: list[Transport] = []
        self._switching = threading.Lock()
        self._otlp_instead: SharedTransport | None = None

    def send(self, request: Request, span_count: int, timeout_s: float) -> Answer:
        """Also raises Retryable where no connection can be made, now."""
        answer = self._send(request, span_count, timeout_s)
        self.delivered += answer.accepted_count
        return answer

    def send_either_way(self, request: Request, span_count: int, timeout_s: float) -> Answer:
        """As `send`, and by OTLP from then on where the endpoint turns out to take only that.

        For spans whose tracer cannot switch: it has gone, or names another target than this.
        """
        if self._otlp_instead is None:
            try:
                return self.send(request, span_count, timeout_s)
            except SpeaksOtlp:
                with self._switching:
                    if self._otlp_instead is None:
                        target = self.target._replace(wire=OTLP_INSTEAD)
                        self._otlp_instead = SharedTransport(target)
        answer = self._otlp_instead.send(request, span_count, timeout_s)
        self.delivered += answer.accepted_count
        return answer

    def _send(self, request: Request, span_count: int, timeout_s: float) -> Answer:
        deadline = time.monotonic() + timeout_s
        if self._is_concurrent:
            with self._turns.within(deadline):  # one thread connects; then all send
                transport = self._idle[0] if self._idle else self._opened()
                self._idle = [transport]
            return transport.send(request, span_count, max(deadline - time.monotonic(), 0.001))
        with self._turns.within(deadline):
            transport = self._idle.pop() if self._idle else self._opened()
            try:
                return transport.send(request, span_count, max(deadline - time.monotonic(), 0.001))
            finally:
                self._idle.append(transport)

    def _opened(self) -> Transport:
        try:
            return open_here(self.target)
        except Exception as error:
            # A file that is missing may come; what the user configures next is another target.
            raise Retryable(f"cannot connect: {error}") from None

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()
        if self._otlp_instead is not None:
            self._otlp_instead.close()

    def after_fork_in_child(self) -> None:
        """A sender does not fork."""


class FairTurns:
    """A few may go on at a time, the others in the order in which they came."""

    def __init__(self, at_once: int) -> None:
        self._lock = threading.Lock()
        self._free = at_once
        self._queue: deque[threading.Event] = deque()

    @contextlib.contextmanager
    def within(self, deadline: float) -> Iterator[None]:
        """Raises Retryable where no turn comes until then (monotonic seconds)."""
        self._take(deadline)
        try:
            yield
        finally:
            self._give_back()

    def _take(self, deadline: float) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            mine = threading.Event()
            self._queue.append(mine)
        if mine.wait(max(deadline - time.monotonic(), 0.0)):
            return
        with self._lock:
            if mine.is_set():
                return
            self._queue.remove(mine)
        raise Retryable("others send to this endpoint, and none of them has had an answer")

    def _give_back(self) -> None:
        with self._lock:
            if self._queue:
                self._queue.popleft().set()
            else:
                self._free += 1
