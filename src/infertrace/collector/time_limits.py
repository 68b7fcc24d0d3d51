"""Interrupts blocks that run for too long, such as queries."""

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
    deadline_s: float
    interrupt: Callable[[], object]
    was_interrupted: bool = False


class TimeLimits:
    """Watches all blocks with one thread: a thread for each would delay each by its start.

    An interrupted block raises `error(timeout_s)`.
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
        """Call `interrupt` when the block takes too long, which has to make it raise."""
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
        """End the thread; it interrupts no block any more."""
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
                # A later block has a later deadline, so it does not have to wake this thread.
                due = next(iter(self._blocks)).deadline_s - time.monotonic()
                if due > 0:
                    self._changed.wait(due)
                    continue
                now = time.monotonic()
                for block in self._blocks:
                    if block.deadline_s <= now:
                        block.was_interrupted = True
                        with suppress(Exception):  # the block may be ending just now
                            block.interrupt()
                thread.does_well()
                # Interrupt again later: between two statements of a block it has no effect.
                self._changed.wait(_AGAIN_S)
