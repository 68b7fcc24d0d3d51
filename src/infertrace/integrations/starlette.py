"""Starlette and FastAPI: a span for each request of every application in the process.

Options: `exclude`, paths without spans.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, Final

from infertrace.integrations.asgi import TracingMiddleware
from infertrace.integrations.asgi_protocol import Application, Receive, Scope, Send
from infertrace.integrations.other_instrumentation import traces_request
from infertrace.integrations.switch import Switch


def _install(switch: Switch, module: str) -> None:
    from starlette.applications import Starlette

    def traced(original: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        # Around the application, so that those are traced that have been called before.
        async def call(self: Any, scope: Scope, receive: Receive, send: Send) -> None:
            app: Application = functools.partial(original, self)
            if switch.is_on and not traces_request(self, scope):
                app = TracingMiddleware(
                    app, exclude=switch.options["exclude"], start_span=switch.start_span
                )
            await app(scope, receive, send)

        return call

    switch.patches.wrap(Starlette, "__call__", traced)


_SWITCH: Final = Switch("starlette", _install, exclude=())
instrument: Final = _SWITCH.on
uninstrument: Final = _SWITCH.off
