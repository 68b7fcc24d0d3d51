"""The clock of vLLM's engine process as ours."""

from __future__ import annotations

import time
from typing import Final

from infertrace.integrations.token_times import NANOS_PER_SECOND

# A time that lies further back, or ahead, is of another machine's clock.
_LONGEST_DELIVERY_S: Final = 10.0
# Two readings of two clocks differ by less where neither was set in between.
_NOISE_NS: Final = 10_000_000


class EngineClock:
    """Converts the engine's seconds, of its machine's monotonic clock, to nanoseconds since 1970.

    On one machine, processes have that clock in common. Elsewhere the shortest delivery of a time
    is taken for none, so times are late by that.
    """

    def __init__(self) -> None:
        self._offset_ns = 0
        self._is_foreign = False

    def take(self, engine_s: float) -> None:
        """A time that the engine said a moment ago."""
        now_ns, now_s = time.time_ns(), time.monotonic()
        delivery_s = now_s - engine_s
        if 0 <= delivery_s < _LONGEST_DELIVERY_S and not self._is_foreign:
            offset_ns = now_ns - round(now_s * NANOS_PER_SECOND)
            if abs(offset_ns - self._offset_ns) > _NOISE_NS:
                self._offset_ns = offset_ns
            return
        offset_ns = now_ns - round(engine_s * NANOS_PER_SECOND)
        self._offset_ns = min(self._offset_ns, offset_ns) if self._is_foreign else offset_ns
        self._is_foreign = True

    def unix_ns(self, engine_s: float) -> int:
        return round(engine_s * NANOS_PER_SECOND) + self._offset_ns
