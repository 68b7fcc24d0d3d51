"""What a translator makes of an envelope."""

from __future__ import annotations

from typing import NamedTuple


class Translated(NamedTuple):
    """The bytes of an `ExportTraceServiceRequest`."""

    request: bytes
    """Empty where no span could be read."""
    span_count: int
    """How many spans are in it. The others of the envelope can never be sent."""
    reason: str
    """Why the first of those cannot be sent; empty where all can."""
