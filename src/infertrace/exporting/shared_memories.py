"""Memories that traced processes share with a sender, until these processes end.

A process that hangs up may go on: it has another target, or takes this sender for dead. So what
lies in its memory is delivered for it only once the process has ended.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from infertrace.exporting.process_end import ProcessEnd

# A process that is killed closes its connections a moment before it has ended.
_MOMENT_S: Final = 0.5


class SharedMemory(NamedTuple):
    """One that came with a frame."""

    descriptor: int
    owner: ProcessEnd

    def close(self) -> None:
        os.close(self.descriptor)
        self.owner.close()


class _Waiting(NamedTuple):
    memory: SharedMemory
    inode: int
    deliver: Callable[[int], bool]
    is_over: Callable[[int], bool]

    def is_done(self) -> bool:
        descriptor, owner = self.memory
        return self.is_over(descriptor) or (owner.has_come() and self.deliver(descriptor))


class SharedMemories:
    """Of processes that have hung up; for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[_Waiting] = []

    @property
    def count(self) -> int:
        return len(self._waiting)

    def leave(
        self,
        memory: SharedMemory,
        deliver: Callable[[int], bool],
        is_over: Callable[[int], bool],
    ) -> None:
        """Its process has hung up. Call `deliver` with the descriptor once it has ended.

        deliver: False where it is to be called again. is_over: whether there is nothing to deliver,
        since the process has said goodbye. Waits for a moment.
        """
        inode = os.fstat(memory.descriptor).st_ino
        waiting = _Waiting(memory, inode, deliver, is_over)
        if not is_over(memory.descriptor):
            memory.owner.has_come(_MOMENT_S)
        if waiting.is_done():
            memory.close()
            return
        with self._lock:
            self._waiting.append(waiting)

    def found_again(self, descriptor: int) -> None:
        """The process of this memory has connected again."""
        inode = os.fstat(descriptor).st_ino
        with self._lock:
            again = [it for it in self._waiting if it.inode == inode]
            self._waiting = [it for it in self._waiting if it.inode != inode]
        for it in again:
            it.memory.close()

    def look(self) -> None:
        """Deliver what those have left that have ended meanwhile."""
        done = [it for it in list(self._waiting) if it.is_done()]
        with self._lock:
            self._waiting = [it for it in self._waiting if it not in done]
        for it in done:
            it.memory.close()
