"""Whether OpenTelemetry traces the same library, and its spans come by our road as well.

Then a request would be in the store twice, so ours leaves it to that. Where its spans go elsewhere,
nothing is counted twice, and ours stay.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final

_takes_theirs = False


def note_road() -> None:
    """From now on, spans of OpenTelemetry come to a tracer of ours."""
    global _takes_theirs
    _takes_theirs = True


# Middleware that makes spans: of contrib, and Starlette's own.
_MIDDLEWARE: Final = ("opentelemetry.instrumentation.asgi", "starlette.middleware.opentelemetry")


def traces_request(app: Any, scope: Mapping[str, Any]) -> bool:
    """Whether OpenTelemetry's span of this request of Starlette or FastAPI comes to us."""
    if not _takes_theirs:
        return False
    if getattr(app, "_is_instrumented_by_opentelemetry", False) is True:
        return True
    # FastAPI's own tracing, which is on where a provider of spans is.
    if getattr(scope.get("fastapi.telemetry"), "span", None) is not None:
        return True
    added = getattr(app, "user_middleware", ())
    return any(getattr(one.cls, "__module__", "").startswith(_MIDDLEWARE) for one in added)


def traces_library(*instrumentors: tuple[str, str]) -> bool:
    """The same of a library, by the modules and classes of those that may instrument it."""
    return _takes_theirs and any(map(_is_on, instrumentors))


def _is_on(instrumentor: tuple[str, str]) -> bool:
    module, name = instrumentor
    # The one object of that class, which to call the class again would initialise anew.
    found = getattr(getattr(sys.modules.get(module), name, None), "_instance", None)
    return getattr(found, "is_instrumented_by_opentelemetry", False) is True
