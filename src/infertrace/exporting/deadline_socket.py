"""A socket whose every wait ends at one deadline, however slowly the other end speaks."""

from __future__ import annotations

import contextlib
import io
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer


class DeadlineSocket:
    """What `http.client` asks of a socket, around a connected one."""

    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self._socket = connected
        self.deadline = deadline
        """By the monotonic clock."""

    def _limit(self) -> None:
        left_s = self.deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the deadline has passed")
        self._socket.settimeout(left_s)

    def sendall(self, data: bytes) -> None:
        self._limit()
        self._socket.sendall(data)

    def receive_into(self, room: memoryview) -> int:
        self._limit()
        return self._socket.recv_into(room)

    def makefile(self, mode: str) -> io.BufferedReader:
        """For reading only."""
        return io.BufferedReader(_Reader(self))

    def interrupt(self) -> None:
        """End whatever wait another thread is in; it closes the socket."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()

    def forget(self) -> None:
        """Close the descriptor of a forked child; TLS would tell the other end otherwise."""
        with contextlib.suppress(OSError):
            socket.close(self._socket.detach())


class _Reader(io.RawIOBase):
    def __init__(self, source: DeadlineSocket) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        return self._source.receive_into(memoryview(buffer))
