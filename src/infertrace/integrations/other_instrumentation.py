"""Whether OpenTelemetry traces the same library, and its spans come by our road as well.

Then a request would be in the store twice, so ours leaves it to that. Where its spans go elsewhere,
nothing is counted twice, and ours stay.
"""

from __future__ import annotations

import sys
from typing import Any

_takes_theirs = False


def note_road() -> None:
    """From now on, spans of OpenTelemetry come to a tracer of ours."""
    global _takes_theirs
    _takes_theirs = True


def traces_app(app: Any) -> bool:
    """Whether OpenTelemetry's spans of this application come to us; it marks the application."""
    return _takes_theirs and getattr(app, "_is_instrumented_by_opentelemetry", False) is True


def traces_library(module: str, instrumentor: str) -> bool:
    """The same of a library, by the class of OpenTelemetry that instruments it."""
    if not _takes_theirs:
        return False
    kind = getattr(sys.modules.get(f"opentelemetry.instrumentation.{module}"), instrumentor, None)
    return kind is not None and kind().is_instrumented_by_opentelemetry is True
