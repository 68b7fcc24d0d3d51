"""How requests and answers travel over a file descriptor, between a traced process and its sender.

A request is a head and an envelope, an answer is a head and a text. One answer follows each
request, so a connection on which an answer stayed away is of no more use.
"""

from __future__ import annotations

import math
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from infertrace.exporting.answer import (
    Answer,
    Overloaded,
    Refused,
    Retryable,
    SendError,
    SpeaksOtlp,
    Stumbled,
    TooLarge,
)
from infertrace.green_threads import threads_are_green

if TYPE_CHECKING:
    from infertrace.backend import Roundtrip
    from infertrace.exporting.envelope import Request

# A request: its size, how long the collector may take for it in seconds, and its spans. The twin
# is in csrc/recorder/delivery_loop.h.
_REQUEST: Final = struct.Struct("=Qdq")
# An answer: its kind; spans accepted, spans rejected; seconds to wait, or NaN; size of a text.
_ANSWER: Final = struct.Struct("=BqqdI")
ANSWER_HEAD_BYTES: Final = _ANSWER.size
ANSWER_SIZE_AT: Final = _ANSWER.size - 4
_ACCEPTED, _RETRYABLE, _TOO_LARGE, _REFUSED, _OVERLOADED, _STUMBLED, _SPEAKS_OTLP = range(7)
_MAX_TEXT_BYTES: Final = 4096
_MAX_ANSWER_BYTES: Final = _ANSWER.size + _MAX_TEXT_BYTES
_ERRORS: Final[Mapping[int, type[SendError]]] = {
    _TOO_LARGE: TooLarge,
    _REFUSED: Refused,
    _OVERLOADED: Overloaded,
    _STUMBLED: Stumbled,
    _SPEAKS_OTLP: SpeaksOtlp,
}

# Between two looks for an answer, when there is nothing else to do, and when there is.
_LOOK_INTERVAL_S: Final = 0.1
_BUSY_INTERVAL_S: Final = 0.001
_NO_SIGNAL: Final = getattr(socket, "MSG_NOSIGNAL", 0)

LinkRoundtrip = Callable[[tuple[bytes, ...], float], bytes]
"""Writes the parts of a request and reads its answer; raises OSError after this time (s)."""


class Received(NamedTuple):
    """A request as it came to the sender."""

    envelope: bytes
    span_count: int
    timeout_s: float


def pack_request(size_bytes: int, span_count: int, timeout_s: float) -> bytes:
    """The head of a request."""
    return _REQUEST.pack(size_bytes, timeout_s, span_count)


def frame(request: Request, span_count: int, timeout_s: float) -> tuple[bytes, ...]:
    """A request with its head, in parts."""
    return pack_request(sum(map(len, request)), span_count, timeout_s), *request


def receive(connection: socket.socket) -> Received | None:
    """The next request; None where the other end has closed."""
    head = connection.recv(_REQUEST.size, socket.MSG_WAITALL)
    if len(head) < _REQUEST.size:
        return None
    size, timeout_s, span_count = _REQUEST.unpack(head)
    envelope = connection.recv(size, socket.MSG_WAITALL)
    return Received(envelope, span_count, timeout_s) if len(envelope) == size else None


def pack_answer(outcome: Answer | Exception) -> bytes:
    """What the sender tells the traced process."""
    if isinstance(outcome, Answer):
        accepted, rejected, text = outcome
        return _pack(_ACCEPTED, text, accepted, rejected)
    for kind, error in _ERRORS.items():
        if isinstance(outcome, error):
            return _pack(kind, str(outcome))
    if isinstance(outcome, Retryable):
        return _pack(_RETRYABLE, str(outcome), retry_after_s=outcome.retry_after_s)
    # What gRPC does not document; the batch may fare better next time.
    return _pack(_RETRYABLE, f"{type(outcome).__name__}: {outcome}")


