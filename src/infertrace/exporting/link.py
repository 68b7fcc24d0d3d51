"""How requests and answers travel over a file descriptor, between a traced process and its sender.

A sender greets whoever connects. Then frames go to it: a head, which says what kind of frame it
is, and a body; some carry a descriptor too. An answer is a head and a text. One answer follows each
frame of a kind that is answered, so a connection on which an answer stayed away is of no more use.
"""

from __future__ import annotations

import array
import enum
import math
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial

from infertrace.exporting.answer import (
    Answer,
    CannotEncode,
    Overloaded,
    Refused,
    Retryable,
    SendError,
    SpeaksOtlp,
    Stumbled,
    TooLarge,
)
from infertrace.green_threads import threads_are_green
from infertrace.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from infertrace.backend import Roundtrip
    from infertrace.exporting.envelope import Request


class Kind(enum.IntEnum):
    """What a frame is for, and what is in its body."""

    SEND = 0
    """A request: an envelope, to be delivered now. Answered with what the collector said."""
    TARGET = 1
    """Where to send, as `introduction.py` has it. The first frame; not answered."""
    HOLD = 2
    """With a descriptor: spans that are the sender's to deliver from now on. Answered once it
    holds them."""
    MEMORY = 3
    """With a descriptor: a memory in which the spans of this process lie. Not answered."""
    STATUS = 4
    """Answered with what the sender says of itself, in JSON."""
    PACKED = 5
    """A request whose spans are yet to be encoded, as `packed_request.py` has it. Answered as
    SEND."""


# A frame: the size of its body; how long the collector may take for it, seconds; its spans; its
# kind; zero. The twin is in csrc/recorder/delivery_loop.h.
_REQUEST: Final = struct.Struct("=QdqII")
# A greeting: whether it is ready, and its process id.
_GREETING: Final = struct.Struct("=cI")
_READY, _BUSY = b"r", b"b"
# An answer: its kind; spans accepted, spans rejected; seconds to wait, or NaN; size of a text.
_ANSWER: Final = struct.Struct("=BqqdI")
ANSWER_HEAD_BYTES: Final = _ANSWER.size
ANSWER_SIZE_AT: Final = _ANSWER.size - 4
_ACCEPTED, _RETRYABLE, _TOO_LARGE, _REFUSED, _OVERLOADED, _STUMBLED, _SPEAKS_OTLP = range(7)
_CANNOT_ENCODE: Final = 7
_MAX_TEXT_BYTES: Final = 4096
_MAX_ANSWER_BYTES: Final = _ANSWER.size + _MAX_TEXT_BYTES
# More than the largest batch, or the largest span: another number is of somebody else's protocol.
_MAX_BODY_BYTES: Final = 64 * 1024 * 1024
_MAX_STATUS_BYTES: Final = 1024 * 1024
_ERRORS: Final[Mapping[int, type[SendError]]] = {
    _TOO_LARGE: TooLarge,
    _REFUSED: Refused,
    _OVERLOADED: Overloaded,
    _STUMBLED: Stumbled,
    _SPEAKS_OTLP: SpeaksOtlp,
    _CANNOT_ENCODE: CannotEncode,
}

# Between two looks for an answer, when there is nothing else to do, and when there is.
_LOOK_INTERVAL_S: Final = 0.1
_BUSY_INTERVAL_S: Final = 0.001
_NO_SIGNAL: Final = getattr(socket, "MSG_NOSIGNAL", 0)
_CLOSE_ON_EXEC: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
# Linux gives whoever peeks a copy of the descriptor that has come. Source: unix_peek_fds() in its
# net/unix/af_unix.c.
_PEEK: Final = socket.MSG_PEEK if sys.platform == "linux" else 0
_NO_ROOM_INTERVAL_S: Final = 0.05

LinkRoundtrip = Callable[[tuple[bytes, ...], float], bytes]
"""Writes the parts of a request and reads its answer; raises OSError after this time (s)."""


class Received(NamedTuple):
    """A frame as it came to the sender."""

    body: bytes
    span_count: int = 0
    timeout_s: float = 0.0
    kind: int = Kind.SEND
    descriptor: int | None = None
    """What came with it; the receiver's to close."""


def greeting(is_ready: bool = True) -> bytes:
    """What a sender says first: it is ready, or it has no room for one more."""
    return _GREETING.pack(_READY if is_ready else _BUSY, os.getpid())


def read_greeting(connection: socket.socket) -> int:
    """The sender's process id, once it is ready; raises OSError.

    ConnectionError: it ended before it said anything. BlockingIOError: it has no room.
    """
    return _read_greeting(connection.recv)


def read_greeting_with_page(connection: socket.socket) -> tuple[int, int | None]:
    """The same, and the descriptor of the page in which the sender's readings of the GPUs are;
    None where none came. It is the caller's to close."""
    descriptors = array.array("i")

    def receive_some(size: int) -> bytes:
        room = socket.CMSG_SPACE(descriptors.itemsize)
        more, rights, _, _ = connection.recvmsg(size, room, _CLOSE_ON_EXEC)
        for level, kind, numbers in rights:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                whole = len(numbers) - len(numbers) % descriptors.itemsize
                descriptors.frombytes(numbers[:whole])
        return more

    try:
        pid = _read_greeting(receive_some)
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    return pid, descriptors[0] if descriptors else None


