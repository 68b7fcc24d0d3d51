"""A span for each HTTP request of an ASGI application, open from its arrival to its last byte.

    app.add_middleware(TracingMiddleware)  # FastAPI, Starlette
    app = TracingMiddleware(app)  # any other

It takes the `traceparent` of the request. Each chunk of a streamed answer, one whose length was not
said before, is a token of the span: so it has the time to the first, and those between them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, MutableMapping
from typing import Any, Final

from infertrace.span import Span
from infertrace.tracer import Tracer, default_tracer

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

# In the scope of a request: somebody has begun a span of ours for it.
MARK: Final = "infertrace"
# What servers of OpenAI's protocol send last, and a comment that keeps a connection open.
_NO_TOKENS: Final = (b"data: [DONE]", b":")
_SERVER_ERROR: Final = 500
# The second: a file whose path the server gets, which sends it.
_ENDING: Final = ("http.response.body", "http.response.pathsend")


class TracingMiddleware:
    """Pure ASGI: holds nothing back, and passes on every message as it is.

    tracer: default the default tracer. exclude: paths without spans, such as `/health`.
    route: the route of a scope, once it is known, for the span's name; default what FastAPI says.
    """

    def __init__(
        self,
        app: Application,
        tracer: Tracer | None = None,
        *,
        exclude: Collection[str] = (),
        route: Callable[[Scope], str | None] | None = None,
        start_span: Callable[..., Span] | None = None,
    ) -> None:
        self._app = app
        self._tracer = tracer
        self._exclude = frozenset(exclude)
        self._route = route or route_of
        self._start_span = start_span

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or MARK in scope or scope["path"] in self._exclude:
            await self._app(scope, receive, send)
            return
        start_span = self._start_span or (self._tracer or default_tracer()).start_span
        method = scope["method"]
        with start_span(None, method, parent=_traceparent(scope)) as span:
            scope[MARK] = True
            if not span.is_recording:
                await self._app(scope, receive, send)
                return
            span.set_attribute("http.request.method", method)
            span.set_attribute("url.path", scope["path"])
            answer = _Answer(span, scope, self._route, receive, send)
            await self._app(scope, answer.receive, answer.send)
            answer.check()


class _Answer:
    """What the application sends, and when."""

    def __init__(
        self,
        span: Span,
        scope: Scope,
        route: Callable[[Scope], str | None],
        receive: Receive,
        send: Send,
    ) -> None:
        self._span = span
        self._scope = scope
        self._route = route
        self._receive = receive
        self._send = send
        self._root_path = scope.get("root_path", "")
        self._has_length = self._streams = self._has_failed = False
        self._is_complete = self._is_cancelled = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self._is_complete:
            self._cancel()
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            self._begin(message)
        is_last = kind in _ENDING and not message.get("more_body", False)
        if kind == "http.response.body":
            self._count(message, is_last)
        try:
            await self._send(message)
        except OSError:  # so some servers say that the client has gone
            self._cancel()
            raise
        if is_last:
            self._is_complete = True
            # Now, since an application may go on, with tasks in the background. One that has failed
            # says by an exception, after its answer, what it was.
            if not self._has_failed:
                self._span.end()

    def _begin(self, message: Message) -> None:
        span, status = self._span, message["status"]
        self._has_length = any(
            name.lower() == b"content-length" for name, _ in message.get("headers", ())
        )
        span.set_attribute("http.response.status_code", status)
        if status >= _SERVER_ERROR:
            self._has_failed = True
            span.set_status("ERROR", f"HTTP {status}")
        route = self._route(self._scope)
        if route:
            # What the application is mounted at is no part of the routes inside.
            mounted = self._scope.get("root_path", "")[len(self._root_path) :]
            span.set_attribute("http.route", mounted + route)
            span.set_operation_name(f"{self._scope['method']} {mounted}{route}")

    def _count(self, message: Message, is_last: bool) -> None:
        body = message.get("body", b"")
        if not is_last and not self._has_length:
            self._streams = True
        if self._streams and body and not body.startswith(_NO_TOKENS):
            self._span.token()

    def _cancel(self) -> None:
        self._is_cancelled = True
        self._span.set_status("CANCELLED", "the client has gone")

    def check(self) -> None:
        """The application has returned."""
        if not (self._is_complete or self._is_cancelled):
            self._span.set_status("ERROR", "the answer is not complete")


def _traceparent(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"traceparent":
            return str(value, "latin-1")
    return None


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
