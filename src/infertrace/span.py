"""The span, as its user sees it. Both backends implement this protocol.

The setters of single fields come from proto/fields.toml.
"""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, overload, runtime_checkable

from infertrace.generated.span_setters import FieldSetters, SpanFields
from infertrace.trace_context import TraceContext

Chunk = TypeVar("Chunk")
Sent = TypeVar("Sent")
Result = TypeVar("Result")
Scalar: TypeAlias = "str | bool | int | float"
"""What an attribute holds: a string, a bool, a 64-bit integer or a finite float."""
SpanKind: TypeAlias = Literal["internal", "server", "client", "producer", "consumer"]
"""What a span is in OpenTelemetry's terms."""


@runtime_checkable
class Span(FieldSetters, Protocol):
    """One operation of a model server, timed from `Tracer.start_span()` to its end.

    Use it as a `with` or `async with` block, which makes it the current span of the
    context and ends it; or call `end()`. No method raises on a wrong value: that value
    is left out or clamped as the method says, and counted in the ledger's
    `invalid_fields` and on the span. Integers are clamped to 2**31 - 1, texts cut at
    32 KiB of UTF-8, lone surrogates become U+FFFD; a negative number, NaN, an infinity
    or a foreign type is left out. What comes after the end is left out too.
    """

    @property
    def trace_id(self) -> str:
        """32 lower-case hexadecimal digits; all zero on a span that is not recorded."""

    @property
    def span_id(self) -> str:
        """16 lower-case hexadecimal digits; all zero on a span that is not recorded."""

    @property
    def parent_span_id(self) -> str | None:
        """16 lower-case hexadecimal digits, or None at the root of a trace."""

    @property
    def traceparent(self) -> str:
        """The W3C `traceparent` header for a call to another process."""

    @property
    def is_recording(self) -> bool:
        """False when the span has ended, is not sampled, or the tracer is off."""

    @property
    def context(self) -> TraceContext:
        """The ids as integers, and whether the trace is sampled."""

    @property
    def propagates(self) -> bool:
        """Whether this span becomes the current one when it is entered."""

    def set_tag(self, key: str, text: str) -> None:
        """A text to search by; at most 128 on a span, the last value of a key counts."""

    def set_attribute(self, key: str, value: Scalar) -> None:
        """A typed value; at most 128 on a span, the last value of a key counts."""

    def add_event(self, name: str, attributes: Mapping[str, Scalar] | None = None) -> None:
        """Something that happened now; at most 128 on a span."""

    def add_link(self, other: Span | str, attributes: Mapping[str, Scalar] | None = None) -> None:
        """Relate another span (or its `traceparent`) that is not the parent; at most 128."""

    def record_exception(self, error: BaseException) -> None:
        """Add an `exception` event with type, message and stack; the status stays."""

    def set_status(self, status: str, message: str | None = None) -> None:
        """Set `OK`, `ERROR` or `CANCELLED`, and a message for people."""

    def set_operation_name(self, name: str) -> None:
        """Another name for what is done: a server knows the route only after it has begun."""

    def activate(self) -> AbstractContextManager[Span]:
        """Make this span current for a `with` block, and go on with it after the block.

        For a request that lives across callbacks, threads or tasks: each of them activates it, also
        several at once, and `end()` ends it. What was current is so again after the block.
        """

    def scheduled(self) -> None:
        """Work on this request begins: where its queue ends; the first call counts."""

    def token(self, count: int = 1) -> None:
        """So many tokens of this request came, together and now.

        At the end, the span has from these calls, and from the steps that the request was in,
        what its user did not set: `output_tokens`, `time_to_first_token_ms`, the mean and the
        longest time between two tokens, and a histogram of these times. Tokens that come
        together are one interval apart from those before, and none from each other.
        """

    @property
    def token_count(self) -> int:
        """How many tokens were given by `token()`, `stream()` and steps."""

    @overload
    def stream(
        self, iterable: Generator[Chunk, Sent, Result]
    ) -> Generator[Chunk, Sent, Result]: ...
    @overload
    def stream(self, iterable: AsyncGenerator[Chunk, Sent]) -> AsyncGenerator[Chunk, Sent]: ...
    @overload
    def stream(self, iterable: Iterable[Chunk]) -> Iterator[Chunk]: ...
    @overload
    def stream(self, iterable: AsyncIterable[Chunk]) -> AsyncIterator[Chunk]: ...
    def stream(self, iterable: Any) -> Any:
        """Go through an iterable, or an asynchronous one, and time each chunk as one token.

        Ends nothing and hides nothing: what the iterable returns, raises and offers besides,
        such as the `send`, `throw` and `close` of a generator, stays.
        """

    def end(self) -> None:
        """End a span that was not entered; a second call does nothing."""

    def __enter__(self) -> Span: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...
    async def __aenter__(self) -> Span: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...


class SpanKeywords(SpanFields, total=False):
    """What a span may be given when it is made, beside its names and its parent."""

    links: Iterable[Span | str] | None
    tags: Mapping[str, str] | None
    attributes: Mapping[str, Scalar] | None
    kind: SpanKind | None


class StartSpanKeywords(SpanKeywords, total=False):
    """All keywords of `Tracer.start_span`."""

    parent: Span | str | None


Prefill: TypeAlias = "Iterable[tuple[Span, int] | tuple[Span, int, bool]]"
"""Requests whose input a step reads, each with how many tokens, and on request whether these are
the last of it."""

Decode: TypeAlias = "Iterable[Span | tuple[Span, int]]"
"""Requests for which a step generates a token, or as many as are said."""