def _pack(
    kind: int, text: str, accepted: int = 0, rejected: int = 0, retry_after_s: float | None = None
) -> bytes:
    shown = text.encode(errors="replace")[:_MAX_TEXT_BYTES].decode(errors="ignore").encode()
    wait_s = math.nan if retry_after_s is None else retry_after_s
    return _ANSWER.pack(kind, accepted, rejected, wait_s, len(shown)) + shown


def unpack_answer(answer: bytes) -> Answer:
    """What the sender told; raises the error that it met."""
    kind, accepted, rejected, retry_after_s, _ = _ANSWER.unpack_from(answer)
    text = answer[_ANSWER.size :].decode()
    if kind == _ACCEPTED:
        return Answer(accepted, rejected, text)
    if kind in _ERRORS:
        raise _ERRORS[kind](text)
    raise Retryable(text, None if math.isnan(retry_after_s) else retry_after_s)


def choose_roundtrip(
    connection: socket.socket, compiled: Roundtrip | None, on_idle: Callable[[], bool]
) -> LinkRoundtrip:
    """The best way over this socket: without the GIL where `compiled` is one.

    on_idle: as of `choice.choose_transport`; the compiled way does not call it.
    """
    if threads_are_green():
        return partial(_roundtrip_among_green_threads, connection)
    if compiled is not None:
        return partial(_roundtrip_without_gil, connection, compiled)
    return partial(_roundtrip_in_python, connection, on_idle)


def _roundtrip_without_gil(
    connection: socket.socket, compiled: Roundtrip, parts: tuple[bytes, ...], timeout_s: float
) -> bytes:
    return compiled(connection.fileno(), parts, ANSWER_HEAD_BYTES, ANSWER_SIZE_AT, timeout_s)


def _roundtrip_in_python(
    connection: socket.socket,
    on_idle: Callable[[], bool],
    parts: tuple[bytes, ...],
    timeout_s: float,
) -> bytes:
    # By the kernel: Python's own timeout hands over the GIL once more for each call.
    deadline = time.monotonic() + timeout_s
    _set_timeout(connection, socket.SO_SNDTIMEO, timeout_s)
    _set_timeout(connection, socket.SO_RCVTIMEO, min(timeout_s, _LOOK_INTERVAL_S))
    if connection.sendmsg(parts, (), _NO_SIGNAL) < sum(map(len, parts)):
        raise TimeoutError("it does not read")
    is_busy = False

    def receive_some() -> bytes:
        nonlocal is_busy
        while True:
            try:
                return connection.recv(_MAX_ANSWER_BYTES, socket.MSG_DONTWAIT if is_busy else 0)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise
                is_busy = on_idle()
                if is_busy:
                    time.sleep(_BUSY_INTERVAL_S)

    return _read_answer(receive_some)


def _roundtrip_among_green_threads(
    connection: socket.socket, parts: tuple[bytes, ...], timeout_s: float
) -> bytes:
    connection.settimeout(timeout_s)
    connection.sendall(b"".join(parts))
    return _read_answer(lambda: connection.recv(_MAX_ANSWER_BYTES))


def _read_answer(receive_some: Callable[[], bytes]) -> bytes:
    answer = b""
    wanted = ANSWER_HEAD_BYTES
    while len(answer) < wanted:
        more = receive_some()
        if not more:
            raise ConnectionError("it has ended")
        answer += more
        if len(answer) >= ANSWER_HEAD_BYTES:
            text_size = answer[ANSWER_SIZE_AT:ANSWER_HEAD_BYTES]
            wanted = ANSWER_HEAD_BYTES + int.from_bytes(text_size, sys.byteorder)
    return answer


def _set_timeout(connection: socket.socket, direction: int, seconds: float) -> None:
    limit = struct.pack("@ll", int(seconds), max(int(seconds % 1 * 1e6), 1))
    connection.setsockopt(socket.SOL_SOCKET, direction, limit)
