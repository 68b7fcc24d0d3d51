"""The trace context, which travels between spans and between processes."""

from __future__ import annotations

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, NamedTuple

    class TraceContext(NamedTuple):
        """Where a span stands: what a child, near or far, must know of it."""

        trace_id: int
        span_id: int
        sampled: bool

else:
    TraceContext = namedtuple("TraceContext", ["trace_id", "span_id", "sampled"])


class ExternalSpan:
    """What stands for a span that another library records; its class is in `external_span.py`."""

    __slots__ = ()


_HEX_DIGITS: Final = frozenset("0123456789abcdef")
_FIELD_DIGITS: Final = (2, 32, 16, 2)  # version, trace id, span id, flags


def parse_traceparent(header: str) -> TraceContext | None:
    """Read a W3C `traceparent` header; None where it is not valid.

    Source: W3C Trace Context, section 3.2 (version ff and ids of zero are invalid, a
    version above 00 may carry more fields).
    """
    fields = header.split("-")
    if len(fields) < len(_FIELD_DIGITS) or (fields[0] == "00" and len(fields) > len(_FIELD_DIGITS)):
        return None
    for field, digits in zip(fields, _FIELD_DIGITS, strict=False):
        if len(field) != digits or not _HEX_DIGITS.issuperset(field):
            return None
    version, trace_id, span_id, flags = fields[: len(_FIELD_DIGITS)]
    context = TraceContext(int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & 1))
    return context if version != "ff" and context.trace_id and context.span_id else None
