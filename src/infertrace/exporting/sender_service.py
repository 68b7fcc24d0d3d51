"""The sender that all processes of a user on a host share.

`host_sender.py` starts it, on a socket at which others may wait already. It serves each connection
on a separate thread, and exits once it holds nothing and nobody has been connected for a while.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from infertrace.exporting import link
from infertrace.exporting.choice import load_transport
from infertrace.exporting.descriptor_room import has_room, raise_limit
from infertrace.exporting.directory_lock import DirectoryLock
from infertrace.exporting.gpu_readings import GpuReadings
from infertrace.exporting.held_spans import HeldSpans
from infertrace.exporting.host_sender import READY_MODE
from infertrace.exporting.peer import peer_pid, peer_user
from infertrace.exporting.sender_session import Session, has_hung_up
from infertrace.exporting.sent_batches import SentBatches
from infertrace.exporting.shared_memories import SharedMemories
from infertrace.exporting.shared_transports import SharedTransports
from infertrace.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from infertrace.exporting.held_spans import Held, HeldMemory
    from infertrace.exporting.introduction import Introduction

_IDLE_VARIABLE: Final = "_INFERTRACE_SENDER_IDLE_S"  # for tests
_IDLE_S: Final = 30.0
# A machine that goes down ends the traced programs at the same moment, and gives all some time.
_STOP_S: Final = 20.0
_PLACING_S: Final = 5.0
_CHORES_S: Final = 1.0
_STACK_BYTES: Final = 512 * 1024
# A third of the weight of a thread that nobody has lowered: below the traced programs, and yet not
# without a turn where many of them, which all wait for this one, keep the machine busy.
_NICENESS: Final = 5
# Of the thread that loads gRPC, the slowest part of a start.
_LOADING_NICENESS: Final = 10
_FULL_PAUSE_S: Final = 0.05
# For how long it may be full before others get a sender beside it.
_FULL_S: Final = 0.5


def main(descriptor: str, path: str, inode: str, wire: str) -> None:
    """Serve at this listening socket, which is, or will be, at that path.

    wire: what the first client will probably send by.
    """
    _lower_priority()
    listener = socket.socket(fileno=int(descriptor))
    idle_s = float(os.environ.get(_IDLE_VARIABLE) or _IDLE_S)
    service = SenderService(listener, Path(path), int(inode), idle_s=idle_s)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, service.stop)
    threading.Thread(target=service.get_ready, args=(wire,), daemon=True).start()
    service.run()
    os._exit(0)  # threads may wait for collectors that do not answer


def _lower_priority() -> None:
    os.nice(_NICENESS)
    # Linux weighs sessions, which are groups of their own, by this. Source: sched(7).
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(_NICENESS))


class SenderService:
    """Accepts connections, and goes when it is not needed."""

    _takes_packed = True  # all its clients are of one user: `_is_welcome`

    def __init__(
        self,
        listener: socket.socket,
        path: Path,
        inode: int | None = None,
        *,
        idle_s: float,
        keep: Callable[[HeldMemory, Introduction], Held | None] = lambda *_: None,
        admit: Callable[[Introduction], Introduction] = lambda introduction: introduction,
    ) -> None:
        """inode: of the socket at the path, if it may be removed and replaced there. keep: as of
        `HeldSpans`. admit: as of `Session`."""
        self._listener = listener
        self._path = path
        self._lock_path = path.with_name(f"{path.name}.lock")
        self._inode = inode
        self._full_since: float | None = None
        self._has_made_way = False
        self._idle_s = idle_s
        self._began_s = time.time()
        self._transports = SharedTransports()
        self._sent = SentBatches()
        self._held = HeldSpans(self._transports, raise_limit() // 4, keep)
        self._admit = admit
        self._memories = SharedMemories()
        self._gpus = GpuReadings()
        self._lock = threading.Lock()
        self._clients: dict[Session, tuple[int, float]] = {}
        self._last_used = self._last_chores = time.monotonic()
        self._stop_at: float | None = None
        self._is_ready = threading.Event()
        listener.setblocking(True)
        listener.settimeout(_CHORES_S)
        threading.stack_size(_STACK_BYTES)

    def get_ready(self, wire: str) -> None:
        """Load what sends by this wire: the time of a request does not begin before that."""
        if sys.platform == "linux":  # where each thread has its own priority
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOADING_NICENESS)
        try:
            with contextlib.suppress(ImportError):  # which opening a transport tells of
                load_transport(wire)
        finally:
            self._is_ready.set()
            self._mark_ready()

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Leave soon: a signal handler."""
        if self._stop_at is None:
            self._stop_at = time.monotonic() + _STOP_S

    def run(self) -> None:
        """Until there is nothing to do for long enough."""
        while not self._may_leave():
            if not self._has_room():
                self._be_full()
                continue
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:  # the host has no descriptors left, or no memory
                self._be_full()
                continue
            self._full_since = None
            self._welcome(connection)

    def _has_room(self) -> bool:
        with self._lock:
            awaited = sum(session.is_new for session in self._clients)
            clients = len(self._clients)
        held = self._held.count + self._memories.count
        return not (clients or held) or has_room(clients, awaited, held)

    def _be_full(self) -> None:
        """Whoever waits keeps on waiting, or finds another sender; one of the gone keeps on the
        connection what it left."""
        now = time.monotonic()
        if not select.select([self._listener], [], [], _FULL_PAUSE_S)[0]:
            return
        self._full_since = self._full_since or now
        if now - self._full_since >= _FULL_S:
            self._make_way()
        time.sleep(_FULL_PAUSE_S)

    def _make_way(self) -> None:
        """Have the next process start another sender, and serve those that have come here."""
        if self._inode is None or self._has_made_way:
            return
        aside = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        # Without the lock, for which there is no descriptor. If another sender gets here between
        # the two calls, it is put aside in place of this one; then a third is started.
        with contextlib.suppress(OSError):
            if self._is_in_place():
                self._path.rename(aside)  # where `infertrace doctor` still finds it
                self._path = aside
                self._has_made_way = True

    def _welcome(self, connection: socket.socket) -> None:
        if not self._is_welcome(connection):
            connection.close()
            return
        connection.settimeout(None)
        pid = peer_pid(connection)
        session = Session(
            connection,
            self._transports,
            name=f"process {pid}",
            sent=self._sent,
            held=self._held,
            memories=self._memories,
            gpus=self._gpus,
            describe=self.describe,
            admit=self._admit,
            takes_packed=self._takes_packed,
        )
        with self._lock:
            self._clients[session] = (pid, time.time())
        thread = threading.Thread(target=self._serve, args=(connection, session), daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads
            if has_hung_up(connection):  # and may have left something
                self._serve(connection, session)
                return
            self._forget(session)
            _turn_away(connection)

    def _is_welcome(self, connection: socket.socket) -> bool:
        return peer_user(connection) in (os.geteuid(), None)

    def _serve(self, connection: socket.socket, session: Session) -> None:
        try:
            self._is_ready.wait()
            with connection, contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                with contextlib.suppress(ConnectionError):  # it may have left something
                    self._greet(connection)
                session.run()
        finally:
            self._forget(session)

    def _greet(self, connection: socket.socket) -> None:
        page = self._gpus.descriptor
        if page is None:
            connection.sendall(link.greeting())
        else:
            link.send_with_descriptor(connection, link.greeting(), page)

    def _forget(self, session: Session) -> None:
        with self._lock:
            self._clients.pop(session, None)
            self._last_used = time.monotonic()

    def _may_leave(self) -> bool:
        now = time.monotonic()
        if now - self._last_chores >= _CHORES_S:
            self._last_chores = now
            self._mark_ready()
            self._transports.close_unused()
            self._memories.look()
        if self._stop_at is not None and now >= self._stop_at:
            return self._close_door(whoever_waits=True)
        with self._lock:
            if self._clients:
                return False
            idle_s = now - self._last_used
        is_in_place = self._is_in_place()
        if not self._held.is_empty or self._memories.count:
            self._last_used = now
            if not is_in_place and self._stop_at is None:
                self._stop_at = now + _STOP_S
            return False
        is_wanted = self._stop_at is None and is_in_place
        if is_wanted and idle_s < self._idle_s:
            return False
        return self._close_door()

    def _mark_ready(self) -> None:
        """Mark the socket, so that a client that waits long from now on knows that we hang."""
        if self._inode is None or not (self._is_ready.is_set() and self._is_in_place()):
            return
        with contextlib.suppress(OSError):
            if self._path.lstat().st_mode & READY_MODE != READY_MODE:
                self._path.chmod(READY_MODE)

    def _is_in_place(self) -> bool:
        """Whether this is the sender that others find."""
        if self._inode is None:
            return True
        if self._has_made_way:
            return False
        try:
            return self._path.lstat().st_ino == self._inode
        except OSError:
            # Its starter has not put it there yet.
            return time.time() - self._began_s < _PLACING_S

    def _close_door(self, *, whoever_waits: bool = False) -> bool:
        """Have the next process start another sender; False if somebody has come meanwhile."""
        if self._inode is None:
            return True
        try:
            with DirectoryLock(self._lock_path, time.monotonic()):
                if select.select([self._listener], [], [], 0)[0] and not whoever_waits:
                    return False
                if self._path.lstat().st_ino == self._inode:
                    self._path.unlink()
                self._listener.close()
        except TimeoutError:  # somebody starts one here, or leaves
            return whoever_waits
        except OSError:  # it was removed, or the directory was
            return True
        return True

    def describe(self) -> str:
        """The status, in JSON."""
        return json.dumps(self.status())

    def status(self) -> dict[str, Any]:
        """What `infertrace doctor` shows, without credentials."""
        with self._lock:
            clients = [
                {"pid": pid, "since": since, "service": session.introduction.service_name}
                for session, (pid, since) in self._clients.items()
                if session.introduction is not None
            ]
        return {
            "version": VERSION,
            "pid": os.getpid(),
            "since": self._began_s,
            "clients": clients,
            "targets": self._transports.describe(),
            "held": self._held.describe(),
            "memories_of_the_disconnected": self._memories.count,
            "delivered_for_the_gone": self._held.delivered,
            "rejected_for_the_gone": self._held.rejected,
            "unreadable": self._held.unreadable,
            "gpus": self._gpus.status(),
        }


def _turn_away(connection: socket.socket) -> None:
    with connection, contextlib.suppress(OSError):
        connection.sendall(link.greeting(is_ready=False))
