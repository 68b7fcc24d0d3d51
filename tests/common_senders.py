"""A place for the senders that the processes of a test share, apart from those of others."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def common_senders(patch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory of their own; its name is short, since the path of a socket has to be."""
    with tempfile.TemporaryDirectory(prefix="it-") as directory:
        patch.setenv("XDG_RUNTIME_DIR", directory)
        patch.setenv("_INFERTRACE_SENDER_IDLE_S", "60")
        yield Path(directory)
