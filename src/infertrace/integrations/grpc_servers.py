"""Interceptors of gRPC servers: a span around each handler."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Final

import grpc

from infertrace.integrations.grpc_outcome import UNTRACED, end_with, others_trace
from infertrace.integrations.switch import Switch
from infertrace.span import Span

_GONE: Final = "the client has gone"


class ServerInterceptor(grpc.ServerInterceptor):
    """For `grpc.server`."""

    def __init__(self, switch: Switch) -> None:
        self._switch = switch

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        return _traced(self._switch, "GrpcInstrumentorServer", continuation(details), details)


class AsyncServerInterceptor(grpc.aio.ServerInterceptor):
    """For `grpc.aio.server`."""

    def __init__(self, switch: Switch) -> None:
        self._switch = switch

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: Any
    ) -> Any:
        handler = await continuation(details)
        return _traced(self._switch, "GrpcAioInstrumentorServer", handler, details)


def _traced(switch: Switch, other: str, handler: Any, details: Any) -> Any:
    """The handler with a span around it, unless that `other` instrumentation of it comes to us."""
    if handler is None or not switch.is_on or details.method.startswith(UNTRACED):
        return handler
    if others_trace(other):
        return handler
    kind = "stream_" if handler.request_streaming else "unary_"
    kind += "stream" if handler.response_streaming else "unary"
    behavior = getattr(handler, kind)
    make: Any = _unary
    if inspect.isasyncgenfunction(behavior):
        make = _async_stream
    elif inspect.iscoroutinefunction(behavior):
        make = _coroutine
    elif handler.response_streaming:
        make = _stream
    return getattr(grpc, f"{kind}_rpc_method_handler")(
        make(behavior, lambda: _begin(switch, details)),
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


def _begin(switch: Switch, details: Any) -> Span:
    parent = None
    for key, value in details.invocation_metadata or ():
        if key == "traceparent":
            parent = value
    span = switch.start_span(None, details.method.lstrip("/"), parent=parent, kind="server")
    span.set_attribute("rpc.system", "grpc")
    return span


def _end(span: Span, context: Any, error: BaseException | None = None) -> None:
    """With the code that the handler has set, by `abort` too, or with its exception."""
    # Only the context of a server with threads has this; a task that nobody waits for is cancelled.
    is_active = getattr(context, "is_active", None)
    if error is None and is_active is not None and not is_active():
        span.set_status("CANCELLED", _GONE)
    end_with(span, context.code(), context.details(), error)


def _unary(behavior: Callable[..., Any], begin: Callable[[], Span]) -> Callable[..., Any]:
    def call(request: Any, context: Any) -> Any:
        span = begin()
        try:
            with span.activate():
                answer = behavior(request, context)
        except BaseException as error:
            _end(span, context, error)
            raise
        _end(span, context)
        return answer

    return call


def _stream(behavior: Callable[..., Any], begin: Callable[[], Span]) -> Callable[..., Any]:
    def call(request: Any, context: Any) -> Iterator[Any]:
        span = begin()

        def cancel() -> None:
            # gRPC leaves the iterator where the client has gone, and ends the call.
            if span.is_recording and not context.code():
                span.set_status("CANCELLED", _GONE)
                span.end()

        context.add_callback(cancel)
        try:
            with span.activate():
                answers = iter(behavior(request, context))
            while True:
                with span.activate():
                    answer = next(answers, _LAST)
                if answer is _LAST:
                    break
                span.token()
                yield answer
        except BaseException as error:
            _end(span, context, error)
            raise
        _end(span, context)

    return call


_LAST: Final = object()


def _coroutine(behavior: Callable[..., Any], begin: Callable[[], Span]) -> Callable[..., Any]:
    async def call(request: Any, context: Any) -> Any:
        span = begin()
        try:
            with span.activate():
                answer = await behavior(request, context)
        except BaseException as error:
            _end(span, context, error)
            raise
        _end(span, context)
        return answer

    return call


def _async_stream(behavior: Callable[..., Any], begin: Callable[[], Span]) -> Callable[..., Any]:
    async def call(request: Any, context: Any) -> AsyncIterator[Any]:
        span = begin()
        try:
            with span.activate():
                answers = aiter(behavior(request, context))
            while True:
                with span.activate():
                    answer = await anext(answers, _LAST)
                if answer is _LAST:
                    break
                span.token()
                yield answer
        except BaseException as error:
            _end(span, context, error)
            raise
        _end(span, context)

    return call
