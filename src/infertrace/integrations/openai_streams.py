"""Follows what a request of the OpenAI client has returned, until its span can end."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from infertrace.integrations.openai_answers import (
    add_extra,
    has_tokens,
    is_text_only,
    is_usage_only,
    read,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from infertrace.integrations.switch import Switch
    from infertrace.span import Span


class OpenAICall:
    """A request that is not over yet. Dropped before that, it ends as cancelled."""

    def __init__(self, span: Span, switch: Switch) -> None:
        self.span = span
        self.switch = switch
        self.is_raw: Any = None
        """`true` or `stream` where the program wants the HTTP response."""
        self.body_before: Mapping[str, Any] | None = None
        """The request without what we have added, if we have."""
        self.is_reading = False
        """The client is getting a chunk, and may close the response meanwhile."""
        self.is_midway = False
        """A chunk has come, and none waits: text alone changes nothing but the count of tokens."""
        self.at_end: Callable[[], object] = lambda: None
        """Called once, when it ends."""
        self._has_begun = self._has_finished = False
        self._waiting: list[Any] = []

    def read(self, answer: Any, counts: bool = False) -> bool:
        """Take what it says; whether that is how the request ended. A chunk `counts` as a token."""
        says_end = False
        with self.switch.guarded():
            if counts and has_tokens(answer):
                self.span.token()
            says_end = read(self.span, answer, not self._has_begun)
            self._has_begun = True
            self._has_finished |= says_end
        return says_end

    def take(self, chunk: Any) -> list[Any]:
        """Count a chunk; returns what the program is to see now.

        Where the usage was asked for by us, the last chunk waits for the one with the usage, which
        the program does not see. llama.cpp says in that what it would have said in the last.
        """
        says_end = self.read(chunk, counts=True)
        self.is_midway = not says_end
        if self.body_before is None:
            return [chunk]
        waiting = self.take_waiting()
        if waiting and is_usage_only(chunk):
            with self.switch.guarded():
                add_extra(waiting[0], chunk)
            return waiting
        if is_usage_only(chunk):
            return []
        if says_end:
            self._waiting = [chunk]
            return waiting
        return [*waiting, chunk]

    def take_waiting(self) -> list[Any]:
        """The chunk that waits, if there is one."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def end(self, error: BaseException | None = None) -> None:
        self.at_end()
        # The span was never entered, so this only ends it, with the error's status.
        self.span.__exit__(None if error is None else type(error), error, None)

    def close(self) -> None:
        """The program wants no more of it."""
        if self.is_reading or not self.span.is_recording:
            return
        if not self._has_finished:
            self.span.set_status("CANCELLED", "the stream was closed")
        self.end()

    def __del__(self) -> None:
        self.is_reading = False
        self.close()


def follow(call: OpenAICall, result: Any) -> Any:
    """The result, of which the span gets all that it says, now or as it is read."""
    return _follow(call, result, _Chunks, "close")


def follow_async(call: OpenAICall, result: Any) -> Any:
    """The same for an asynchronous client."""
    return _follow(call, result, _AsyncChunks, "aclose")


def _follow(call: OpenAICall, result: Any, chunks: Callable[..., Any], close: str) -> Any:
    with call.switch.guarded():
        if call.is_raw == "stream":
            call.end()  # the program reads the body by itself
        elif call.is_raw and getattr(result, "_stream", False):
            _follow_raw(call, result, chunks, close)
        elif call.is_raw:
            call.read(result.parse())
            call.end()
        # Asking a model for what it lacks takes microseconds.
        elif "_iterator" in getattr(result, "__dict__", ()):
            _follow_stream(call, result, chunks, close)
        else:
            call.read(result)
            call.end()
    return result


def _follow_raw(call: OpenAICall, raw: Any, chunks: Callable[..., Any], close: str) -> None:
    # By a weak reference: a cycle would keep a response that is dropped, and its span, for long.
    parse, owner = type(raw).parse, weakref.ref(raw)

    def parse_and_follow(*arguments: Any, **keywords: Any) -> Any:
        stream = parse(owner(), *arguments, **keywords)
        if not isinstance(getattr(stream, "_iterator", call), (OpenAICall, _Chunks, _AsyncChunks)):
            with call.switch.guarded():
                _follow_stream(call, stream, chunks, close)
        return stream

    raw.parse = parse_and_follow


def _follow_stream(call: OpenAICall, stream: Any, chunks: Callable[..., Any], close: str) -> None:
    # The response, and not the stream: the helpers of the client close that.
    response = stream.response
    original = getattr(response, close)

    def close_response() -> None:
        original()
        call.close()

    async def aclose_response() -> None:
        await original()
        call.close()

    # With what it has got the response keeps itself, until the end.
    call.at_end = lambda: vars(response).pop(close, None)
    setattr(response, close, close_response if close == "close" else aclose_response)
    stream._iterator = chunks(stream._iterator, call)


class _Reader:
    """What both kinds of streams do with a chunk, an end, an error."""

    _ended: type[Exception]

    def __init__(self, chunks: Any, call: OpenAICall) -> None:
        self._chunks = chunks
        self._call = call
        self._ready: list[Any] = []
        self._is_over = False
        self._error: BaseException | None = None

    def _must_read(self) -> bool:
        """Whether nothing is ready for the program; raises what has ended the stream.

        An error is raised once, as by a generator, and not kept: it keeps this in turn.
        """
        if self._ready:
            return False
        if self._is_over:
            error, self._error = self._error, None
            try:
                raise error or self._ended()
            finally:
                del error
        return True

    def _end(self, error: BaseException, is_failure: bool) -> None:
        """After what the program has not seen yet, it gets this."""
        self._call.is_reading = False
        self._call.end(error if is_failure else None)
        self._ready, self._is_over = self._call.take_waiting(), True
        self._error = error if is_failure else None

    def _passes(self, chunk: Any) -> bool:
        """Count a chunk that is only text in the middle of a stream; others are taken apart."""
        call = self._call
        call.is_reading = False
        if call.is_midway and is_text_only(chunk):
            call.span.token()
            return True
        self._ready = call.take(chunk)
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chunks, name)


class _Chunks(_Reader):
    """The chunks of a stream, counted."""

    _ended = StopIteration

    def __iter__(self) -> _Chunks:
        return self

    def __next__(self) -> Any:
        while self._must_read():
            self._call.is_reading = True
            try:
                chunk = next(self._chunks)
            except BaseException as error:
                self._end(error, not isinstance(error, StopIteration))
            else:
                if self._passes(chunk):
                    return chunk
        return self._ready.pop(0)


class _AsyncChunks(_Reader):
    """The same of an asynchronous one."""

    _ended = StopAsyncIteration

    def __aiter__(self) -> _AsyncChunks:
        return self

    async def __anext__(self) -> Any:
        while self._must_read():
            self._call.is_reading = True
            try:
                chunk = await self._chunks.__anext__()
            except BaseException as error:
                self._end(error, not isinstance(error, StopAsyncIteration))
            else:
                if self._passes(chunk):
                    return chunk
        return self._ready.pop(0)
