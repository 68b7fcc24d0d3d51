"""Tells whether the machine ran at its full speed while something was timed.

A shared machine has more than one speed: where a neighbour uses the other half of a core, all
here takes half as long again, for milliseconds or seconds, whatever is measured. A fixed loop
right before and right after a timed one says so without a look at what was timed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import perf_counter
from typing import TypeVar

Timed = TypeVar("Timed")

CALIBRATION_S = 3.0
TURNS = 10_000  # of the fixed loop: a tenth of a millisecond or two
SLOWER_BY = 1.2  # the fastest one varies by a tenth, a second speed begins at 1.4
LONGEST_WAIT_S = 0.3  # for full speed, with each timed loop

# The fixed loop's shortest time in seconds: the process that starts the measuring ones tells it.
VARIABLE = "BENCH_FULL_SPEED_S"


def variables() -> dict[str, str]:
    """What a measuring process has to know, measured here and now."""
    end = perf_counter() + CALIBRATION_S
    fastest = _fixed_loop_s()
    while perf_counter() < end:
        fastest = min(fastest, _fixed_loop_s())
    return {VARIABLE: repr(fastest)}


def timed(work: Callable[[], Timed], between: Callable[[], object] = lambda: None) -> Timed:
    """What `work` says it took, from a try at full speed; `between` ends each try.

    Where none is within LONGEST_WAIT_S, the last one counts: a machine that is always slow, and
    a loop that takes longer than full speed lasts, are measured as they are.
    """
    limit_s = float(os.environ[VARIABLE]) * SLOWER_BY
    end = perf_counter() + LONGEST_WAIT_S
    while True:
        before_s = _fixed_loop_s()
        took = work()
        after_s = _fixed_loop_s()
        between()
        if max(before_s, after_s) <= limit_s or perf_counter() >= end:
            return took


def _fixed_loop_s() -> float:
    began = perf_counter()
    for _ in range(TURNS):
        pass
    return perf_counter() - began
