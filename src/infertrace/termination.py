"""SIGTERM: deliver what is pending, then do what the signal did before."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

logger = logging.getLogger("infertrace")

_deliver: Callable[[bool], object] = bool
_previous: Any = None


def set_up(deliver: Callable[[bool], object]) -> None:
    """Call `deliver` when SIGTERM comes, with whether it ends the process; set up once.

    A handler that is set later takes the place of this one. Where none can be set, one line
    of the log says so.
    """
    global _deliver, _previous
    before = signal.getsignal(signal.SIGTERM)
    if before is _on_sigterm:
        return
    if threading.current_thread() is not threading.main_thread():
        why = "only a tracer that is made or configured on the main thread can"
    elif before is None:
        why = "its handler was not set from Python"
    else:
        _deliver, _previous = deliver, before
        signal.signal(signal.SIGTERM, _on_sigterm)
        return
    logger.warning("flush_on_sigterm: SIGTERM is left as it was: %s", why)


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    is_the_end = _previous is signal.SIG_DFL
    try:
        _deliver(is_the_end)
    finally:
        if is_the_end:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif callable(_previous):  # SIG_IGN is not
            _previous(number, frame)
