"""What the times between tokens say, where a library tells them at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from math import ceil, log2
from typing import Any, Final

NANOS_PER_SECOND: Final = 1e9
NANOS_PER_MS: Final = 1e6
MS_PER_SECOND: Final = 1e3
_BUCKETS_PER_DOUBLING: Final = 8  # docs/requests.md, "The histogram"


def interval_fields(times_s: Iterable[float]) -> dict[str, Any]:
    """The longest time between two tokens, and the histogram; nothing where there is none.

    times_s: when they came, seconds of any clock; those that came together once.
    """
    intervals_s = [after - before for before, after in pairwise(times_s) if after > before]
    if not intervals_s:
        return {}
    counts = Counter(
        ceil(_BUCKETS_PER_DOUBLING * log2(interval_s * NANOS_PER_SECOND)) - 1
        for interval_s in intervals_s
    )
    first, last = max(-1, min(counts)), max(counts)
    return {
        "max_inter_token_latency_ms": max(intervals_s) * MS_PER_SECOND,
        "token_intervals": [first, *(counts[bucket] for bucket in range(first, last + 1))],
    }
