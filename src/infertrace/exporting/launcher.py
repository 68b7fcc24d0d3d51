"""Starts a sender process for one tracer: a Python that loads gRPC, so that this one need not.

gRPC takes the GIL for a while at each request, needs 24 MiB, and must not be in use when a
process forks. In the sender (`sender_process.py`) it does none of this to the traced program. The
sender ends when its socket closes, so also when the traced process is killed.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time

from infertrace.exporting import link

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from typing import Final

    from infertrace.exporting.introduction import Introduction

_START_TIMEOUT_S: Final = 20.0  # for one attempt to connect; the next one goes on waiting
# On a busy machine, one that was ended for being slow would be followed by one that is as slow. It
# is ended only after this long, when something must be wrong with it.
_START_LIMIT_S: Final = 600.0
_END_TIMEOUT_S: Final = 1.0
_SEND_BUFFER_BYTES: Final = 1024 * 1024  # the kernel takes what it allows of that

# The sender keeps memory of this size for the next request, rather than have the kernel clear
# pages for each. Source: mallopt(3); other libraries of C ignore these variables.
_KEPT_MEMORY: Final = {
    "MALLOC_TRIM_THRESHOLD_": str(8 * 1024 * 1024),
    "MALLOC_MMAP_THRESHOLD_": str(4 * 1024 * 1024),
}
# The sender lowers its priority before it imports grpc, the slowest part of its start. Linux
# weighs priorities only within a session, so the sender stays in this one; but it has its own
# process group, since the terminal's signals are for the traced program.
_NICENESS: Final = 10
# -I: nothing of the environment, or of the current directory, decides what it imports.
_PROGRAM: Final = (
    f"import os, sys; os.setpgid(0, 0); os.nice({_NICENESS}); sys.path[:] = sys.argv[3:]; "
    "from infertrace.exporting.sender_process import main; main(int(sys.argv[1]), sys.argv[2])"
)


def is_possible() -> bool:
    """Whether a Python like this one can be started: not from a frozen or embedded one."""
    name = os.path.basename(sys.executable or "")
    frozen = getattr(sys, "frozen", False)
    return os.name == "posix" and name.startswith(("python", "pypy")) and not frozen


class SenderProcess:
    """A process that gets ready to send. Raises OSError where it cannot be started.

    wire: what it will probably send by; it can send by any, and gets ready sooner for this one.
    """

    def __init__(self, wire: str) -> None:
        self.socket, theirs = socket.socketpair()
        try:
            with theirs:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
                self._process = _start(theirs, wire)
        except BaseException:
            self.socket.close()
            raise
        self._began_s = time.monotonic()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def may_get_ready(self) -> bool:
        """Whether it is worth to wait longer for it."""
        return time.monotonic() - self._began_s < _START_LIMIT_S

    def wait_until_ready(self) -> None:
        """Raises TimeoutError where it is not yet, and another OSError where it never is."""
        self.socket.settimeout(_START_TIMEOUT_S)
        try:
            link.read_greeting(self.socket)
        except TimeoutError:
            raise TimeoutError(f"it is not ready after {_START_TIMEOUT_S:g} s") from None
        except ConnectionError:
            self._process.wait(_END_TIMEOUT_S)
            raise ChildProcessError(f"it ended with code {self._process.returncode}") from None

    def introduce(self, introduction: Introduction) -> None:
        """Tell it where to send, once it is ready; raises OSError."""
        self.socket.sendall(link.pack_frame(link.Kind.TARGET, introduction.encode()))
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

    def after_fork_in_child(self) -> None:
        """Close this copy: the parent's sender must see its socket end when the parent ends."""
        self.socket.close()
        self._process.returncode = 0  # not ours to wait for


def start_sender(introduction: Introduction) -> SenderProcess:
    """A sender that is ready to send there, the prestarted one if there is one; raises OSError.

    After a TimeoutError, the next call goes on waiting for the same one.
    """
    sender = _take_prestarted() or SenderProcess(introduction.target.wire)
    try:
        sender.wait_until_ready()
        sender.introduce(introduction)
    except BaseException as error:
        if isinstance(error, TimeoutError) and sender.may_get_ready:
            _prestarted.append(sender)
            raise
        sender.socket.close()
        sender.end()
        raise
    return sender


# Senders that were told to end, and not waited for.
_ending: list[subprocess.Popen[bytes]] = []


def _reap() -> None:
    _ending[:] = [process for process in _ending if process.poll() is None]


# Those that get ready for the next tracer that wants one, mostly one or none: to start a process
# takes the GIL, so it is done where a tracer is made and not where its first spans are recorded.
_prestarted: list[SenderProcess] = []


def prestart(wire: str) -> None:
    """See that a sender gets ready for this wire, if there can be one."""
    if not _prestarted:
        with contextlib.suppress(OSError):  # tried again when it is needed, and told of then
            _prestarted.append(SenderProcess(wire))


def _take_prestarted() -> SenderProcess | None:
    try:
        return _prestarted.pop()
    except IndexError:
        return None


def end_prestarted() -> None:
    """End the sender that nobody has taken."""
    while _prestarted:
        sender = _prestarted.pop()
        sender.socket.close()
        sender.end()


def after_fork_in_child() -> None:
    """Let go of the parent's senders."""
    while _prestarted:
        _prestarted.pop().after_fork_in_child()
    while _ending:
        _ending.pop().returncode = 0  # not ours to wait for


def _start(theirs: socket.socket, wire: str) -> subprocess.Popen[bytes]:
    import subprocess  # slow to load, and for few tracers

    paths = [os.path.join(os.getcwd(), path) for path in sys.path]
    return subprocess.Popen(
        [sys.executable, "-I", "-c", _PROGRAM, str(theirs.fileno()), wire, *paths],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(theirs.fileno(),),
        cwd="/",
        env=_KEPT_MEMORY | os.environ,
    )
