"""OpenTelemetry's spans and ours in one trace: whichever was entered last is the parent.

OpenTelemetry asks its runtime context for the current span. Ours puts itself in front of that:
where a span of ours was entered last, it says that one; and what OpenTelemetry makes current is so
among our spans too, by a stand-in.
"""

from __future__ import annotations

from contextvars import Token
from typing import TYPE_CHECKING, Any, Final

from infertrace.external_span import StandIn, exchange_current, live_current, restore_current
from infertrace.integrations.switch import Switch
from infertrace.trace_context import TraceContext

if TYPE_CHECKING:
    from opentelemetry.context.context import Context

    from infertrace.span import Span


def _install(switch: Switch, module: str) -> None:
    from opentelemetry import context

    context.get_current()  # some versions choose their runtime context now
    if not isinstance(context._RUNTIME_CONTEXT, _RuntimeContext):
        # For good: switched off, it passes on, and ends the blocks that are open.
        own: Any = _RuntimeContext(switch, context._RUNTIME_CONTEXT)
        context._RUNTIME_CONTEXT = own


class _Attached:
    """What `attach` returns, for `detach`."""

    __slots__ = ("changed", "current", "previous", "token")

    def __init__(
        self, token: Token[Context], changed: bool, current: Span | None, previous: Span | None
    ) -> None:
        self.token = token
        self.changed = changed
        self.current = current
        self.previous = previous


class _RuntimeContext:
    """OpenTelemetry's interface of that name, around the one that was there."""

    def __init__(self, switch: Switch, inner: Any) -> None:
        self._switch = switch
        self._inner = inner

    def attach(self, context: Context) -> Any:
        token = self._inner.attach(context)
        if not self._switch.is_on:
            return token
        wanted = _context_of(context)
        current = live_current()
        if wanted == (current.context if current else None):
            return _Attached(token, False, None, None)
        stand_in = None if wanted is None else StandIn(wanted)
        return _Attached(token, True, stand_in, exchange_current(stand_in))

    def get_current(self) -> Context:
        context: Context = self._inner.get_current()
        current = live_current()
        if current is None or isinstance(current, StandIn) or not self._switch.is_on:
            return context
        if not current.context.span_id:  # a trace of ours that is not sampled says nothing
            return context
        self._switch.count_use()
        return _with(context, current.context)

    def detach(self, token: Any) -> None:
        if not isinstance(token, _Attached):  # of before
            self._inner.detach(token)
            return
        if token.changed:
            restore_current(token.current, token.previous)
        self._inner.detach(token.token)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _context_of(context: Context) -> TraceContext | None:
    from opentelemetry import trace

    found = trace.get_current_span(context).get_span_context()
    if not found.is_valid:
        return None
    return TraceContext(found.trace_id, found.span_id, found.trace_flags.sampled)


def _with(context: Context, ours: TraceContext) -> Context:
    from opentelemetry import trace

    if _context_of(context) == ours:
        return context
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
    span_context = trace.SpanContext(
        ours.trace_id, ours.span_id, is_remote=False, trace_flags=flags
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(span_context), context)


_SWITCH: Final = Switch("opentelemetry", _install)
instrument: Final = _SWITCH.on
uninstrument: Final = _SWITCH.off
