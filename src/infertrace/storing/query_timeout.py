"""Ends a query that takes too long."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from infertrace.storing.store import QueryTimeoutError

_AGAIN_S = 0.05


@contextmanager
def interrupted_after(timeout_s: float, interrupt: Callable[[], object]) -> Iterator[None]:
    """Call `interrupt` when the block takes longer, which then raises QueryTimeoutError."""
    lock, over = threading.Lock(), threading.Event()
    interrupted = False

    def end() -> None:
        nonlocal interrupted
        # Again, because between two statements there is nothing to interrupt.
        while True:
            with lock:  # never after the block
                if over.is_set():
                    return
                interrupted = True
                interrupt()
            over.wait(_AGAIN_S)

    timer = threading.Timer(timeout_s, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as error:
        if interrupted:
            raise QueryTimeoutError(timeout_s) from error
        raise
    finally:
        timer.cancel()
        with lock:
            over.set()
