"""SIGTERM and SIGINT, for a process whose main thread mostly waits for them."""

from __future__ import annotations

import select
import signal
import socket
from typing import Final

_NUMBERS: Final = (signal.SIGTERM, signal.SIGINT)


class TerminationSignals:
    """Catches both as soon as it is made, on the main thread.

    A Python handler runs between two instructions of the main thread. If a signal arrives when that
    thread has begun to wait but does not sleep yet, the handler runs after the wait: for a lock or
    a queue, never. The byte that the interpreter writes (`signal.set_wakeup_fd`) waits to be read.
    """

    def __init__(self) -> None:
        self._reading, self._writing = socket.socketpair()
        self._writing.setblocking(False)
        signal.set_wakeup_fd(self._writing.fileno())
        for number in _NUMBERS:
            signal.signal(number, lambda *_: None)

    def has_come(self, timeout_s: float) -> bool:
        """Whether there is one to wait for, or comes within this time."""
        return bool(select.select([self._reading], [], [], timeout_s)[0])

    def wait(self) -> signal.Signals:
        """Wait for the first signal; after that, another one ends the process at once."""
        received = signal.Signals(self._reading.recv(1)[0])
        for number in _NUMBERS:
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        self._reading.close()
        self._writing.close()
        return received
