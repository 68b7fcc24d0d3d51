"""Batches by way of a process of our own, which speaks gRPC; this process never loads it.

gRPC takes the GIL for a while at each request, needs 24 MiB, and must not be in use when a
process forks. Here it does none of this to the traced program: what is left is to write a
batch to a socket and to read a short answer. The sender (`sender_process.py`) ends when that
socket closes, so also when the traced process is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from infertrace.exporting.transport import (
    Answer,
    Disconnected,
    Overloaded,
    Refused,
    Retryable,
    SendError,
    Stumbled,
    TooLarge,
)
from infertrace.green_threads import threads_are_green

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from infertrace.backend import Attend, Attendance, Exchange
    from infertrace.exporting.transport import Request, Target

# A request: its size, and how long the collector may take for it in seconds.
REQUEST: Final = struct.Struct("=Qd")
# An answer: its kind; spans accepted, spans rejected; seconds to wait, or NaN; size of a text.
ANSWER: Final = struct.Struct("=BqqdI")
ANSWER_SIZE_AT: Final = ANSWER.size - 4
ACCEPTED, RETRYABLE, TOO_LARGE, REFUSED, OVERLOADED, STUMBLED = range(6)
MAX_TEXT_BYTES: Final = 4096
READY: Final = b"r"
_ERRORS: Final[Mapping[int, type[SendError]]] = {
    TOO_LARGE: TooLarge,
    REFUSED: Refused,
    OVERLOADED: Overloaded,
    STUMBLED: Stumbled,
}

_START_TIMEOUT_S: Final = 20.0
# What the way to the sender and back may take on top of the request itself.
_GRACE_S: Final = 1.0
# Between two looks for an answer, when there is nothing else to do, and when there is.
_LOOK_INTERVAL_S: Final = 0.1
_BUSY_INTERVAL_S: Final = 0.001
_SEND_BUFFER_BYTES: Final = 1024 * 1024  # the kernel takes what it allows of that
_NO_SIGNAL: Final = getattr(socket, "MSG_NOSIGNAL", 0)
_MAX_ANSWER_BYTES: Final = ANSWER.size + MAX_TEXT_BYTES

# Requests in memory that the sender keeps, rather than in pages that the kernel clears for each.
# Source: mallopt(3); other libraries of C ignore them.
_KEPT_MEMORY: Final = {
    "MALLOC_TRIM_THRESHOLD_": str(8 * 1024 * 1024),
    "MALLOC_MMAP_THRESHOLD_": str(4 * 1024 * 1024),
}
# Nice: a processor goes to the traced program first. Before the imports, which take the longest.
# Linux weighs that only within a session, so the sender stays in this one; but in a group of its
# own, since the terminal's signals are for the traced program.
_NICENESS: Final = 10
# -I: nothing of the environment, or of the current directory, decides what it imports.
_PROGRAM: Final = (
    f"import os, sys; os.setpgid(0, 0); os.nice({_NICENESS}); sys.path[:] = sys.argv[2:]; "
    "from infertrace.exporting.sender_process import main; main(int(sys.argv[1]))"
)


def is_possible() -> bool:
    """Whether a Python like this one can be started: not from a frozen or embedded one."""
    name = Path(sys.executable or "").name
    frozen = getattr(sys, "frozen", False)
    return os.name == "posix" and name.startswith(("python", "pypy")) and not frozen


class SenderProcess:
    """A process that gets ready to send. Raises OSError where it cannot be started."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair()
        try:
            with theirs:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
                self._process = _start(theirs)
        except BaseException:
            self.socket.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def set_target(self, target: Target) -> None:
        """Wait until it is ready and tell it where to send; raises OSError if it never is."""
        settings = json.dumps(target._asdict()).encode()
        self.socket.settimeout(_START_TIMEOUT_S)
        if self.socket.recv(len(READY)) != READY:
            self._process.wait(_GRACE_S)
            raise ChildProcessError(f"it ended with code {self._process.returncode}")
        self.socket.sendall(REQUEST.pack(len(settings), 0.0) + settings)
        self.socket.settimeout(None)

    def end(self) -> None:
        """End it now where that is allowed; it ends soon after its socket closes anyhow."""
        _reap()
        try:
            self._process.kill()
        except PermissionError:  # the traced process has given up the rights that it had
            _ending.append(self._process)
            return
        self._process.wait()

    def forget(self) -> None:
        """In a forked child: the parent's sender must see its socket end when the parent ends."""
        self.socket.close()
        self._process.returncode = 0  # not ours to wait for


# Senders that were told to end, and not waited for.
_ending: list[subprocess.Popen[bytes]] = []


def _reap() -> None:
    _ending[:] = [process for process in _ending if process.poll() is None]


# One that gets ready for the next tracer that wants one, or none: to start a process takes the
# GIL, so it is done where a tracer is made and not where its first spans are recorded.
_spare: list[SenderProcess] = []


def start_spare() -> None:
    """See that there is one, if there can be."""
    if not _spare:
        with contextlib.suppress(OSError):  # tried again when it is needed, and told of then
            _spare.append(SenderProcess())


def take_spare() -> SenderProcess:
    """The spare one, or another."""
    try:
        return _spare.pop()
    except IndexError:
        return SenderProcess()


def end_spare() -> None:
    """Nobody is going to want it."""
    while _spare:
        spare = _spare.pop()
        spare.socket.close()
        spare.end()


