"""A span for each request of an ASGI application, open from its arrival to its last byte.

    app.add_middleware(TracingMiddleware)  # FastAPI, Starlette
    app = TracingMiddleware(app)  # any other

It takes the `traceparent` of the request. Each chunk of a streamed answer, one whose length was not
said before, is a token of the span: so it has the time to the first, and those between them. A
connection of WebSocket is one span as well.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from infertrace.integrations.asgi_protocol import (
    Application,
    Begun,
    Message,
    Receive,
    RouteOf,
    Scope,
    Send,
    route_of,
    traceparent_of,
)
from infertrace.integrations.asgi_websocket import WEBSOCKET, WebSocket
from infertrace.span import Span
from infertrace.tracer import Tracer, default_tracer

# In the scope of a request: somebody has begun a span of ours for it.
MARK: Final = "infertrace"
# What servers of OpenAI's protocol send last, and a comment that keeps a connection open.
_NO_TOKENS: Final = (b"data: [DONE]", b":")
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
        route: RouteOf | None = None,
        start_span: Callable[..., Span] | None = None,
    ) -> None:
        self._app = app
        self._tracer = tracer
        self._exclude = frozenset(exclude)
        self._route = route or route_of
        self._start_span = start_span

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind not in ("http", "websocket") or MARK in scope or scope["path"] in self._exclude:
            await self._app(scope, receive, send)
            return
        start_span = self._start_span or (self._tracer or default_tracer()).start_span
        method = scope["method"] if kind == "http" else WEBSOCKET
        with start_span(None, method, parent=traceparent_of(scope), kind="server") as span:
            scope[MARK] = True
            if not span.is_recording:
                await self._app(scope, receive, send)
                return
            span.set_attribute("url.path", scope["path"])
            begun = Begun(span, scope, method, self._route)
            if kind == "websocket":
                await WebSocket(begun, receive, send).run(self._app, scope)
                return
            span.set_attribute("http.request.method", method)
            answer = _Answer(begun, receive, send)
            await self._app(scope, answer.receive, answer.send)
            answer.check()


class _Answer:
    """What the application sends, and when."""

    def __init__(self, begun: Begun, receive: Receive, send: Send) -> None:
        self._begun = begun
        self._span = begun.span
        self._receive = receive
        self._send = send
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
        self._has_length = any(
            name.lower() == b"content-length" for name, _ in message.get("headers", ())
        )
        self._has_failed = self._begun.answer(message["status"])

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
