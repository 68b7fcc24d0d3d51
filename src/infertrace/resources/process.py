"""CPU time and memory of this process."""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_STATM: Final = "/proc/self/statm"
_STATM_BYTES: Final = 256  # seven numbers


class ProcessMeter:
    """Reads what this process uses, between one reading and the next."""

    def __init__(self) -> None:
        self._statm: int | None = None
        self._page_bytes = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
        self._last = self._times_ns()

    def read(self) -> dict[str, float | int]:
        """CPU use since the last reading (percent of one core) and resident memory (bytes).

        A value that cannot be read on this platform is left out.
        """
        metrics: dict[str, float | int] = {}
        now = self._times_ns()
        elapsed_ns = now[0] - self._last[0]
        if elapsed_ns > 0:
            metrics["cpu_utilization_percent"] = 100.0 * (now[1] - self._last[1]) / elapsed_ns
            self._last = now
        resident = self._resident_bytes()
        if resident is not None:
            metrics["memory_heap_bytes"] = resident
        return metrics

    @staticmethod
    def _times_ns() -> tuple[int, int]:
        return time.monotonic_ns(), time.process_time_ns()

    def _resident_bytes(self) -> int | None:
        # Source: proc(5), /proc/pid/statm: size, resident, ... in pages.
        try:
            if self._statm is None:
                # Kept open: each of open, read and close would hand over the GIL.
                self._statm = os.open(_STATM, os.O_RDONLY)
            return int(os.pread(self._statm, _STATM_BYTES, 0).split()[1]) * self._page_bytes
        except (OSError, IndexError, ValueError, AttributeError):  # no pread on Windows
            return None

    def close(self) -> None:
        """Close what is kept open; to be called by the thread that reads."""
        if self._statm is not None:
            os.close(self._statm)
            self._statm = None
