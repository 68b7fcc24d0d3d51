"""The state of the GPU of a simulated engine, and how fast it computes in it."""

from __future__ import annotations

from typing import Final, NamedTuple

_MAX_CLOCK_MHZ: Final = 1980.0
_IDLE_WATTS: Final = 110.0
_BUSY_WATTS: Final = 640.0
_GIB: Final = 2**30


class GpuState(NamedTuple):
    """One reading; the defaults are those of a GPU that works as it should."""

    clock_mhz: float = _MAX_CLOCK_MHZ
    temperature_celsius: float = 58.0
    utilization_percent: float = 92.0
    memory_used_bytes: int = 96 * _GIB
    memory_total_bytes: int = 140 * _GIB

    @property
    def speed(self) -> float:
        """How fast it computes, as a share of what it can."""
        return self.clock_mhz / _MAX_CLOCK_MHZ

    @property
    def power_watts(self) -> float:
        """What it takes falls faster than the clock does, as the voltage falls with it."""
        return _IDLE_WATTS + (_BUSY_WATTS - _IDLE_WATTS) * float(self.speed**2)
