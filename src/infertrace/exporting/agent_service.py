"""What `infertrace agent` is: the sender that processes share, on a socket for several users.

Who may connect is who may open the socket. A tracer of another user cannot make the agent open a
file, since that would be done with the agent's rights: not its token file, nor its spool directory.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import time
from typing import TYPE_CHECKING, Any, Final

from infertrace.exporting.answer import Retryable
from infertrace.exporting.sender_service import SenderService

if TYPE_CHECKING:
    from pathlib import Path

    from infertrace.exporting.agent_spool import AgentSpool
    from infertrace.exporting.introduction import Introduction
    from infertrace.exporting.target import Target

_BACKLOG: Final = 1024  # the kernel takes what it allows of that
_STOP_S: Final = 20.0
_LOOK_S: Final = 0.02
_CHORES_S: Final = 1.0
# The loop takes a turn each second; one that has not for so long hangs.
_HEALTHY_S: Final = 15.0
_FOREVER_S: Final = float("inf")
_FILES: Final = ("certificate_file", "client_certificate_file", "client_key_file", "token_file")


def listen(path: Path, mode: int) -> tuple[socket.socket, int]:
    """A listening socket at that path, and its inode; who else listened there does no more.

    mode: says who may connect. Raises OSError.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(f"{path}: something else than a socket is there")
    unfinished = path.with_name(f"{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        unfinished.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(unfinished))
        unfinished.chmod(mode)
        listener.listen(_BACKLOG)
        inode = unfinished.lstat().st_ino
        unfinished.rename(path)
    except BaseException:
        listener.close()
        raise
    return listener, inode


class AgentService(SenderService):
    """Serves until it is told to stop."""

    _takes_packed = False  # its clients may be anybody's

    def __init__(
        self,
        listener: socket.socket,
        path: Path,
        inode: int,
        *,
        spool: AgentSpool | None,
        forward: Introduction | None,
    ) -> None:
        """inode: of the socket at the path. spool: where what is held lies; None for in memory.
        forward: whose target takes the place of those that tracers name, and how large a batch may
        be there."""
        keep = (lambda *_: None) if spool is None else spool.keep
        super().__init__(listener, path, idle_s=_FOREVER_S, keep=keep, admit=self.admit)
        self._socket_inode = inode
        self._spool = spool
        self._forward = forward
        if spool is not None:
            for held, introduction in spool.restore(self._sent):
                # Without --forward, to where it was to go: that was admitted when it came.
                self._held.hold(held, self.admit(introduction) if forward else introduction)

    def admit(self, introduction: Introduction) -> Introduction:
        """What an introduction means here; raises Retryable where it names files of the tracer."""
        introduction = introduction._replace(spool_dir=None)
        if self._forward is not None:
            return introduction._replace(
                target=self._forward.target,
                max_batch_bytes=min(introduction.max_batch_bytes, self._forward.max_batch_bytes),
            )
        named = _files_of(introduction.target)
        if named:
            raise Retryable(
                f"an agent opens no files for tracers, and this one names {', '.join(named)}: "
                "expected a token, or an agent with --forward that has them itself"
            )
        return introduction

    @property
    def is_healthy(self) -> bool:
        """Whether it takes connections, and can send."""
        return (
            self._is_ready.is_set()
            and self._stop_at is None
            and time.monotonic() - self._last_chores < _HEALTHY_S
        )

    def run(self) -> None:
        """Until it is told to stop; then nothing that it holds is left but on a disk, or so."""
        super().run()
        deadline = time.monotonic() + _STOP_S
        self._close_socket()
        with self._lock:
            sessions = list(self._clients)
        for session in sessions:
            session.end()
        while time.monotonic() < deadline and not (self._has_no_clients() and self._is_safe()):
            time.sleep(_LOOK_S)
        if self._spool is not None:
            self._spool.stop(deadline - time.monotonic())

    def _close_socket(self) -> None:
        """Take those who wait, who may have left something, and no more."""
        with contextlib.suppress(OSError):
            if self._path.lstat().st_ino == self._socket_inode:
                self._path.unlink()
        self._listener.setblocking(False)
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._welcome(connection)
        self._listener.close()

    def _has_no_clients(self) -> bool:
        with self._lock:
            return not self._clients

    def _is_safe(self) -> bool:
        self._memories.look()
        return self._held.is_empty or self._held.is_on_disk

    def _is_welcome(self, connection: socket.socket) -> bool:
        return True

    def _may_leave(self) -> bool:
        now = time.monotonic()
        if now - self._last_chores >= _CHORES_S:
            self._last_chores = now
            self._transports.close_unused()
            self._memories.look()
        return self._stop_at is not None

    def status(self) -> dict[str, Any]:
        found = super().status() | {"user": os.geteuid(), "delivered": self._transports.delivered}
        if self._forward is not None:
            found["forward"] = self._forward.target.address
        if self._spool is not None:
            found["spool"] = {
                "bytes": self._spool.used_bytes,
                "max_bytes": self._spool.max_bytes,
            }
        return found


def _files_of(target: Target) -> list[str]:
    return [name for name in _FILES if getattr(target, name)]
