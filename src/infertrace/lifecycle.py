"""Ties the exporters of all tracers to their process's life cycle: forks, SIGTERM, exit."""

from __future__ import annotations

import atexit
import os
import sys
import time
import weakref

from infertrace.gpu import forget_probes
from infertrace.imports_at_fork import wait_for_imports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Final, Protocol

    class Exporter(Protocol):
        """The part of an exporter that this module uses."""

        @property
        def exit_timeout_s(self) -> float: ...
        @property
        def flush_on_sigterm(self) -> bool: ...
        def reset(self) -> None:
            """Start anew in a forked child."""

        def begin_shutdown(self, deadline: float) -> None:
            """Take no more spans, and start to deliver the pending ones; does not wait."""

        def wait_for_delivery(self, timeout_s: float) -> bool:
            """Wait, `timeout_s` at most; True when nothing is pending."""

        def finish_shutdown(self) -> int:
            """Drop the remaining spans; returns how many there were."""

        def flush(self, timeout_s: float) -> bool: ...


_LAST_OF_WORKER: Final = -1000
# How long the exit waits for one exporter before it checks the others again.
_TURN_S: Final = 0.1

_exporters: weakref.WeakSet[Exporter] = weakref.WeakSet()
# Exporters that are not shut down, also those that the program dropped with spans still pending:
# this reference keeps them alive, so an exporter that goes out of scope loses nothing.
_open_exporters: set[Exporter] = set()
_worker_pid = 0
_last_calls: list[Callable[[], None]] = []


def register(exporter: Exporter) -> None:
    """Reset this exporter in forked children."""
    _exporters.add(exporter)


def keep_open(exporter: Exporter) -> None:
    """Have this exporter deliver when the process ends, and at SIGTERM if its tracer is set so."""
    _open_exporters.add(exporter)
    _shut_down_with_worker()


def call_last(call: Callable[[], None]) -> None:
    """Call this when a process that had something to deliver has done so and ends."""
    _last_calls.append(call)


def let_go(exporter: Exporter) -> None:
    """Drop an exporter that has nothing left to deliver; safe to call from `__del__`."""
    _open_exporters.discard(exporter)


def shut_down(exporters: Iterable[Exporter], timeout_s: float) -> None:
    """Shut all of these down together, within `timeout_s` seconds in total."""
    deadline = time.monotonic() + timeout_s
    waiting = list(exporters)
    for exporter in waiting:
        exporter.begin_shutdown(deadline)
    # An exporter that has delivered everything says goodbye to its collector at once: it must not
    # wait for another exporter that cannot deliver.
    while waiting:
        remaining_s = deadline - time.monotonic()
        for exporter in waiting.copy():
            if remaining_s <= 0 or exporter.wait_for_delivery(0):
                exporter.finish_shutdown()
                waiting.remove(exporter)
        if waiting:
            turn_s = remaining_s if len(waiting) == 1 else min(remaining_s, _TURN_S)
            waiting[0].wait_for_delivery(turn_s)


def _shut_down_at_exit() -> None:
    exporters = list(_open_exporters)
    if exporters:
        shut_down(exporters, max(exporter.exit_timeout_s for exporter in exporters))
    for call in _last_calls:
        call()


def _shut_down_with_worker() -> None:
    """Deliver when a multiprocessing worker ends: it exits by os._exit, which skips atexit."""
    global _worker_pid
    modules = sys.modules
    if "multiprocessing.util" not in modules or _worker_pid == os.getpid():
        return
    if modules["multiprocessing.process"].parent_process() is None:
        return
    _worker_pid = os.getpid()
    # This priority runs it after whatever the program itself has registered there.
    modules["multiprocessing.util"].Finalize(None, _shut_down_at_exit, exitpriority=_LAST_OF_WORKER)


def deliver_at_sigterm(is_the_end: bool) -> None:
    """Deliver for the tracers with `flush_on_sigterm`, within the longest of their timeouts."""
    exporters = [exporter for exporter in list(_open_exporters) if exporter.flush_on_sigterm]
    if not exporters:
        return
    timeout_s = max(exporter.exit_timeout_s for exporter in exporters)
    if is_the_end:
        shut_down(exporters, timeout_s)
        for call in _last_calls:
            call()
        return
    deadline = time.monotonic() + timeout_s
    for exporter in exporters:
        exporter.flush(max(deadline - time.monotonic(), 0.0))


def _reset_after_fork() -> None:
    forget_probes()
    for exporter in _exporters:
        exporter.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=wait_for_imports, after_in_child=_reset_after_fork)
atexit.register(_shut_down_at_exit)
