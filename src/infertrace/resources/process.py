"""CPU time and memory of this process."""

from __future__ import annotations

import os
import time
from typing import Final

_STATM: Final = "/proc/self/statm"


class ProcessMeter:
    """Reads what this process uses, between one reading and the next."""

    def __init__(self) -> None:
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
            with open(_STATM, "rb") as statm:  # noqa: PTH123 - pathlib is not imported for this
                return int(statm.read().split()[1]) * self._page_bytes
        except (OSError, IndexError, ValueError):
            return None
