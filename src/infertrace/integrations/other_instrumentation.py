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


def traces_library(*instrumentors: tuple[str, str]) -> bool:
    """The same of a library, by the modules and classes of those that may instrument it."""
    return _takes_theirs and any(map(_is_on, instrumentors))


def _is_on(instrumentor: tuple[str, str]) -> bool:
    module, name = instrumentor
    # The one object of that class, which to call the class again would initialise anew.
    found = getattr(getattr(sys.modules.get(module), name, None), "_instance", None)
    return getattr(found, "is_instrumented_by_opentelemetry", False) is True
