"""Finds the sender that all processes of a user on a host share, starts it where there is none.

Whoever finds no socket, or one at which nobody listens any more, takes the lock, looks again, makes
the socket and starts a sender on it. From then on others can connect, before it is ready, and wait
for its greeting. A sender takes the same lock when it leaves, so that nobody connects to one that
goes, or finds the connection closed without a greeting, and comes again.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
import time
from functools import lru_cache

from infertrace import backend
from infertrace.exporting import link
from infertrace.exporting.agent_socket import check_agents_socket
from infertrace.exporting.detached_process import reap, start_detached
from infertrace.exporting.directory_lock import DirectoryLock
from infertrace.exporting.peer import peer_user
from infertrace.exporting.sender_directory import NoDirectory, find_directory, sender_name
from infertrace.green_threads import threads_are_green
from infertrace.named_tuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

    from infertrace.exporting.answer import Answer
    from infertrace.exporting.introduction import Introduction

_START_TIMEOUT_S: Final = 20.0  # for one attempt to connect; the next one goes on waiting
_LOCK_TIMEOUT_S: Final = 5.0  # whoever holds it starts a process, or removes a file
_FULL_PAUSE_S: Final = 0.005
_LOOK_INTERVAL_S: Final = 0.25  # at whether a sender from which no greeting comes is still there
# Greetings that stayed away because a sender was about to leave.
_MAX_ATTEMPTS: Final = 3
# What a socket's mode says of the sender; only this user may enter the directory.
_STARTING_MODE: Final = 0o600
READY_MODE: Final = 0o700
_BACKLOG: Final = 1024  # the kernel takes what it allows of that
_ANNOUNCEMENT_S: Final = 0.001  # two frames, to a socket that nobody has written to
_SEND_BUFFER_BYTES: Final = 1024 * 1024

_PROGRAM: Final = (
    "import os, sys; os.setsid(); sys.path[:] = sys.argv[5:]; "
    "from infertrace.exporting.sender_service import main; main(*sys.argv[1:5])"
)
# The sender keeps memory of this size for the next request, rather than have the kernel clear
# pages for each. Source: mallopt(3); other libraries of C ignore these variables.
_KEPT_MEMORY: Final = {
    "MALLOC_TRIM_THRESHOLD_": str(8 * 1024 * 1024),
    "MALLOC_MMAP_THRESHOLD_": str(4 * 1024 * 1024),
}
# What configures a tracer is no sender's; some of it is secret.
_VARIABLES_OF_TRACERS: Final = ("INFERTRACE_", "OTEL_")


class Place(NamedTuple):
    """Where a sender for processes like this one listens."""

    directory: str
    name: str
    is_agents: bool = False
    """Whether it is that of an agent, which nobody starts, ends or replaces from here."""

    @property
    def socket(self) -> str:
        return os.path.join(self.directory, self.name)

    @property
    def lock(self) -> str:
        return f"{self.socket}.lock"

    @property
    def unfinished(self) -> str:
        """Where a socket is made."""
        return f"{self.socket}.new"


def find_place(agent: str | None = None) -> Place:
    """Raises NoDirectory where processes of this user cannot share a sender.

    agent: `unix:///PATH`; then its place.
    """
    if agent is not None:
        path = agent.removeprefix("unix://")
        return Place(os.path.dirname(path), os.path.basename(path), is_agents=True)
    return Place(find_directory(os.environ), sender_name(_module_paths(), os.environ))


class HostSender:
    """A connection to the common sender. `open` makes one."""

    def __init__(
        self,
        connection: socket.socket,
        pid: int,
        gpu_page: int | None = None,
        *,
        is_agents: bool = False,
    ) -> None:
        self.socket = connection
        self.pid: int | None = pid
        self.gpu_page = gpu_page
        """A descriptor as of `link.read_greeting_with_page`."""
        self._is_agents = is_agents
        connection.settimeout(None)

    @classmethod
    def open(
        cls, introduction: Introduction, memory: int | None = None, agent: str | None = None
    ) -> HostSender:
        """Connect, start a sender first if there is none, and wait for its greeting.

        memory: the descriptor of the one in which this process's spans lie. The sender has it, and
        knows where its spans are to go, before it is ready: the process may die meanwhile.
        agent: as of `find_place`.

        Raises NoDirectory, or another OSError. After a TimeoutError, the next call goes on waiting
        for the same one, unless that had been ready before: then it hangs, and is replaced.
        """
        timeout_s = _START_TIMEOUT_S
        deadline = time.monotonic() + timeout_s
        # Before anything can fail: a process that gives up its rights between two attempts may not
        # read the modules any more that this loads.
        introduced = introduction.encode()
        place = find_place(agent)
        attempt = 0
        while True:
            attempt += 1
            waiting = _take_waiting(place, _inode_of(memory)) or connect_or_start(
                place, introduction.target.wire, deadline
            )
            connection = waiting.connection
            try:
                connection.settimeout(max(deadline - time.monotonic(), 0.001))
                is_known = waiting.memory == _inode_of(memory)
                _introduce(connection, introduced, None if is_known else memory)
                greeting = _wait_for_greeting(waiting, deadline)
                if greeting is not None:
                    return cls(connection, *greeting, is_agents=place.is_agents)
                _move(waiting, introduction.target.wire, introduced, memory, deadline)
            except TimeoutError:
                _waiting.append(waiting._replace(memory=_inode_of(memory)))
                _replace_if_it_hangs(waiting)
                raise TimeoutError(f"it is not ready after {timeout_s:g} s") from None
            except ConnectionError:
                connection.close()
                if attempt == _MAX_ATTEMPTS:
                    raise
            except BaseException:
                connection.close()
                raise

    def end(self) -> None:
        """It stays, for others; but one that has ended may be this process's to wait for."""
        if self.pid and not self._is_agents:
            reap(self.pid)

    def after_fork_in_child(self) -> None:
        """Close this copy: the sender must see the parent's end."""
        self.socket.close()


