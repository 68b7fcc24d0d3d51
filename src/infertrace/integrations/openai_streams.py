"""Follows what a request of the OpenAI client has returned, until its span can end."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from types import GeneratorType
from typing import TYPE_CHECKING, Any

from infertrace.integrations.openai_answers import (
    add_extra,
    has_tokens,
    is_text_only,
    read,
    read_names,
    read_usage_only,
    type_of_chat,
    usage_only,
)

if TYPE_CHECKING:
    from infertrace.integrations.switch import Switch
    from infertrace.span import Span


class OpenAICall:
    """A request that is not over yet. Dropped before that, it ends as cancelled."""

    # Of the class: most requests need none of these.
    is_raw: Any = None
    """`true` or `stream` where the program wants the HTTP response."""
    body_before: Mapping[str, Any] | None = None
    """The request without what we have added, if we have."""
    is_reading = False
    """Whether the client is getting a chunk, and may close the response meanwhile."""
    reader: Callable[[], Any] | None = None
    """Gives the generator that gets them, where one does: it runs meanwhile."""
    text_type: type | None = None
    """Of chunks whose text changes nothing but the count of tokens: one has come, none waits."""
    response: Any = None
    """That of a stream, whose method `closer` calls this too until it ends."""
    closer = ""
    _close_response: Any = None
    _has_begun = _has_finished = False
    _waiting: Any = None

    def __init__(self, span: Span, switch: Switch) -> None:
        self.span = span
        self.switch = switch

    def read(self, answer: Any, counts: bool = False) -> bool:
        """Take what it says; whether that is how the request ended. A chunk `counts` as a token."""
        says_end = False
        try:
            if counts and has_tokens(answer):
                self.span.token()
            says_end = read(self.span, answer, not self._has_begun)
            self._has_begun = True
            if says_end:
                self._has_finished = True
        except Exception as error:
            self.switch.note_failure(error)
        return says_end

    def take(self, chunk: Any) -> list[Any]:
        """Count a chunk; returns what the program is to see now.

        Where the usage was asked for by us, the last chunk waits for the one with the usage, which
        the program does not see. llama.cpp says in that what it would have said in the last.
        """
        usage, says_end = usage_only(chunk), False
        try:
            if usage is not None and self._has_begun:
                self.text_type = None
                read_usage_only(self.span, usage, chunk)
            else:
                says_end = self._read_chunk(chunk)
        except Exception as error:
            self.switch.note_failure(error)
        if self.body_before is None:
            return [chunk]
        waiting = self.take_waiting()
        if usage is not None:
            if waiting:
                with self.switch.guarded():
                    add_extra(waiting[0], chunk)
            return waiting
        if says_end:
            self._waiting = [chunk]
            return waiting
        return [*waiting, chunk]

    def _read_chunk(self, chunk: Any) -> bool:
        """Whether it says how the request ended."""
        chat = type_of_chat(chunk)
        if chat is None or self._has_begun or not is_text_only(chunk):
            says_end = self.read(chunk, counts=True)
            self.text_type = None if says_end else chat
            return says_end
        self.text_type = chat
        self.span.token()
        read_names(self.span, vars(chunk))
        self._has_begun = True
        return False

    def take_waiting(self) -> list[Any]:
        """The chunk that waits, if there is one."""
        waiting, self._waiting = self._waiting, None
        return waiting or []

    def end(self, error: BaseException | None = None) -> None:
        if self.response is not None:  # with what it has got it keeps itself, until now
            vars(self.response).pop(self.closer, None)
        if error is None:
            self.span.end()
        else:  # the span was never entered, so this only ends it, with the error's status
            self.span.__exit__(type(error), error, None)

    def close(self) -> None:
        """The program wants no more of it."""
        if not self.span.is_recording or self.is_reading:
            return
        if self.reader is not None and getattr(self.reader(), "gi_running", False):
            return
        if not self._has_finished:
            self.span.set_status("CANCELLED", "the stream was closed")
        self.end()

    def __del__(self) -> None:
        if self.span.is_recording:
            self.is_reading, self.reader = False, None
            self.close()

    def close_with(self, response: Any, closer: str) -> None:
        """Close this whenever the response is closed, by its method of that name."""
        # The response, and not the stream: the helpers of the client close that.
        self.response, self.closer = response, closer
        self._close_response = getattr(response, closer)
        is_async = closer == "aclose"
        setattr(response, closer, self._close_both_async if is_async else self._close_both)

    def _close_both(self) -> None:
        self._close_response()
        self.close()

    async def _close_both_async(self) -> None:
        await self._close_response()
        self.close()


def follow(call: OpenAICall, result: Any) -> Any:
    """The result, of which the span gets all that it says, now or as it is read."""
    return _follow(call, result, _follow_chunks, "close")


def follow_async(call: OpenAICall, result: Any) -> Any:
    """The same for an asynchronous client."""
    return _follow(call, result, _AsyncChunks, "aclose")


def _follow(call: OpenAICall, result: Any, chunks: Callable[..., Any], close: str) -> Any:
    try:
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
    except Exception as error:
        call.switch.note_failure(error)
    return result


def _follow_raw(call: OpenAICall, raw: Any, chunks: Callable[..., Any], close: str) -> None:
    # By a weak reference: a cycle would keep a response that is dropped, and its span, for long.
    parse, owner = type(raw).parse, weakref.ref(raw)

    def parse_and_follow(*arguments: Any, **keywords: Any) -> Any:
        stream = parse(owner(), *arguments, **keywords)
        iterator = getattr(stream, "_iterator", None)
        if iterator is not None and not _is_followed(iterator):
            with call.switch.guarded():
                _follow_stream(call, stream, chunks, close)
        return stream

    raw.parse = parse_and_follow


def _follow_stream(call: OpenAICall, stream: Any, chunks: Callable[..., Any], close: str) -> None:
    call.close_with(stream.response, close)
    stream._iterator = chunks(stream._iterator, call)


def _follow_chunks(chunks: Any, call: OpenAICall) -> Iterator[Any]:
    """The chunks of a stream, counted."""
    reader = _read_chunks(chunks, call)
    # By a weak reference: the reader has the call.
    call.reader = weakref.ref(reader)
    return reader


def _read_chunks(chunks: Any, call: OpenAICall) -> Iterator[Any]:
    # A stream has a hundred chunks of text and more, and each attribute of ours that is looked up
    # for one is memory that what happened since the last one has driven out of the caches.
    count = call.span.token
    text_type: Any = None
    is_outside = False
    try:
        for chunk in chunks:
            is_outside = True
            is_text = False
            if type(chunk) is text_type:
                try:  # as `is_text_only`, whose call would be the larger half of it
                    (choice,) = chunk.choices
                    is_text = (
                        choice.finish_reason is None
                        and chunk.usage is None
                        and choice.delta.content
                        and (not chunk.__pydantic_extra__ or is_text_only(chunk))
                    )
                except (AttributeError, TypeError, ValueError):
                    pass
            if is_text:
                count()
                yield chunk
            else:
                taken = call.take(chunk)
                text_type = call.text_type
                yield from taken
            is_outside = False
    except BaseException as error:
        call.reader = None
        if is_outside:
            call.close()
        else:
            call.end(error)
            yield from call.take_waiting()
        raise
    call.end()
    if call.body_before is not None:
        yield from call.take_waiting()


class _AsyncChunks:
    """The same of an asynchronous one, which no generator is: its end would wait for a task."""

    def __init__(self, chunks: Any, call: OpenAICall) -> None:
        self._chunks = chunks
        self._call = call
        self._ready: list[Any] = []
        self._is_over = False
        self._error: BaseException | None = None

    def __aiter__(self) -> _AsyncChunks:
        return self

    async def __anext__(self) -> Any:
        call = self._call
        while not self._ready:
            if self._is_over:
                self._raise()
            call.is_reading = True
            try:
                chunk = await self._chunks.__anext__()
            except BaseException as error:
                self._end(error)
            else:
                call.is_reading = False
                if type(chunk) is call.text_type and is_text_only(chunk):
                    call.span.token()
                    return chunk
                self._ready = call.take(chunk)
        return self._ready.pop(0)

    def _raise(self) -> None:
        """An error is raised once, as by a generator, and not kept: it keeps this in turn."""
        error, self._error = self._error, None
        try:
            raise error or StopAsyncIteration
        finally:
            del error

    def _end(self, error: BaseException) -> None:
        """After what the program has not seen yet, it gets this."""
        is_failure = not isinstance(error, StopAsyncIteration)
        self._call.is_reading = False
        self._call.end(error if is_failure else None)
        self._ready, self._is_over = self._call.take_waiting(), True
        self._error = error if is_failure else None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chunks, name)


def _is_followed(iterator: Any) -> bool:
    return isinstance(iterator, _AsyncChunks) or (
        isinstance(iterator, GeneratorType) and iterator.gi_code is _read_chunks.__code__
    )
