"""Ends what takes too long: a query, a request that does not come to its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from infertrace.collector.background_thread import BackgroundThread

_AGAIN_S = 0.05


@dataclass(eq=False)
class _Block:
    deadline: float
    interrupt: Callable[[], object]
    was_interrupted: bool = False


class TimeLimits:
    """One thread for all: to start one for each would make each wait for its start.

    `error` makes what is raised, of the limit in seconds.
    """

    def __init__(self, timeout_s: float, error: Callable[[float], Exception]) -> None:
        self._timeout_s = timeout_s
        self._error = error
        self._changed = threading.Condition()
        self._blocks: dict[_Block, None] = {}  # in the order of their deadlines
        self._is_idle = False
        self._closed = False
        self._is_started = False
        self.thread = BackgroundThread("timeouts", self._watch)

    @contextmanager
    def limit(self, interrupt: Callable[[], object]) -> Iterator[None]:
        """Call `interrupt` when the block takes too long, which then raises the error."""
        block = _Block(time.monotonic() + self._timeout_s, interrupt)
        with self._changed:
            self._blocks[block] = None
            if not self._is_started:
                self._is_started = True
                self.thread.start()
            elif self._is_idle:
                self._changed.notify()
        self.thread.ensure()
        try:
            yield
        except Exception as error:
            if block.was_interrupted:
                raise self._error(self._timeout_s) from error
            raise
        finally:
            with self._changed:  # so that nothing is interrupted after the block
                del self._blocks[block]

    def close(self) -> None:
        """End the thread; blocks still there may take as long as they like."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self.thread.stop()

    def _watch(self, thread: BackgroundThread) -> None:
        with self._changed:
            while not self._closed:
                self._is_idle = not self._blocks
                if self._is_idle:
                    self._changed.wait()
                    continue
                # One that comes later ends later, so nobody has to wake this thread for it.
                due = next(iter(self._blocks)).deadline - time.monotonic()
                if due > 0:
                    self._changed.wait(due)
                    continue
                now = time.monotonic()
                for block in self._blocks:
                    if block.deadline <= now:
                        block.was_interrupted = True
                        with suppress(Exception):  # of a block that ends just now
                            block.interrupt()
                thread.does_well()
                # Again, because between two statements there is nothing to interrupt.
                self._changed.wait(_AGAIN_S)
