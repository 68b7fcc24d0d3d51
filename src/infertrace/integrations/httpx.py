"""httpx and httpx2: the `traceparent` of the current span in what they send.

They get no spans of their own: the span around them, of a request or of a client, has the times.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any, Final

from infertrace.current import current_span
from infertrace.integrations.switch import Switch


def _install(switch: Switch, module: str) -> None:
    library = import_module(module)

    def synchronous(original: Callable[..., Any]) -> Callable[..., Any]:
        def handle_request(self: Any, request: Any) -> Any:
            _add_header(switch, request)
            return original(self, request)

        return handle_request

    def asynchronous(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def handle_async_request(self: Any, request: Any) -> Any:
            _add_header(switch, request)
            return await original(self, request)

        return handle_async_request

    switch.patches.wrap(library.HTTPTransport, "handle_request", synchronous)
    switch.patches.wrap(library.AsyncHTTPTransport, "handle_async_request", asynchronous)


def _add_header(switch: Switch, request: Any) -> None:
    span = current_span()
    if switch.is_on and span.context.span_id:
        with switch.guarded():
            if "traceparent" not in request.headers:
                request.headers["traceparent"] = span.traceparent
                switch.count_use()


_SWITCH: Final = Switch("httpx", _install)
instrument: Final = _SWITCH.on
uninstrument: Final = _SWITCH.off
