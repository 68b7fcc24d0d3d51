"""How much one span may hold. What is beyond a limit is clamped or left out, and counted."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing takes longer than all of infertrace
if TYPE_CHECKING:
    from typing import Final

MAX_TEXT_BYTES: Final = 32 * 1024
"""UTF-8 bytes of one string; a longer one is cut at a character."""

MAX_ENTRIES: Final = 128
"""The most tags, attributes, events or links on a span, each; OpenTelemetry's default."""

INT32_MAX: Final = 2**31 - 1
INT64_MAX: Final = 2**63 - 1
INT64_MIN: Final = -(2**63)
FLOAT32_MAX: Final = float.fromhex("0x1.fffffep+127")

MIN_START_UNIX_NS: Final = 946_684_800_000_000_000
"""The year 2000. An earlier start must come from another clock, such as a monotonic one."""

MAX_SPAN_BYTES: Final = 1024 * 1024
"""Encoded bytes of one span; a larger one is dropped as `oversize`."""
