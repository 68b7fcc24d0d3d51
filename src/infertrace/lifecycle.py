"""Ties the exporters of all tracers to the life of their process: forks, SIGTERM, the exit."""

from __future__ import annotations

import atexit
import os
import sys
import time
import weakref

from infertrace.gpu import forget_probes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final, Protocol

    class Exporter(Protocol):
        """What this module asks of an exporter."""

        @property
        def exit_timeout_s(self) -> float: ...
        @property
        def flush_on_sigterm(self) -> bool: ...
        def reset(self) -> None:
            """Start anew in a forked child."""

        def begin_shutdown(self, deadline: float) -> None:
            """Take no more spans, and deliver what is held; does not wait."""

        def wait_for_delivery(self, timeout_s: float) -> bool:
            """Wait, `timeout_s` at most; True when nothing is pending."""

        def finish_shutdown(self) -> int:
            """Drop what is left; returns how many spans that were."""

        def flush(self, timeout_s: float) -> bool: ...


_LAST_OF_WORKER: Final = -1000
# How long the exit waits for one exporter before it checks the others again.
_TURN_S: Final = 0.1

_exporters: weakref.WeakSet[Exporter] = weakref.WeakSet()
# Exporters that are not shut down, and those that the program dropped with spans still pending:
# this reference keeps them alive, so an exporter that goes out of scope loses nothing.
_open_exporters: set[Exporter] = set()
_worker_pid = 0


def register(exporter: Exporter) -> None:
    """Reset this exporter in forked children."""
    _exporters.add(exporter)


def keep_open(exporter: Exporter) -> None:
    """Deliver what this exporter holds at the end of the process, and at SIGTERM if asked to."""
    _open_exporters.add(exporter)
    _shut_down_with_worker()


def let_go(exporter: Exporter) -> None:
    """Keep an exporter no longer, since nothing is left to deliver; a `__del__` may call this."""
    _open_exporters.discard(exporter)


def shut_down(exporters: Iterable[Exporter], timeout_s: float) -> None:
    """Shut all of these down at once, `timeout_s` seconds at most for all together."""
    deadline = time.monotonic() + timeout_s
    waiting = list(exporters)
    for exporter in waiting:
        exporter.begin_shutdown(deadline)
    # An exporter that has delivered everything says goodbye to its collector; it must not wait
    # for another one that cannot deliver.
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


def _shut_down_with_worker() -> None:
    """Deliver at the end of a multiprocessing worker: it leaves by os._exit, past atexit."""
    global _worker_pid
    modules = sys.modules
    if "multiprocessing.util" not in modules or _worker_pid == os.getpid():
        return
    if modules["multiprocessing.process"].parent_process() is None:
        return
    _worker_pid = os.getpid()
    # It runs after whatever the program itself has registered there.
    modules["multiprocessing.util"].Finalize(None, _shut_down_at_exit, exitpriority=_LAST_OF_WORKER)


def deliver_at_sigterm(is_the_end: bool) -> None:
    """Deliver what tracers with `flush_on_sigterm` hold, by the longest of their timeouts."""
    exporters = [exporter for exporter in list(_open_exporters) if exporter.flush_on_sigterm]
    if not exporters:
        return
    timeout_s = max(exporter.exit_timeout_s for exporter in exporters)
    if is_the_end:
        shut_down(exporters, timeout_s)
        return
    deadline = time.monotonic() + timeout_s
    for exporter in exporters:
        exporter.flush(max(deadline - time.monotonic(), 0.0))


def _reset_after_fork() -> None:
    forget_probes()
    for exporter in _exporters:
        exporter.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
atexit.register(_shut_down_at_exit)
