"""Threads that survive: where an unforeseen error ends one, another replaces it and logs that."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

FIRST_DELAY_S = 0.1  # before the next thread; doubles until one succeeds
MAX_DELAY_S = 10.0
NICENESS_STEP = 5  # of a thread that no request waits for: it yields the CPU to those that answer

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ThreadState:
    """`error` is the type of what ended the last thread, None once its successor has succeeded."""

    name: str
    restarts: int
    error: str | None


def lower_priority() -> None:
    """Have this thread yield the CPU to the others, where a priority can be a thread's own."""
    if sys.platform == "linux":  # elsewhere it is that of the whole process
        with suppress(OSError):
            niceness = os.getpriority(os.PRIO_PROCESS, os.getpid()) + NICENESS_STEP
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)


class BackgroundThread:
    """Runs `work` until it returns; where it raises, another thread runs it again after a delay.

    `work` gets this object, and calls `does_well` after each part of its work that succeeded.
    Each type of error is logged once. No method raises.
    """

    def __init__(self, name: str, work: Callable[[BackgroundThread], None]) -> None:
        self._name = name
        self._work = work
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._delay_s = FIRST_DELAY_S
        self._restarts = 0
        self._error: str | None = None
        self._said: set[str] = set()
        self._is_done = False

    def start(self) -> None:
        """Start the first thread."""
        self._begin(0.0)

    def _begin(self, delay_s: float) -> None:
        # A daemon, so that a thread that hangs cannot keep the process alive.
        thread = threading.Thread(
            target=self._run, args=(delay_s,), name=f"infertrace-{self._name}", daemon=True
        )
        self._thread = thread
        try:
            thread.start()
        except RuntimeError as error:  # the process may have no more threads
            self._thread = None
            self._note(error)

    def ensure(self) -> None:
        """Start a thread where an earlier attempt to replace one has failed."""
        thread = self._thread
        if self._restarts and not self._is_done and not self._stopping.is_set():
            with self._lock:
                if self._thread is thread and (thread is None or not thread.is_alive()):
                    self._begin(0.0)

    def does_well(self) -> None:
        """Note that the work succeeded; ends the state of failure."""
        if self._error is not None:
            _log.info("the thread %s works again", self._name)
            self._error = None
            self._delay_s = FIRST_DELAY_S

    def stop(self, timeout_s: float | None = None) -> bool:
        """Replace no further thread, and wait for the last one; False if that took too long."""
        self._stopping.set()
        return self.join(timeout_s)

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until `work` has returned; False if that took too long."""
        while (thread := self._thread) is not None:
            thread.join(timeout_s)
            if thread.is_alive():
                return False
            with self._lock:
                if thread is self._thread:
                    return True
        return True

    @property
    def native_id(self) -> int | None:
        """The operating system's name for the thread."""
        return None if self._thread is None else self._thread.native_id

    @property
    def state(self) -> ThreadState:
        """The state as of now."""
        return ThreadState(self._name, self._restarts, self._error)

    def _run(self, delay_s: float) -> None:
        if delay_s:
            self._stopping.wait(delay_s)
        try:
            self._work(self)
            self._is_done = True
        except BaseException as error:  # the work needs a thread, whatever the error was
            self._note(error)
            if not self._stopping.is_set():
                delay_s, self._delay_s = self._delay_s, min(2 * self._delay_s, MAX_DELAY_S)
                with self._lock:
                    self._begin(delay_s)

    def _note(self, error: BaseException) -> None:
        self._restarts += 1
        self._error = type(error).__name__
        if self._error not in self._said:
            self._said.add(self._error)
            _log.error("the thread %s ended, and is replaced", self._name, exc_info=error)