def _read_greeting(receive_some: Callable[[int], bytes]) -> int:
    said = b""
    while len(said) < _GREETING.size:
        more = receive_some(_GREETING.size - len(said))
        if not more:
            raise ConnectionResetError("it has ended")
        said += more
    word, pid = _GREETING.unpack(said)
    if word == _BUSY:
        raise BlockingIOError("it has no room for another process now")
    if word != _READY:
        raise ConnectionAbortedError("no sender of infertrace answers")
    return int(pid)


def pack_frame(
    kind: Kind, body: bytes = b"", *, span_count: int = 0, timeout_s: float = 0
) -> bytes:
    """A whole frame."""
    return _REQUEST.pack(len(body), timeout_s, span_count, kind, 0) + body


def frame(
    request: Request, span_count: int, timeout_s: float, kind: Kind = Kind.SEND
) -> tuple[bytes, ...]:
    """A request with its head, in parts."""
    head = _REQUEST.pack(sum(map(len, request)), timeout_s, span_count, kind, 0)
    return head, *request


def send_with_descriptor(connection: socket.socket, packed: bytes, descriptor: int) -> None:
    """Send a whole frame and a copy of a descriptor with it; raises OSError."""
    rights = array.array("i", [descriptor])
    sent = connection.sendmsg([packed], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    connection.sendall(packed[sent:])


def receive(connection: socket.socket) -> Received | None:
    """The next frame; None where the other end has closed, or speaks another protocol."""
    head, descriptor = _receive_head(connection)
    received = None
    if len(head) == _REQUEST.size:
        size, timeout_s, span_count, kind, _ = _REQUEST.unpack(head)
        if size <= _MAX_BODY_BYTES:
            body = connection.recv(size, socket.MSG_WAITALL) if size else b""
            if len(body) == size:
                received = Received(body, span_count, timeout_s, kind, descriptor)
    if received is None and descriptor is not None:
        os.close(descriptor)
    return received


def _receive_head(connection: socket.socket) -> tuple[bytes, int | None]:
    """As much of a head as comes, and the descriptor that came with it; waits until this process
    has room for that one."""
    head = b""
    descriptors = array.array("i")
    while len(head) < _REQUEST.size:
        more, came, lacks_room = _receive_some(connection, _REQUEST.size - len(head))
        descriptors += came
        if lacks_room:
            time.sleep(_NO_ROOM_INTERVAL_S)
            continue
        if _PEEK and more:
            connection.recv(len(more))
        if not more:
            break
        head += more
    for descriptor in descriptors[1:]:
        os.close(descriptor)
    return head, descriptors[0] if descriptors else None


def _receive_some(connection: socket.socket, size: int) -> tuple[bytes, array.array[int], bool]:
    """What is there, descriptors that came with it, and whether there was no room for one: then
    nothing is lost, since where the kernel allows it this only looks."""
    descriptors = array.array("i")
    room = socket.CMSG_SPACE(descriptors.itemsize)
    more, rights, flags, _ = connection.recvmsg(size, room, _CLOSE_ON_EXEC | _PEEK)
    for level, kind, numbers in rights:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            whole = len(numbers) - len(numbers) % descriptors.itemsize
            descriptors.frombytes(numbers[:whole])
    is_cut = bool(_PEEK and flags & socket.MSG_CTRUNC and not descriptors)
    return more, descriptors, is_cut and not _has_room_for_descriptor(connection)


def _has_room_for_descriptor(connection: socket.socket) -> bool:
    try:
        os.close(os.dup(connection.fileno()))
    except OSError:
        return False
    return True  # a security module may keep the other one out


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
    kind: int,
    text: str,
    accepted: int = 0,
    rejected: int = 0,
    retry_after_s: float | None = None,
    limit_bytes: int = _MAX_TEXT_BYTES,
) -> bytes:
    shown = text.encode(errors="replace")[:limit_bytes].decode(errors="ignore").encode()
    wait_s = math.nan if retry_after_s is None else retry_after_s
    return _ANSWER.pack(kind, accepted, rejected, wait_s, len(shown)) + shown


def pack_status(text: str) -> bytes:
    """The answer to a question for the status, which may be longer than others."""
    return _pack(_ACCEPTED, text, limit_bytes=_MAX_STATUS_BYTES)


def ask(connection: socket.socket) -> bytes:
    """The answer that comes next on a socket, which has a timeout; raises OSError."""
    return _read_answer(lambda: connection.recv(_MAX_ANSWER_BYTES))


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
    sent = connection.sendmsg(parts, (), _NO_SIGNAL)
    if sent < sum(map(len, parts)):  # a signal came to this thread, or the time is over
        left = memoryview(b"".join(parts))[sent:]
        while left:
            if time.monotonic() >= deadline:
                raise TimeoutError("it does not read")
            left = left[connection.send(left, _NO_SIGNAL) :]
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
