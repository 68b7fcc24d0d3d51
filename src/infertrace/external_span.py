"""Stands for a span that another library records, so that it can be current among ours."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final

from infertrace import backend
from infertrace.generated.pure_fields import NoopFieldSetters
from infertrace.recording.activation import Activation
from infertrace.recording.pure_serving import TimesNothing
from infertrace.span import Scalar
from infertrace.span import Span as AnySpan
from infertrace.trace_context import ExternalSpan, TraceContext
from infertrace.tracer import Tracer
from infertrace.wire.protobuf import delimited

_SPANS_TAG: Final = b"\x0a"  # of SendSpanBatchRequest


class StandIn(NoopFieldSetters, TimesNothing, ExternalSpan):
    """The parent of what starts while it is current; what is set on it goes nowhere.

    Both backends take any object with a `context` for the current span.
    """

    __slots__ = ("context",)
    _ended: Final = 0
    _previous: Final = None
    parent_span_id: Final = None
    is_recording: Final = False
    propagates: Final = True

    def __init__(self, context: TraceContext) -> None:
        self.context = context

    @property
    def trace_id(self) -> str:
        return f"{self.context.trace_id:032x}"

    @property
    def span_id(self) -> str:
        return f"{self.context.span_id:016x}"

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{int(self.context.sampled):02x}"

    def set_tag(self, key: str, text: str) -> None: ...
    def set_attribute(self, key: str, value: Scalar) -> None: ...
    def add_event(self, name: str, attributes: Mapping[str, Scalar] | None = None) -> None: ...
    def add_link(self, other: Any, attributes: Mapping[str, Scalar] | None = None) -> None: ...
    def record_exception(self, error: BaseException) -> None: ...
    def set_status(self, status: str, message: str | None = None) -> None: ...
    def set_operation_name(self, name: str) -> None: ...
    def end(self) -> None: ...

    def activate(self) -> Activation:
        found = backend.selected
        return Activation(self, found.exchange_current, found.restore_current)

    def __enter__(self) -> AnySpan:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    async def __aenter__(self) -> AnySpan:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


def exchange_current(span: AnySpan | None) -> AnySpan | None:
    """Make this span (or none) the current one of this context; returns the one before."""
    return backend.selected.exchange_current(span)


def restore_current(span: AnySpan | None, previous: AnySpan | None) -> None:
    """Where `span` is current, make `previous` so again, or what lives around it."""
    backend.selected.restore_current(span, previous)


def live_current() -> AnySpan | None:
    """The current span, ours or a stand-in, or None."""
    return backend.selected.current()


def record_encoded(tracer: Tracer, span: bytes) -> None:
    """Take a finished span of others, the body of a `Span` of proto/span.proto, as one of ours.

    The tracer counts, buffers and delivers it as those that it has made.
    """
    tracer._recorder.put_encoded(delimited(_SPANS_TAG, span))
