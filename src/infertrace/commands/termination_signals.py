"""SIGTERM and SIGINT, for a process whose main thread waits for nothing else."""

from __future__ import annotations

import signal
import socket
from typing import Final

_NUMBERS: Final = (signal.SIGTERM, signal.SIGINT)


class TerminationSignals:
    """Catches both from now on; for the main thread.

    A handler in Python runs between two instructions of the main thread. A signal that comes when
    that thread has begun to wait, but does not sleep yet, would be seen when the wait ends: for a
    lock or a queue, never. The byte that the interpreter writes for it (`signal.set_wakeup_fd`)
    stays until somebody reads it.
    """

    def __init__(self) -> None:
        self._reading, self._writing = socket.socketpair()
        self._writing.setblocking(False)
        signal.set_wakeup_fd(self._writing.fileno())
        for number in _NUMBERS:
            signal.signal(number, lambda *_: None)

    def wait(self) -> signal.Signals:
        """The first of them that came; from then on, another one ends the process at once."""
        received = signal.Signals(self._reading.recv(1)[0])
        for number in _NUMBERS:
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        self._reading.close()
        self._writing.close()
        return received
