"""How the statistics of a model changed between two times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PERCENTILES = ("p50", "p95", "p99")
DISTRIBUTIONS = ("time_to_first_token", "queue_wait_time", "inter_token_latency")
_COMPARED = (
    "sample_count",
    *(f"{percentile}_ms" for percentile in PERCENTILES),
    "error_rate",
    "tokens_per_second",
    *(f"{name}_{percentile}_ms" for name in DISTRIBUTIONS for percentile in PERCENTILES),
)


def change(
    now: Mapping[str, Any], before: Mapping[str, Any], times_as_long: float
) -> dict[str, float | None]:
    """How much more each statistic is, as a share: 0.2 is 20 % more.

    None where either is missing or the earlier one is 0. `times_as_long` is the length of the time
    now over that before, for counts.
    """
    changes: dict[str, float | None] = {}
    for name in _COMPARED:
        one, other = now.get(name), before.get(name)
        if name == "sample_count" and other is not None:
            other = other * times_as_long
        changes[name] = one / other - 1 if one is not None and other else None
    return changes
