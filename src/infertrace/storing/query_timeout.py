"""Ends queries that take too long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from infertrace.storing.store import QueryTimeoutError

_AGAIN_S = 0.05


@dataclass(eq=False)
class _Query:
    deadline: float
    interrupt: Callable[[], object]
    was_interrupted: bool = False


class QueryTimeouts:
    """One thread for all queries: to start one for each would make each wait for its start."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._changed = threading.Condition()
        self._queries: dict[_Query, None] = {}  # in the order of their deadlines
        self._is_idle = False
        self._closed = False
        self._thread: threading.Thread | None = None

    @contextmanager
    def limit(self, interrupt: Callable[[], object]) -> Iterator[None]:
        """Call `interrupt` when the block takes too long, which then raises QueryTimeoutError."""
        query = _Query(time.monotonic() + self._timeout_s, interrupt)
        with self._changed:
            self._queries[query] = None
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._watch, name="infertrace-timeouts", daemon=True
                )
                self._thread.start()
            elif self._is_idle:
                self._changed.notify()
        try:
            yield
        except Exception as error:
            if query.was_interrupted:
                raise QueryTimeoutError(self._timeout_s) from error
            raise
        finally:
            with self._changed:  # so that nothing is interrupted after the block
                del self._queries[query]

    def close(self) -> None:
        """End the thread; queries still there may take as long as they like."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        with self._changed:
            while not self._closed:
                self._is_idle = not self._queries
                if self._is_idle:
                    self._changed.wait()
                    continue
                # One that comes later ends later, so nobody has to wake this thread for it.
                due = next(iter(self._queries)).deadline - time.monotonic()
                if due > 0:
                    self._changed.wait(due)
                    continue
                now = time.monotonic()
                for query in self._queries:
                    if query.deadline <= now:
                        query.was_interrupted = True
                        query.interrupt()
                # Again, because between two statements there is nothing to interrupt.
                self._changed.wait(_AGAIN_S)
