"""A fork waits while a thread of ours loads a module.

A child inherits the module half loaded and locked by a thread that it does not have: whoever
imports it there, the program included, waits for ever, or finds nothing in it.
"""

from __future__ import annotations

import sys
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Final

THREAD_PREFIX: Final = "infertrace-"
_IMPORT_SYSTEM: Final = "<frozen importlib._bootstrap>"
_LOOK_INTERVAL_S: Final = 0.001
# For a thread that waits for a module which the forking thread itself is amid loading.
_PATIENCE_S: Final = 10.0


def wait_for_imports() -> None:
    """Return once no thread of ours loads a module, or after ten seconds."""
    ours = _other_threads()
    if not ours:
        return
    deadline = time.monotonic() + _PATIENCE_S
    while _is_any_importing(ours) and time.monotonic() < deadline:
        time.sleep(_LOOK_INTERVAL_S)


def _other_threads() -> list[int]:
    this = threading.get_ident()
    return [
        thread.ident
        for thread in threading.enumerate()
        if thread.name.startswith(THREAD_PREFIX) and thread.ident not in (None, this)
    ]


def _is_any_importing(threads: list[int]) -> bool:
    frames = sys._current_frames()
    return any(_is_importing(frames.get(thread)) for thread in threads)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORT_SYSTEM:
            return True
        frame = frame.f_back
    return False