def _introduce(connection: socket.socket, introduced: bytes, memory: int | None) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    connection.sendall(link.pack_frame(link.Kind.TARGET, introduced))
    if memory is not None:
        link.send_with_descriptor(connection, link.pack_frame(link.Kind.MEMORY), memory)


def _wait_for_greeting(waiting: Waiting, deadline: float) -> tuple[int, int | None] | None:
    """The sender's process id and its page of GPUs; None where it has made way for another one
    before it got to this connection. Raises TimeoutError at the deadline, and another OSError."""
    while True:
        left_s = max(deadline - time.monotonic(), 0.001)
        waiting.connection.settimeout(min(left_s, _LOOK_INTERVAL_S))
        try:
            if threads_are_green():  # they read no GPU, and not every one can receive a descriptor
                return link.read_greeting(waiting.connection), None
            return link.read_greeting_with_page(waiting.connection)
        except TimeoutError:
            if time.monotonic() >= deadline:
                raise
            if not _is_there(waiting):
                return None


def _move(
    waiting: Waiting, wire: str, introduced: bytes, memory: int | None, deadline: float
) -> None:
    """Wait for the sender that others find now, instead of this one; raises OSError."""
    found = connect_or_start(waiting.place, wire, deadline)
    found.connection.settimeout(max(deadline - time.monotonic(), 0.001))
    _introduce(found.connection, introduced, memory)
    _waiting.append(found._replace(memory=_inode_of(memory)))
    # Only now, so that one of them has the memory whenever this process dies; and so that only one
    # delivers what lies in it.
    with contextlib.suppress(OSError):
        waiting.connection.sendall(link.pack_frame(link.Kind.MEMORY))
    waiting.connection.close()


class Holding:
    """Spans on their way to a sender that holds them, from a process that ends.

    Nothing here waits for the sender to be ready, or for its turn on a busy machine: what is
    written to the socket outlives this process as long as the sender lives, so that only a
    connection that ends without an answer means that the spans are not taken.
    """

    def __init__(
        self,
        introduction: Introduction,
        descriptor: int,
        span_count: int,
        timeout_s: float,
        agent: str | None = None,
    ) -> None:
        """Connect, start a sender first if there is none, and send; raises OSError.

        descriptor: of a memory that `memory_reader.py` reads. agent: as of `find_place`.
        """
        deadline = time.monotonic() + timeout_s
        place = find_place(agent)
        found = connect_or_start(place, introduction.target.wire, deadline)
        self._is_agents = place.is_agents
        self._socket = found.connection
        self._pid: int | None = None
        try:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            self._socket.sendall(link.pack_frame(link.Kind.TARGET, introduction.encode()))
            packed = link.pack_frame(link.Kind.HOLD, span_count=span_count)
            link.send_with_descriptor(self._socket, packed, descriptor)
        except BaseException:
            self._socket.close()
            raise

    def wait(self, timeout_s: float) -> Answer:
        """What the sender says of it; after a TimeoutError, call again.

        Raises another OSError where the connection has ended, and what `link.unpack_answer` raises.
        """
        # Both are so short that they come in one piece.
        self._socket.settimeout(max(timeout_s, 0.001))
        if self._pid is None:
            self._pid = link.read_greeting(self._socket)
        return link.unpack_answer(link.ask(self._socket))

    def close(self) -> None:
        """Let the sender know that nobody waits for its answer."""
        self._socket.close()
        if self._pid and not self._is_agents:
            reap(self._pid)


