"""Files that only their owner may read, where a library creates them and asks for no mode."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_MASK = 0o077
_lock = threading.Lock()
_blocks = 0
_before = 0


@contextmanager
def private_files() -> Iterator[None]:
    """What this process creates meanwhile has the mode 0600, or 0700 for a folder.

    The mask is that of the whole process: a file that another thread creates in this time, for
    something else, is as private.
    """
    global _blocks, _before
    with _lock:
        if not _blocks:
            _before = os.umask(_MASK)
            os.umask(_before | _MASK)
        _blocks += 1
    try:
        yield
    finally:
        with _lock:
            _blocks -= 1
            if not _blocks:
                os.umask(_before)
