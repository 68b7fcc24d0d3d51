"""Whether the process at the other end of a connection has ended, or has only hung up."""

from __future__ import annotations

import os
import select
import socket
import sys
from typing import Final

from infertrace.exporting.peer import peer_pid

_SO_PEERPIDFD: Final = 77  # Linux 6.5. Source: unix(7)


class ProcessEnd:
    """Of one process, whatever gets its number later."""

    def __init__(self, connection: socket.socket) -> None:
        self._descriptor = _open(connection)

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
    """A descriptor that becomes readable when the process ends; None where there is no such."""
    if sys.platform != "linux":
        return None
    try:
        return connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError:
        pass
    try:
        return os.pidfd_open(peer_pid(connection))
    except (OSError, AttributeError):
        return None