class Waiting(NamedTuple):
    """A connection whose greeting has not come."""

    place: Place
    connection: socket.socket
    inode: int
    """Of the socket at that place."""
    since_s: float
    memory: int | None = None
    """The inode of the memory that was sent over it; then it is for the owner of that."""


def connect(place: Place, deadline: float) -> Waiting | None:
    """A connection to whoever listens there; None where nobody does. Raises OSError."""
    try:
        found = os.lstat(place.socket)
    except FileNotFoundError:
        return None
    if place.is_agents:
        check_agents_socket(place.socket, found)
    elif not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid():
        raise NoDirectory(f"{place.socket}: expected a socket of this user")
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Not blocking: one that listens but takes nobody, and whose backlog is full, blocks.
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            connection.connect(place.socket)
            if peer_user(connection) not in (found.st_uid, None):
                raise _refusal(place, f"{place.socket}: another user listens there")
            return Waiting(place, connection, found.st_ino, time.monotonic())
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            return None
        except BlockingIOError:
            connection.close()
            if time.monotonic() >= deadline:
                raise TimeoutError("too many processes wait for it") from None
            time.sleep(_FULL_PAUSE_S)
        except BaseException:
            connection.close()
            raise


def _refusal(place: Place, message: str) -> OSError:
    """Of what somebody else may have put there; an agent's place has no substitute."""
    return PermissionError(message) if place.is_agents else NoDirectory(message)


def connect_or_start(place: Place, wire: str, deadline: float) -> Waiting:
    """A connection to the sender of this place, which may not be ready; raises OSError."""
    found = connect(place, deadline)
    if found is not None:
        return found
    if place.is_agents:
        raise ConnectionRefusedError("nobody listens there")
    with DirectoryLock(place.lock, min(deadline, time.monotonic() + _LOCK_TIMEOUT_S)):
        found = connect(place, deadline)
        if found is None:
            start(place, wire)
            found = connect(place, deadline)
    if found is None:
        raise ConnectionRefusedError(f"{place.socket}: it was removed")
    return found


def _replace_if_it_hangs(waiting: Waiting) -> None:
    """Have the next process start another; those that are connected to this one stay so."""
    path = waiting.place.socket
    if waiting.place.is_agents or time.monotonic() - waiting.since_s < _START_TIMEOUT_S:
        return
    with contextlib.suppress(OSError), DirectoryLock(waiting.place.lock, time.monotonic()):
        found = os.lstat(path)
        if found.st_ino == waiting.inode and found.st_mode & READY_MODE == READY_MODE:
            os.unlink(path)


def find_senders() -> list[Place]:
    """The senders of this user, for whatever processes; raises NoDirectory."""
    directory = find_directory(os.environ)
    places = [Place(directory, name) for name in sorted(os.listdir(directory))]
    return [place for place in places if _is_socket(place.socket)]


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:  # it was removed meanwhile
        return False


def ask_status(place: Place, timeout_s: float = 5.0) -> str | None:
    """What a sender says of itself, in JSON; None where there is none.

    Raises NoDirectory, and another OSError where it does not answer.
    """
    found = connect(place, time.monotonic() + timeout_s)
    if found is None:
        return None
    with found.connection as connection:
        connection.settimeout(timeout_s)
        link.read_greeting(connection)
        connection.sendall(link.pack_frame(link.Kind.STATUS))
        return link.unpack_answer(link.ask(connection)).rejection_reason


