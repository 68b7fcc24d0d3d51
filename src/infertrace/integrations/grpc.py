"""gRPC, of both kinds: a span for each call of a server and of a client, until its last answer.

The `traceparent` travels in the call's metadata. Each answer of a stream is a token of the span.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from infertrace.integrations.switch import Switch

# The places of that parameter.
_OF_SERVER: Final = 2
_OF_CHANNEL: Final = {"insecure_channel": 3, "secure_channel": 4}


def _install(switch: Switch, module: str) -> None:
    import grpc

    from infertrace.integrations.grpc_clients import ASYNC_INTERCEPTORS, ClientInterceptor
    from infertrace.integrations.grpc_servers import AsyncServerInterceptor, ServerInterceptor

    client = ClientInterceptor(switch)

    def opening(original: Callable[..., Any]) -> Callable[..., Any]:
        def channel(*arguments: Any, **keywords: Any) -> Any:
            return grpc.intercept_channel(original(*arguments, **keywords), client)

        return channel

    patches = switch.patches
    patches.wrap(grpc, "server", _with_interceptors(_OF_SERVER, ServerInterceptor(switch)))
    patches.wrap(grpc.aio, "server", _with_interceptors(_OF_SERVER, AsyncServerInterceptor(switch)))
    async_clients = [kind(switch) for kind in ASYNC_INTERCEPTORS]
    for name, place in _OF_CHANNEL.items():
        patches.wrap(grpc, name, opening)
        patches.wrap(grpc.aio, name, _with_interceptors(place, *async_clients))


def _with_interceptors(
    place: int, *ours: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Wraps a function that takes interceptors at that place, or by name; ours come first."""

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def function(*arguments: Any, **keywords: Any) -> Any:
            given = list(arguments)
            if len(given) > place:
                given[place] = (*ours, *(given[place] or ()))
            else:
                keywords["interceptors"] = (*ours, *(keywords.get("interceptors") or ()))
            return original(*given, **keywords)

        return function

    return wrap


_SWITCH: Final = Switch("grpc", _install)
instrument: Final = _SWITCH.on
uninstrument: Final = _SWITCH.off
