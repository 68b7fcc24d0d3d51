"""Access control and the limit of concurrent requests, before any route."""

from __future__ import annotations

from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from infertrace.collector.query.routes.page import PAGE_PATHS

MAX_CONCURRENT_REQUESTS = 32
# A liveness probe has no token, and the page asks for it.
OPEN_PATHS = frozenset({"/health"}) | PAGE_PATHS
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})


class AccessMiddleware:
    """ASGI middleware.

    With a token, every path but the open ones requires it. Without one the collector is on
    loopback, and a request must name a loopback host: a web page that points its own host name
    at 127.0.0.1 (DNS rebinding) could otherwise read the spans through its visitor's browser.
    """

    def __init__(self, app: ASGIApp, permits: Callable[[str | None], bool] | None) -> None:
        self._app = app
        self._permits = permits
        self._in_progress = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        refusal = self._refusal(scope["path"], Headers(scope=scope))
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            # The routes answer it as GET; the server leaves the body out.
            scope = {**scope, "method": "GET"}
        self._in_progress += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._in_progress -= 1

    def _refusal(self, path: str, headers: Headers) -> JSONResponse | None:
        if self._permits is None:
            host = headers.get("host")
            if host is None:
                return _error(400, "host: expected the header, got none")
            if not _is_loopback(host):
                return _error(403, f"host: expected localhost, got {host[:100]!r}")
        elif path not in OPEN_PATHS and not self._permits(headers.get("authorization")):
            return _error(401, "a valid token is required", {"WWW-Authenticate": "Bearer"})
        if self._in_progress >= MAX_CONCURRENT_REQUESTS:
            return _error(503, "too many requests at once", {"Retry-After": "1"})
        return None


def _is_loopback(host: str) -> bool:
    name, _, port = host.rpartition(":")
    return (name if name and port.isdigit() else host).lower() in LOOPBACK_HOSTS


def _error(status: int, text: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": text}, status, headers)
