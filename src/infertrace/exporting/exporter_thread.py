"""The life of the exporter's thread: started when it is needed, replaced when it is ended."""

from __future__ import annotations

import contextlib
import sys
import threading

from infertrace.exporting.log_text import one_line
from infertrace.green_threads import threads_are_green
from infertrace.log import logger

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, Protocol
else:
    Protocol = object


# The wait after an unforeseen error of infertrace's own; it doubles with each further error.
_FIRST_RESTART_S: Final = 0.1
_MAX_RESTART_S: Final = 30.0


class Work(Protocol):
    """What the thread is for."""

    @property
    def is_stopping(self) -> bool:
        """Whether a shutdown wants the thread to end, and no other to start."""

    def has_pending(self) -> bool:
        """Whether there is work for a thread."""

    def before_start(self) -> None:
        """Called by the thread that starts another, while nobody else can."""

    def run(self) -> None:
        """Work until a shutdown, or until there is nothing left to do for good.

        Called again after an error.
        """

    def let_go(self) -> None:
        """Called at the end of a thread that no shutdown wanted."""

    def want_wake(self) -> None:
        """Have the next span that ends call `ExporterThread.wake`."""

    def interrupt(self) -> None:
        """Have `run` look for work, where it waits without the GIL. Takes no lock."""


class ExporterThread:
    """One thread at a time, or none, that works."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self.start_anew()

    def start_anew(self) -> None:
        """There is no thread, as in a forked child."""
        self._thread: threading.Thread | None = None
        # Held by the thread that starts another, and by the one thread that works; never waited
        # for.
        self._starting = threading.Lock()
        self._working = threading.Lock()
        self._worker: threading.Thread | None = None
        self.failures = 0
        """Errors that nobody foresaw, after which the work went on."""
        self._make_signal()

    def _make_signal(self) -> None:
        # A semaphore of one. To release it takes no lock, so a signal handler or a
        # finalizer may wake the thread wherever it interrupts.
        self._signal = threading.Lock()
        self._signal.acquire()

    @property
    def is_started(self) -> bool:
        return self._thread is not None

    @property
    def is_current(self) -> bool:
        return threading.current_thread() is self._thread

    def wake(self) -> None:
        """Start the thread if there is none, and have it look for work.

        Raises RuntimeError where no thread can be started.
        """
        if self._thread is None:
            self.start()
        self.notify()

    def notify(self) -> None:
        """Have the thread look for work, if there is one; takes no lock."""
        with contextlib.suppress(RuntimeError):  # it is notified already
            self._signal.release()
        self._work.interrupt()

    def wait(self, timeout_s: float) -> None:
        """Wait on this thread until somebody notifies it."""
        self._signal.acquire(timeout=timeout_s)

    def join(self, timeout_s: float) -> None:
        """Wait until it has ended; not where it is the calling one."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)

    def start(self) -> None:
        # Two threads, or a thread and a finalizer on it, may come here at once.
        if not self._starting.acquire(blocking=False):
            return
        try:
            if self._thread is not None or self._work.is_stopping:
                return
            self._work.before_start()
            if threads_are_green():
                # One made before `threading` was patched stops all green threads that wait.
                self._make_signal()
            thread = threading.Thread(target=self._run, name="infertrace-exporter", daemon=True)
            # Before start(): a span recorded while it waits for the thread must not start another.
            self._thread = thread
            try:
                thread.start()
            except BaseException:
                # A signal handler may have raised while start() waited for a thread that runs.
                self._thread = self._worker
                raise
        finally:
            self._starting.release()

    def borrow_caller(self, work: Callable[[], None]) -> None:
        """Do this work on the calling thread, and let no thread start until it is done.

        Returns at once if there is a thread.
        """
        if not self._starting.acquire(blocking=False):
            return
        try:
            if self._thread is not None:
                return
            self._thread = threading.current_thread()
        finally:
            self._starting.release()
        try:
            work()
        finally:
            self._thread = None

    def _run(self) -> None:
        if not self._working.acquire(blocking=False):
            # A start that was interrupted had started a thread all the same.
            self._thread = self._worker
            return
        self._thread = self._worker = threading.current_thread()
        is_done = False
        try:
            self._work_until_done()
            is_done = True
        finally:
            self._worker = None
            self._working.release()
            if self._thread is None and self._work.has_pending():
                # let_go() was called, and a span has ended since.
                with contextlib.suppress(RuntimeError):
                    self.wake()
            # Not an Exception, which is caught further in: somebody ended this thread.
            if not is_done and not self._work.is_stopping:
                self._tell_of_failure("was ended from outside")
                self._thread = None
                with contextlib.suppress(RuntimeError):  # the next span that ends tries again
                    self._work.want_wake()
                    self.start()

    def _work_until_done(self) -> None:
        restart_s = _FIRST_RESTART_S
        while True:
            try:
                self._work.run()
            except Exception as error:
                self._tell_of_failure(f"{type(error).__name__}: {error}")
                self.wait(restart_s)
                restart_s = min(restart_s * 2, _MAX_RESTART_S)
                continue
            if not self._work.is_stopping:
                self._work.let_go()
                self._thread = None
            return

    def _tell_of_failure(self, what: str) -> None:
        """Count an error of ours, and log the first: what failed goes on."""
        self.failures += 1
        if self.failures == 1:
            logger.error(
                "the exporter's thread goes on after an error that nobody foresaw "
                "(said once; stats() counts thread_failures): %s",
                one_line(what),
                exc_info=sys.exc_info()[1] is not None,
            )
