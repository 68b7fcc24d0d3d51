"""Whether the process at the other end of a connection has ended, or has only hung up."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import sys
import time
from typing import Final

from infertrace.exporting.peer import peer_pid

_SO_PEERPIDFD: Final = 77  # Linux 6.5. Source: unix(7)
_OUT_OF_DESCRIPTORS: Final = (errno.EMFILE, errno.ENFILE)
_PAUSE_S: Final = 0.05


class ProcessEnd:
    """Of one process, whatever gets its number later."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        # Now, if there is a descriptor to spare: an old kernel finds the process by its number.
        self._descriptor = _open(connection)

    def ensure(self) -> None:
        """Be able to tell from now on, without the connection; waits for a descriptor."""
        while self._descriptor is None:
            has_lacked = _lacks_descriptors()
            self._descriptor = _open(self._connection)
            if not has_lacked:
                return
            time.sleep(_PAUSE_S)

    def has_come(self, timeout_s: float = 0.0) -> bool:
        """Whether it has ended, or does so within this time; True too where nobody can tell."""
        if self._descriptor is None:
            return True
        ended = select.poll()
        ended.register(self._descriptor, select.POLLIN)
        return bool(ended.poll(timeout_s * 1e3))

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _open(connection: socket.socket) -> int | None:
    """A descriptor that becomes readable when the process ends; None where there is none."""
    if sys.platform != "linux":
        return None
    with contextlib.suppress(OSError):
        return connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    with contextlib.suppress(OSError, AttributeError):
        return os.pidfd_open(peer_pid(connection))
    return None


def _lacks_descriptors() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno in _OUT_OF_DESCRIPTORS
    return False
