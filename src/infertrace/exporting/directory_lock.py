"""A lock between processes, held for as long as it takes to start one or to remove a file."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import ClassVar, Final

# A wait in the kernel would stop green threads, and know no deadline.
_POLL_S: Final = 0.002


class DirectoryLock:
    """Raises TimeoutError at its deadline (monotonic seconds), other OSErrors at once."""

    _open: ClassVar[set[int]] = set()

    def __init__(self, path: str | Path, deadline: float) -> None:
        self._path = path
        self._deadline = deadline
        self._descriptor = -1

    def __enter__(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        self._descriptor = os.open(self._path, flags, 0o600)
        self._open.add(self._descriptor)
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= self._deadline:
                    self._close()
                    raise TimeoutError(f"{self._path}: another process holds it") from None
            except BaseException:
                self._close()
                raise
            time.sleep(_POLL_S)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Not by closing alone: a process forked meanwhile has a copy, until it has closed that.
        with contextlib.suppress(OSError):
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self._close()

    def _close(self) -> None:
        self._open.discard(self._descriptor)
        os.close(self._descriptor)

    @classmethod
    def after_fork_in_child(cls) -> None:
        """Close the copies of the parent's."""
        while cls._open:
            with contextlib.suppress(OSError):
                os.close(cls._open.pop())
