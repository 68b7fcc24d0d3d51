"""Interceptors of gRPC channels: a span around each call, which carries its trace to the server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import grpc

from infertrace.integrations.grpc_outcome import UNTRACED, end_with, others_trace
from infertrace.integrations.switch import Switch
from infertrace.span import Span

_KEY: Final = "traceparent"


class ClientInterceptor(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """For `grpc.insecure_channel` and `grpc.secure_channel`."""

    def __init__(self, switch: Switch) -> None:
        self._switch = switch

    def _one(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        span = _begin(self._switch, "GrpcInstrumentorClient", details)
        if span is None:
            return continuation(details, request)
        call = _call(span, continuation, details, request)
        call.add_done_callback(lambda ended: end_with(span, ended.code(), ended.details()))
        return call

    def _many(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        span = _begin(self._switch, "GrpcInstrumentorClient", details)
        if span is None:
            return continuation(details, request)
        return _Answers(_call(span, continuation, details, request), span)

    # Any: gRPC's types name the request differently in each.
    intercept_unary_unary: Any = _one
    intercept_stream_unary: Any = _one
    intercept_unary_stream: Any = _many
    intercept_stream_stream: Any = _many


class _Answers:
    """A stream's answers, counted; else the call that they come by."""

    def __init__(self, call: Any, span: Span) -> None:
        self._call = call
        self._span = span
        self._is_reading = self._is_over = False
        call.add_done_callback(self._note_end)

    def __iter__(self) -> _Answers:
        return self

    def __next__(self) -> Any:
        self._is_reading = True
        try:
            answer = next(self._call)
            self._span.token()
            return answer
        finally:
            self._is_reading = False
            if self._is_over:
                self._end()

    next = __next__

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def _note_end(self, call: Any) -> None:
        # On a thread of gRPC's, which may be faster than the one that takes the last answer.
        self._is_over = True
        if not self._is_reading:
            self._end()

    def _end(self) -> None:
        end_with(self._span, self._call.code(), self._call.details())


class _AsyncInterceptor:
    def __init__(self, switch: Switch) -> None:
        self._switch = switch

    async def _one(
        self, continuation: Callable[..., Awaitable[Any]], details: Any, request: Any
    ) -> Any:
        span = _begin(self._switch, "GrpcAioInstrumentorClient", details)
        if span is None:
            return await continuation(details, request)
        call = await _async_call(span, continuation, details, request)
        try:
            code = await call.code()
        except BaseException as error:
            call.cancel()
            span.__exit__(type(error), error, None)
            raise
        end_with(span, code, await call.details())
        return call

    async def _many(
        self, continuation: Callable[..., Awaitable[Any]], details: Any, request: Any
    ) -> Any:
        span = _begin(self._switch, "GrpcAioInstrumentorClient", details)
        if span is None:
            return await continuation(details, request)
        return _counted(await _async_call(span, continuation, details, request), span)


class AsyncUnaryUnary(_AsyncInterceptor, grpc.aio.UnaryUnaryClientInterceptor):
    intercept_unary_unary: Any = _AsyncInterceptor._one


class AsyncUnaryStream(_AsyncInterceptor, grpc.aio.UnaryStreamClientInterceptor):
    intercept_unary_stream: Any = _AsyncInterceptor._many


class AsyncStreamUnary(_AsyncInterceptor, grpc.aio.StreamUnaryClientInterceptor):
    intercept_stream_unary: Any = _AsyncInterceptor._one


class AsyncStreamStream(_AsyncInterceptor, grpc.aio.StreamStreamClientInterceptor):
    intercept_stream_stream: Any = _AsyncInterceptor._many


ASYNC_INTERCEPTORS: Final = (AsyncUnaryUnary, AsyncUnaryStream, AsyncStreamUnary, AsyncStreamStream)


async def _counted(call: Any, span: Span) -> AsyncIterator[Any]:
    try:
        async for answer in call:
            span.token()
            yield answer
        code, details = await call.code(), await call.details()
    except grpc.aio.AioRpcError as error:
        end_with(span, error.code(), error.details())
        raise
    except BaseException as error:
        span.__exit__(type(error), error, None)
        raise
    end_with(span, code, details)


def _begin(switch: Switch, other: str, details: Any) -> Span | None:
    """The span of a call; None for one that has none, or that of an `other` instrumentation."""
    method = details.method
    name = method.decode() if isinstance(method, bytes) else method
    if not switch.is_on or name.startswith(UNTRACED) or others_trace(other):
        return None
    span = switch.start_span(None, name.lstrip("/"), kind="client")
    span.set_attribute("rpc.system", "grpc")
    return span


def _carrying(span: Span, details: Any) -> Any:
    """With the `traceparent`, unless the program sends one."""
    metadata = details.metadata or ()
    if any(key == _KEY for key, _ in metadata) or not hasattr(details, "_replace"):
        return details
    sent = (*metadata, (_KEY, span.traceparent))
    is_async = isinstance(details, grpc.aio.ClientCallDetails)
    return details._replace(metadata=grpc.aio.Metadata(*sent) if is_async else sent)


def _call(span: Span, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
    try:
        with span.activate():
            return continuation(_carrying(span, details), request)
    except BaseException as error:
        span.__exit__(type(error), error, None)
        raise


async def _async_call(
    span: Span, continuation: Callable[..., Awaitable[Any]], details: Any, request: Any
) -> Any:
    try:
        with span.activate():
            return await continuation(_carrying(span, details), request)
    except BaseException as error:
        span.__exit__(type(error), error, None)
        raise
