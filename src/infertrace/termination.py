"""SIGTERM: deliver what is pending, then do what the signal did before.

A server handles SIGTERM by finishing the requests in flight. Some servers, uvicorn among them,
then restore the previous handler, often the default action, and raise the signal again: that ends
the process on the spot, before anything could deliver the spans of these last requests. So from
the first SIGTERM on, a server that restores the default action gets ours in its place: deliver,
then die by the signal.
"""

from __future__ import annotations

import _thread
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from infertrace.green_threads import is_in_green_thread
from infertrace.log import logger

_deliver: Callable[[bool], object] = bool
_previous: Any = None
_first_previous: Any = None
_is_passing_on = False
_set_handler = signal.signal


def set_up(deliver: Callable[[bool], object]) -> None:
    """Install the handler, which calls `deliver(ends_process)`, unless it is installed already.

    A handler that the program sets later replaces this one. If no handler can be set, one log
    message says so.
    """
    global _deliver, _previous, _first_previous
    before = signal.getsignal(signal.SIGTERM)
    if before in (_on_sigterm, _on_last_sigterm):
        return
    if threading.current_thread() is not threading.main_thread():
        why = "only a tracer that is made or configured on the main thread can"
    elif before is None:
        why = "its handler was not set from Python"
    else:
        _deliver, _previous = deliver, before
        if _first_previous is None:
            _first_previous = before
        signal.signal(signal.SIGTERM, _on_sigterm)
        return
    logger.warning("flush_on_sigterm: SIGTERM is left as it was: %s", why)


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    global _is_passing_on
    # A handler that the program set between two calls of set_up() may call ours in turn.
    previous = _first_previous if _is_passing_on else _previous
    if previous is signal.SIG_DFL:
        _on_last_sigterm(number, frame)
        return
    try:
        if _is_passing_on:
            pass
        elif is_in_green_thread():  # which may be the one that delivers
            _thread.start_new_thread(_deliver, (False,))
        else:
            _deliver(False)
    finally:
        if callable(previous):  # SIG_IGN is not
            signal.signal = _keep_default_from_losing_spans
            _is_passing_on, before = True, _is_passing_on
            try:
                previous(number, frame)
            finally:
                _is_passing_on = before


def _keep_default_from_losing_spans(signalnum: int, handler: Any) -> Any:
    """Replaces `signal.signal` after the first SIGTERM: the default action delivers first."""
    if signalnum == signal.SIGTERM and handler == signal.SIG_DFL:
        handler = _on_last_sigterm
    return _set_handler(signalnum, handler)


def _on_last_sigterm(number: int, frame: FrameType | None) -> None:
    # A signal to the process group arrives twice where the server also forwards it.
    _set_handler(number, signal.SIG_IGN)
    if is_in_green_thread():
        _thread.start_new_thread(_deliver_and_end, (number,))
    else:
        _deliver_and_end(number)


def _deliver_and_end(number: int) -> None:
    try:
        _deliver(True)
    finally:
        _set_handler(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
