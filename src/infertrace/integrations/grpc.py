"""gRPC servers, of both kinds: a span for each call, open until its last answer.

It takes the `traceparent` of the call's metadata. Each answer of a stream is a token of the span.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from infertrace.integrations.switch import Switch

_INTERCEPTORS: Final = 2  # the place of that parameter


def _install(switch: Switch, module: str) -> None:
    import grpc

    from infertrace.integrations.grpc_servers import AsyncServerInterceptor, ServerInterceptor

    interceptors: tuple[tuple[Any, Any], ...] = (
        (grpc, ServerInterceptor(switch)),
        (grpc.aio, AsyncServerInterceptor(switch)),
    )
    for owner, interceptor in interceptors:

        def serving(
            original: Callable[..., Any], interceptor: Any = interceptor
        ) -> Callable[..., Any]:
            def server(*arguments: Any, **keywords: Any) -> Any:
                given = list(arguments)
                if len(given) > _INTERCEPTORS:
                    given[_INTERCEPTORS] = (interceptor, *(given[_INTERCEPTORS] or ()))
                else:
                    before = keywords.get("interceptors") or ()
                    keywords["interceptors"] = (interceptor, *before)
                return original(*given, **keywords)

            return server

        switch.patches.wrap(owner, "server", serving)


_SWITCH: Final = Switch("grpc", _install)
instrument: Final = _SWITCH.on
uninstrument: Final = _SWITCH.off
