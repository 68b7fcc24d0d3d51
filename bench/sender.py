"""What the sender process takes, which no figure of the traced process shows."""

from __future__ import annotations

import time
from pathlib import Path


def children() -> list[int]:
    """The processes that this one started and that run. Reads /proc, so it needs Linux."""
    return [
        int(pid)
        for listed in Path("/proc/self/task").glob("*/children")
        for pid in listed.read_text().split()
    ]


def cpu_s(pids: list[int]) -> float:
    """Processor time of these processes so far."""
    # The clock of another process, as <linux/posix-timers.h> numbers it.
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


def peak_kib(pids: list[int]) -> int:
    """Peak resident memory of these processes."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                total += int(line.split()[1])
    return total
