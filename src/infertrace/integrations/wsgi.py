"""A span for each request of a WSGI application, open from its arrival to its last byte.

    app.wsgi_app = TracingMiddleware(app.wsgi_app)  # Flask
    application = TracingMiddleware(application)  # any other

As `infertrace.integrations.asgi` in all else. Source of the protocol: PEP 3333.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Final

from infertrace.span import Span
from infertrace.tracer import Tracer, default_tracer

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], object]]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

# In the environment of a request: somebody has begun a span of ours for it.
MARK: Final = "infertrace.traced"
_NO_TOKENS: Final = (b"data: [DONE]", b":")
_SERVER_ERROR: Final = 500


class TracingMiddleware:
    """Passes everything on as it is.

    tracer: default the default tracer. exclude: paths without spans, such as `/health`.
    route: the route of an environment for the span's name, once the answer has begun; default what
        Flask says.
    """

    def __init__(
        self,
        app: Application,
        tracer: Tracer | None = None,
        *,
        exclude: Collection[str] = (),
        route: Callable[[Environ], str | None] | None = None,
    ) -> None:
        self._app = app
        self._tracer = tracer
        self._exclude = frozenset(exclude)
        self._route = route or route_of

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if MARK in environ or path in self._exclude:
            return self._app(environ, start_response)
        environ[MARK] = True
        method = environ["REQUEST_METHOD"]
        tracer = self._tracer or default_tracer()
        parent = environ.get("HTTP_TRACEPARENT")
        span = tracer.start_span(None, method, parent=parent, kind="server")
        span.set_attribute("http.request.method", method)
        span.set_attribute("url.path", path)
        answer = _Answer(span, environ, self._route, start_response)
        try:
            with span.activate():
                answer.body = self._app(environ, answer.start_response)
                answer.chunks = iter(answer.body)
        except BaseException as error:
            _end(span, error)
            raise
        return answer


class _Answer:
    """What the application gives, and when."""

    def __init__(
        self,
        span: Span,
        environ: Environ,
        route: Callable[[Environ], str | None],
        start_response: StartResponse,
    ) -> None:
        self._span = span
        self._environ = environ
        self._route = route
        self._start_response = start_response
        self._has_length = False
        self.body: Iterable[bytes] = ()
        self.chunks: Iterator[bytes] = iter(())

    def start_response(
        self, status: str, headers: list[tuple[str, str]], *error: Any
    ) -> Callable[[bytes], object]:
        span = self._span
        self._has_length = any(name.lower() == "content-length" for name, _ in headers)
        code = status.partition(" ")[0]
        if code.isdecimal():
            span.set_attribute("http.response.status_code", int(code))
            if int(code) >= _SERVER_ERROR:
                span.set_status("ERROR", f"HTTP {code}")
        route = self._route(self._environ)
        if route:
            span.set_attribute("http.route", route)
            span.set_operation_name(f"{self._environ['REQUEST_METHOD']} {route}")
        return self._start_response(status, headers, *error)

    def __iter__(self) -> _Answer:
        return self

    def __next__(self) -> bytes:
        try:
            with self._span.activate():
                chunk = next(self.chunks)
        except StopIteration:
            _end(self._span)
            raise
        except BaseException as error:
            _end(self._span, error)
            raise
        # A list is no stream: its application has waited for all of it.
        streams = not self._has_length and not isinstance(self.body, (list, tuple))
        if streams and chunk and not chunk.startswith(_NO_TOKENS):
            self._span.token()
        return chunk

    def close(self) -> None:
        """The server calls it at the end, and where the client has gone before."""
        try:
            with self._span.activate():
                close = getattr(self.body, "close", None)
                if close is not None:
                    close()
        finally:
            if self._span.is_recording:
                self._span.set_status("CANCELLED", "the client has gone")
                _end(self._span)


def _end(span: Span, error: BaseException | None = None) -> None:
    # Never entered, so this only ends it, with the error's status.
    span.__exit__(None if error is None else type(error), error, None)


def route_of(environ: Mapping[str, Any]) -> str | None:
    """The route that Flask has found, as `/items/<item>`."""
    rule = getattr(environ.get("werkzeug.request"), "url_rule", None)
    path = getattr(rule, "rule", None)
    return path if isinstance(path, str) else None
