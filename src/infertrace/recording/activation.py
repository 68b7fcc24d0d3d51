"""A span made current for a block that does not end it; both backends use this."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any

    from infertrace.span import Span


class Activation:
    """What `span.activate()` returns, for one `with` block; another call gives another one."""

    __slots__ = ("_make_current", "_previous", "_restore", "_span")

    def __init__(
        self,
        span: Any,
        make_current: Callable[[Any], Span | None],
        restore: Callable[[Any, Any], None],
    ) -> None:
        """make_current: makes a span current, and returns the one before.

        restore: where the first span is current, makes the second so, or what lives around it.
        """
        self._span = span
        self._make_current = make_current
        self._restore = restore
        self._previous: Span | None = None

    def __enter__(self) -> Span:
        if self._span.propagates:
            self._previous = self._make_current(self._span)
        found: Span = self._span
        return found

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._span.propagates:
            previous, self._previous = self._previous, None
            self._restore(self._span, previous)
