"""The interface of ASGI, as far as its requests are traced. Source: ASGI 3, HTTP and WebSocket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final

from infertrace.span import Span

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
RouteOf = Callable[[Scope], str | None]

_SERVER_ERROR: Final = 500


def traceparent_of(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"traceparent":
            return str(value, "latin-1")
    return None


class Begun:
    """A request whose span has begun, and gets its name and its status as it is answered."""

    def __init__(self, span: Span, scope: Scope, method: str, route_of: RouteOf) -> None:
        self.span = span
        self._scope = scope
        self._method = method
        self._route_of = route_of
        self._root_path = scope.get("root_path", "")

    def answer(self, status: int) -> bool:
        """Name it by its route, which is known once it is answered; returns whether it failed."""
        span = self.span
        has_failed = status >= _SERVER_ERROR
        span.set_attribute("http.response.status_code", status)
        if has_failed:
            span.set_status("ERROR", f"HTTP {status}")
        route = self._route_of(self._scope)
        if route:
            # What the application is mounted at is no part of the routes inside.
            mounted = self._scope.get("root_path", "")[len(self._root_path) :]
            span.set_attribute("http.route", mounted + route)
            span.set_operation_name(f"{self._method} {mounted}{route}")
        return has_failed


def route_of(scope: Scope) -> str | None:
    """The route that Starlette or FastAPI has found, as `/items/{id}`."""
    # Where a router was included in another, FastAPI keeps the whole path here.
    included = scope.get("fastapi", {}).get("effective_route_context")
    path = getattr(included, "path_format", None) or getattr(scope.get("route"), "path", None)
    if path is None and "endpoint" in scope:
        # An older Starlette says only what function it is.
        path = _path_of(scope["endpoint"], getattr(scope.get("router"), "routes", ()))
    return path if isinstance(path, str) else None


def _path_of(endpoint: Any, routes: Iterable[Any]) -> Any:
    """Of the route with that function, within what it is mounted at."""
    for route in routes:
        if getattr(route, "endpoint", None) is endpoint:
            return route.path
        path = _path_of(endpoint, getattr(route, "routes", None) or ())
        if path is not None:
            return path
    return None
