"""Whether the sender may accept one more process: each needs descriptors that come only later."""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path
from typing import Final

PER_CLIENT: Final = 3
"""A connection, the memory that comes over it, and one that tells when its process ends."""
# gRPC, which ends the process where it gets none, and whatever is open for a moment.
_RESERVE: Final = 16
# What a sender has open beside its clients and what it holds, and more.
_OTHERS: Final = 64
_LIST: Final = Path("/proc/self/fd" if sys.platform == "linux" else "/dev/fd")


def raise_limit() -> int:
    """Have as many descriptors as this process may have; returns how many (RLIM_INFINITY: 2^20)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return _number(soft)


def has_room(clients: int, awaited: int, held: int) -> bool:
    """Whether one more client gets all that it needs, as far as this process decides that.

    clients: those that are connected, of which `awaited` have yet to send their memory. held:
    memories of those that have gone.
    """
    limit = _number(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    if (PER_CLIENT + 1) * (clients + held + 1) + _OTHERS <= limit:
        return True
    wanted = (PER_CLIENT - 1) * awaited + PER_CLIENT + _RESERVE
    try:
        return len(list(_LIST.iterdir())) + wanted <= limit
    except OSError:  # not even one
        return False


def _number(limit: int) -> int:
    return 1 << 20 if limit == resource.RLIM_INFINITY else limit
