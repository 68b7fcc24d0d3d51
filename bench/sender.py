"""What the sender process takes, which no figure of the traced process shows."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def children() -> list[int]:
    """The processes that this one started and that run. Reads /proc, so it needs Linux."""
    return [
        int(pid)
        for listed in Path("/proc/self/task").glob("*/children")
        for pid in listed.read_text().split()
    ]


def senders() -> list[int]:
    """The sender of this measuring process, which is no child of it where it could be shared."""
    found = children()
    if "infertrace" not in sys.modules:  # a contender without one
        return found
    from infertrace.exporting import host_sender

    for place in host_sender.find_senders():
        if (status := host_sender.ask_status(place)) is not None:
            found.append(json.loads(status)["pid"])
    return found


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
