"""Logs the first invalid value of each kind, so that users learn what `invalid_fields` counts.

The threads that record validate the values, and must not wait for a log handler: they leave a
notice here, and the exporter's thread logs it.
"""

from __future__ import annotations

from collections import deque

from infertrace.limits import FLOAT32_MAX, INT32_MAX, INT64_MAX, MAX_ENTRIES, MAX_TEXT_BYTES
from infertrace.wire.token_intervals import HIGHEST_BUCKET, LOWEST_BUCKET, MAX_COUNT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

COUNT: Final = f"an integer from 0 to {INT32_MAX}"
ORDINAL: Final = f"an integer from 0 to {INT64_MAX}"
INTERVALS: Final = (
    "a sequence of integers: the bucket of the first count, and the counts, from 0 to "
    f"{MAX_COUNT}, of buckets from {LOWEST_BUCKET} to {HIGHEST_BUCKET}"
)
TEXT: Final = f"a text of at most {MAX_TEXT_BYTES} bytes in UTF-8, without lone surrogates"
KEY: Final = f"a text of 1 to {MAX_TEXT_BYTES} bytes in UTF-8, without lone surrogates"
SCALAR: Final = f"a bool, a 64-bit integer, a finite float, or {TEXT}"
STATUS: Final = "OK, ERROR or CANCELLED"
KIND: Final = "internal, server, client, producer or consumer"
EXCEPTION: Final = "an exception"
LINK: Final = "a span, or the traceparent of one"
PARENT: Final = "a span, or a valid traceparent"
TRACE_ID: Final = "32 hexadecimal digits in lower case, not all zero"
MAPPING: Final = "a mapping"
ITERABLE: Final = "an iterable of spans or traceparents"
ENTRIES: Final = f"at most {MAX_ENTRIES} of them on one span"
BEFORE_THE_END: Final = "a call before the span ends"
ONE_BLOCK: Final = "one block for each span: the first that is left ends it"
START: Final = (
    "nanoseconds since 1970, of the year 2000 or later, as time.time_ns() gives them; an earlier "
    "time is one of a monotonic clock"
)
DURATION: Final = "nanoseconds, 0 or more, as an integer"

# Enough for each field with a few wrong types; beyond that, invalid values are only counted.
_MAX_KINDS: Final = 256

_known: set[tuple[str, type, str]] = set()
_notices: deque[str] = deque()


def measure(upper: float) -> str:
    """A description of the values that a measure from 0 to `upper` accepts."""
    if upper >= FLOAT32_MAX:
        return "a finite number, 0 or more, that a 32-bit float can hold"
    return f"a number from 0 to {upper:g}"


def notice(
    field: str, value: object, allowed: str, wake: Callable[[], object], key: object = None
) -> None:
    """Have one line logged if this is the first value of its kind.

    A kind is a field, the value's type, and what is allowed. wake: wakes the exporter. key: the
    key of a tag or an attribute.
    """
    try:
        kind = (field, type(value), allowed)
        if kind in _known or len(_known) >= _MAX_KINDS:
            return
        _known.add(kind)
        of_key = f" {key[:64]!a}" if type(key) is str else ""
        # Never the value itself: it may be a prompt or a secret.
        _notices.append(f"{field}{of_key}: expected {allowed}; got {_described(type(value))}")
        wake()
    except (RuntimeError, MemoryError):  # no thread or no memory; the value is counted anyway
        return


def take_notices() -> list[str]:
    """Remove and return the notices that are not logged yet."""
    taken = []
    while _notices:
        taken.append(_notices.popleft())
    return taken


def _described(kind: type) -> str:
    name = type.__dict__["__name__"].__get__(kind)
    return f"a value of type {name[:64]!a}" if name != "NoneType" else "None"
