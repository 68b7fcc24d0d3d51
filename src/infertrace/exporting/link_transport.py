"""Batches by way of a process that sends them; this process only writes to a socket."""

from __future__ import annotations

import contextlib
import socket
from functools import partial

from infertrace.exporting import link
from infertrace.exporting.answer import Answer, Disconnected
from infertrace.exporting.transport import LoopResult, Transport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, Protocol

    from infertrace.backend import Roundtrip, RunDeliveryLoop
    from infertrace.exporting.envelope import Request
    from infertrace.exporting.packed_request import PackedRequest
else:
    Protocol = object

# What the way to the sender and back may take on top of the request itself.
_GRACE_S: Final = 1.0


class Sender(Protocol):
    """Who is at the other end of the link, ready for requests."""

    socket: socket.socket

    @property
    def pid(self) -> int | None: ...
    def end(self) -> None:
        """Called when the socket is closed, or about to be."""

    def after_fork_in_child(self) -> None:
        """Close this copy of the socket, and leave the parent's sender alone."""


class LinkTransport(Transport):
    """Hands each request to a sender, and takes the sender's word for the collector's."""

    def __init__(
        self,
        sender: Sender,
        compiled: Roundtrip | None = None,
        on_idle: Callable[[], bool] = lambda: False,
    ) -> None:
        self._sender = sender
        self._socket = sender.socket
        self._roundtrip = link.choose_roundtrip(self._socket, compiled, on_idle)
        self._is_in_use = self._is_closed = False

    def send(self, request: Request, span_count: int, timeout_s: float) -> Answer:
        return self._exchange(link.frame(request, span_count, timeout_s), timeout_s)

    def send_packed(self, request: PackedRequest, span_count: int, timeout_s: float) -> Answer:
        parts = link.frame(request.body(), span_count, timeout_s, link.Kind.PACKED)
        return self._exchange(parts, timeout_s)

    def _exchange(self, parts: tuple[bytes, ...], timeout_s: float) -> Answer:
        self._is_in_use = True
        try:
            if self._is_closed:
                raise Disconnected("the connection was closed")
            answer = self._roundtrip(parts, timeout_s + _GRACE_S)
        except OSError as error:
            return _read(error)
        finally:
            self._leave()
        return _read(answer)

    def run_delivery_loop(
        self,
        run: RunDeliveryLoop,
        producer: bytes,
        resource: bytes,
        batch_sequence: int,
        *,
        timeout_s: float,
        interval_s: float,
        stay_s: float,
    ) -> LoopResult | None:
        self._is_in_use = True
        try:
            if self._is_closed:
                return None
            result = run(
                self._socket.fileno(),
                producer,
                resource,
                batch_sequence,
                head=link.ANSWER_HEAD_BYTES,
                size_at=link.ANSWER_SIZE_AT,
                timeout_s=timeout_s,
                interval_s=interval_s,
                stay_s=stay_s,
            )
        finally:
            self._leave()
        if result is None:
            return None
        last_sequence, batch, answer = result
        return LoopResult(last_sequence, batch, None if answer is None else partial(_read, answer))

    def stop_waiting(self) -> None:
        # Only this direction: what the sender hears, it must not take for the end of the process.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)

    def _leave(self) -> None:
        self._is_in_use = False
        if self._is_closed:
            self._socket.close()

    @property
    def sender_pid(self) -> int | None:
        return self._sender.pid

    def close(self) -> None:
        self._is_closed = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for an answer
        # A thread that uses the socket closes it itself: after this thread had closed it, that
        # thread would go on with the number of another file.
        if not self._is_in_use:
            self._socket.close()
        self._sender.end()

    def after_fork_in_child(self) -> None:
        self._sender.after_fork_in_child()


def _read(answer: bytes | OSError) -> Answer:
    if isinstance(answer, OSError):
        # What comes on this socket later would be taken for the answer to another request.
        raise Disconnected(f"the sender process does not answer: {answer}")
    return link.unpack_answer(answer)
