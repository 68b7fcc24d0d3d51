"""Makes files private to their owner that a library creates without a mode."""

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
    """Files that the process creates within the block get the mode 0600, folders 0700.

    The mask is that of the whole process: it also applies to files that other threads create at
    that time.
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