def start(place: Place, wire: str) -> None:
    """Start a sender there, which gets ready for this wire; the lock is held. Raises OSError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(place.unfinished)
        listener.bind(place.unfinished)
        listener.listen(_BACKLOG)
        os.chmod(place.unfinished, _STARTING_MODE)
        inode = os.lstat(place.unfinished).st_ino
        start_detached(
            _PROGRAM,
            [str(listener.fileno()), place.socket, str(inode), wire, *_module_paths()],
            descriptor=listener.fileno(),
            environ=_environment(os.environ),
        )
        os.rename(place.unfinished, place.socket)
    finally:
        listener.close()


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    kept = {
        name: value for name, value in environ.items() if not name.startswith(_VARIABLES_OF_TRACERS)
    }
    return _KEPT_MEMORY | kept | {backend.VARIABLE: backend.selected.NAME}


def _module_paths() -> list[str]:
    """Where a sender finds its modules: the interpreter's own folders, and those of what it needs.

    Not all of `sys.path`: a program's own folder may hold a module named as one of Python's, and
    programs in two folders should share a sender.
    """
    return _needed_of(tuple(sys.path))


@lru_cache(maxsize=4)  # a forked child, which is new to all that, looks here first
def _needed_of(module_paths: tuple[str, ...]) -> list[str]:
    kept = {sys.prefix, sys.base_prefix, sys.exec_prefix}
    own = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    needed = {own}
    for package, part in (("grpc", "grpc"), ("google", os.path.join("google", "protobuf"))):
        # Where pip puts them. `find_spec` would look into each folder of `sys.path`, and each look
        # takes the GIL from a traced loop once more.
        if os.path.isdir(os.path.join(own, part)):
            continue
        from importlib.util import find_spec

        with contextlib.suppress(ImportError, ValueError):
            found = find_spec(package)
            for folder in (found.submodule_search_locations or ()) if found else ():
                needed.add(os.path.dirname(folder))
    paths = [os.path.abspath(path) for path in module_paths]
    return [
        path
        for path in dict.fromkeys(paths)
        if path in needed or any(path.startswith(prefix + os.sep) for prefix in kept)
    ]


# Mostly one or none, for the next tracer that wants one.
_waiting: list[Waiting] = []


def prestart(wire: str, agent: str | None = None) -> None:
    """See that there is a sender, if there can be one; raises NoDirectory."""
    place = find_place(agent)
    if not any(waiting.place == place and waiting.memory is None for waiting in _waiting):
        try:
            _waiting.append(connect_or_start(place, wire, time.monotonic()))
        except NoDirectory:
            raise
        except OSError:  # tried again when it is needed, and told of then
            return


def announce(introduction: Introduction, memory: int, agent: str | None = None) -> None:
    """Let a sender know this memory, where there is one; raises NoDirectory.

    For the thread whose span is the first in it: waits for nothing.
    """
    place = find_place(agent)
    try:
        waiting = _take_waiting(place, None) or connect(place, time.monotonic())
    except NoDirectory:
        raise
    except OSError:
        return
    if waiting is None:
        return
    try:
        waiting.connection.settimeout(_ANNOUNCEMENT_S)
        _introduce(waiting.connection, introduction.encode(), memory)
        _waiting.append(waiting._replace(memory=_inode_of(memory)))
    except OSError:
        waiting.connection.close()


def _inode_of(memory: int | None) -> int | None:
    return None if memory is None else os.fstat(memory).st_ino


def _take_waiting(place: Place, memory: int | None) -> Waiting | None:
    """One over which this memory was sent, else one over which none was."""
    mine = [waiting for waiting in list(_waiting) if waiting.memory in (None, memory)]
    if not mine:
        return None
    found = max(mine, key=lambda waiting: waiting.memory is not None)
    try:
        _waiting.remove(found)
    except ValueError:  # another thread has it
        return None
    if found.place == place and _is_there(found):
        return found
    # The environment, or the user, is another than before; or that sender hangs.
    found.connection.close()
    return None


def _is_there(waiting: Waiting) -> bool:
    try:
        return os.lstat(waiting.place.socket).st_ino == waiting.inode
    except OSError:
        return False


def end_waiting() -> None:
    """Close the connections that nobody has taken."""
    while _waiting:
        _waiting.pop().connection.close()


def after_fork_in_child() -> None:
    """Close this copy of the parent's connections, and of the lock that it may hold."""
    end_waiting()
    DirectoryLock.after_fork_in_child()
