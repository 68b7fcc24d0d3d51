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
from pathlib import Path
from typing import TYPE_CHECKING, Final

from infertrace.exporting.transport import Answer, Disconnected, Refused, Retryable, TooLarge

if TYPE_CHECKING:
    from infertrace.exporting.transport import SendError, Target

# A request: its size, and how long the collector may take for it in seconds.
REQUEST: Final = struct.Struct("=Qd")
# An answer: its kind; spans accepted, spans rejected; seconds to wait, or NaN; size of a text.
ANSWER: Final = struct.Struct("=BqqdI")
ACCEPTED, RETRYABLE, TOO_LARGE, REFUSED = range(4)
MAX_TEXT_BYTES: Final = 4096
READY: Final = b"r"

_START_TIMEOUT_S: Final = 20.0
# What the way to the sender and back may take on top of the request itself.
_GRACE_S: Final = 1.0
_SEND_BUFFER_BYTES: Final = 1024 * 1024  # the kernel takes what it allows of that
_MAX_ANSWER_BYTES: Final = ANSWER.size + MAX_TEXT_BYTES

# Nice: a processor goes to the traced program first. Before the imports, which take the longest.
_NICENESS: Final = 10
# -I: nothing of the environment, or of the current directory, decides what it imports.
_PROGRAM: Final = (
    f"import os, sys; os.nice({_NICENESS}); sys.path[:] = sys.argv[2:]; "
    "from infertrace.exporting.sender_process import main; main(int(sys.argv[1]))"
)


def is_possible() -> bool:
    """Whether a Python like this one can be started: not from a frozen or embedded one."""
    name = Path(sys.executable or "").name
    frozen = getattr(sys, "frozen", False)
    return os.name == "posix" and name.startswith(("python", "pypy")) and not frozen


class ProcessTransport:
    """Raises OSError where the process cannot be started."""

    def __init__(self, target: Target) -> None:
        self._socket, theirs = socket.socketpair()
        try:
            with theirs:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
                self._process = _start(theirs)
            self._wait_at_most(_START_TIMEOUT_S)
            settings = json.dumps(target._asdict()).encode()
            self._socket.sendall(REQUEST.pack(len(settings), 0.0) + settings)
            if self._socket.recv(len(READY)) != READY:
                self._process.wait(_GRACE_S)
                raise ChildProcessError(f"it ended with code {self._process.returncode}")
        except BaseException:
            self.close()
            raise

    def send(self, request: bytes, timeout_s: float) -> Answer:
        try:
            self._wait_at_most(timeout_s + _GRACE_S)
            head = REQUEST.pack(len(request), timeout_s)
            if self._socket.sendmsg((head, request)) < len(head) + len(request):
                raise TimeoutError("it does not read")
            kind, accepted, rejected, retry_after_s, text = self._receive()
        except OSError as error:
            # Whatever comes on this socket later would be taken for the answer to another request.
            raise Disconnected(f"the sender process does not answer: {error}") from None
        if kind == ACCEPTED:
            return Answer(accepted, rejected, text)
        raise _error(kind, text, retry_after_s)

    def _wait_at_most(self, timeout_s: float) -> None:
        # By the kernel: Python's own timeout hands over the GIL once more for each call.
        limit = struct.pack("@ll", int(timeout_s), int(timeout_s % 1 * 1e6))
        for direction in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            self._socket.setsockopt(socket.SOL_SOCKET, direction, limit)

    def _receive(self) -> tuple[int, int, int, float, str]:
        answer = b""
        while (
            len(answer) < ANSWER.size or len(answer) < ANSWER.size + ANSWER.unpack_from(answer)[4]
        ):
            more = self._socket.recv(_MAX_ANSWER_BYTES)
            if not more:
                raise ConnectionError("it has ended")
            answer += more
        kind, accepted, rejected, retry_after_s, _ = ANSWER.unpack_from(answer)
        return kind, accepted, rejected, retry_after_s, answer[ANSWER.size :].decode()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes who waits for an answer
        self._socket.close()
        process = getattr(self, "_process", None)
        if process is not None:
            process.kill()
            process.wait()

    def forget(self) -> None:
        # The parent's sender must see the end of its socket when the parent ends.
        self._socket.close()
        self._process.returncode = 0  # not ours to wait for


def _start(theirs: socket.socket) -> subprocess.Popen[bytes]:
    paths = [str(Path(path).absolute()) for path in sys.path]
    return subprocess.Popen(
        [sys.executable, "-I", "-c", _PROGRAM, str(theirs.fileno()), *paths],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(theirs.fileno(),),
        cwd="/",
        start_new_session=True,  # the terminal's signals are for the traced program
    )


def _error(kind: int, message: str, retry_after_s: float) -> SendError:
    if kind == TOO_LARGE:
        return TooLarge(message)
    if kind == REFUSED:
        return Refused(message)
    return Retryable(message, None if retry_after_s != retry_after_s else retry_after_s)