def forget_spare() -> None:
    """As a forked child must."""
    while _spare:
        _spare.pop().forget()
    while _ending:
        _ending.pop().returncode = 0  # not ours to wait for


class ProcessTransport:
    """Raises OSError where the process cannot be started."""

    def __init__(
        self,
        target: Target,
        exchange: Exchange | None = None,
        meanwhile: Callable[[], bool] = lambda: False,
    ) -> None:
        self._exchange: Exchange = exchange or self._exchange_in_python
        if threads_are_green():
            self._exchange = self._exchange_among_green_threads
        self._meanwhile = meanwhile
        self._is_sending = self._is_closed = False
        self._process = take_spare()
        self._socket = self._process.socket
        try:
            self._process.set_target(target)
        except BaseException:
            self.close()
            raise

    def send(self, request: Request, timeout_s: float) -> Answer:
        parts = (REQUEST.pack(sum(map(len, request)), timeout_s), *request)
        self._is_sending = True
        try:
            if self._is_closed:
                raise Disconnected("the connection was closed")
            answer = self._exchange(
                self._socket.fileno(), parts, ANSWER.size, ANSWER_SIZE_AT, timeout_s + _GRACE_S
            )
        except OSError as error:
            return self.outcome(error)
        finally:
            self._sent()
        return self.outcome(answer)

    def _sent(self) -> None:
        self._is_sending = False
        if self._is_closed:
            self._socket.close()

    def attend(self, attend: Attend, *fields: object, **limits: float) -> Attendance | None:
        """Let the recorder send by itself, without the GIL; see there."""
        self._is_sending = True
        try:
            if self._is_closed:
                return None
            descriptor = self._socket.fileno()
            return attend(descriptor, *fields, head=ANSWER.size, size_at=ANSWER_SIZE_AT, **limits)
        finally:
            self._sent()

    def outcome(self, answer: bytes | OSError) -> Answer:
        """What the sender answered, or one of the errors of `send`."""
        if isinstance(answer, OSError):
            # What comes on this socket later would be taken for the answer to another request.
            raise Disconnected(f"the sender process does not answer: {answer}")
        kind, accepted, rejected, retry_after_s, _ = ANSWER.unpack_from(answer)
        text = answer[ANSWER.size :].decode()
        if kind == ACCEPTED:
            return Answer(accepted, rejected, text)
        raise _error(kind, text, retry_after_s)

    def _exchange_in_python(
        self, descriptor: int, parts: tuple[bytes, ...], head: int, size_at: int, timeout_s: float
    ) -> bytes:
        # By the kernel: Python's own timeout hands over the GIL once more for each call.
        deadline = time.monotonic() + timeout_s
        self._limit(socket.SO_SNDTIMEO, timeout_s)
        self._limit(socket.SO_RCVTIMEO, min(timeout_s, _LOOK_INTERVAL_S))
        is_busy = False
        if self._socket.sendmsg(parts, (), _NO_SIGNAL) < sum(map(len, parts)):
            raise TimeoutError("it does not read")
        answer = b""
        wanted = head
        while len(answer) < wanted:
            try:
                more = self._socket.recv(_MAX_ANSWER_BYTES, socket.MSG_DONTWAIT if is_busy else 0)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise
                is_busy = self._meanwhile()
                if is_busy:
                    time.sleep(_BUSY_INTERVAL_S)
                continue
            if not more:
                raise ConnectionError("it has ended")
            answer += more
            if len(answer) >= head:
                wanted = head + int.from_bytes(answer[size_at : size_at + 4], sys.byteorder)
        return answer

    def _exchange_among_green_threads(
        self, descriptor: int, parts: tuple[bytes, ...], head: int, size_at: int, timeout_s: float
    ) -> bytes:
        self._socket.settimeout(timeout_s)
        self._socket.sendall(b"".join(parts))
        answer = b""
        wanted = head
        while len(answer) < wanted:
            more = self._socket.recv(_MAX_ANSWER_BYTES)
            if not more:
                raise ConnectionError("it has ended")
            answer += more
            if len(answer) >= head:
                wanted = head + int.from_bytes(answer[size_at : size_at + 4], sys.byteorder)
        return answer

    def _limit(self, direction: int, seconds: float) -> None:
        limit = struct.pack("@ll", int(seconds), max(int(seconds % 1 * 1e6), 1))
        self._socket.setsockopt(socket.SOL_SOCKET, direction, limit)

    def close(self) -> None:
        self._is_closed = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes who waits for an answer
        if not self._is_sending:  # or that thread does, lest it use the number of another file
            self._socket.close()
        self._process.end()

    def forget(self) -> None:
        self._process.forget()


def _start(theirs: socket.socket) -> subprocess.Popen[bytes]:
    paths = [str(Path(path).absolute()) for path in sys.path]
    return subprocess.Popen(
        [sys.executable, "-I", "-c", _PROGRAM, str(theirs.fileno()), *paths],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(theirs.fileno(),),
        cwd="/",
        env=_KEPT_MEMORY | os.environ,
    )


def _error(kind: int, message: str, retry_after_s: float) -> SendError:
    if kind in _ERRORS:
        return _ERRORS[kind](message)
    return Retryable(message, None if retry_after_s != retry_after_s else retry_after_s)
