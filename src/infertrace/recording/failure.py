"""How an exception appears on a span: status, message, attributes."""

from __future__ import annotations

from infertrace.recording.values import text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Final

    from infertrace.recording.values import Scalar

# Of a stack, the innermost. An exception that leaves as many spans as it leaves calls would
# otherwise cost their square: seconds at the recursion limit.
MAX_CALLS: Final = 64

# The classes that mean "stopped from outside", by name: programs that use neither asyncio nor
# trio should not pay for importing them.
_CANCELLATIONS = frozenset(
    {
        "asyncio.exceptions.CancelledError",
        "builtins.GeneratorExit",
        "concurrent.futures._base.CancelledError",
        "trio.Cancelled",
    }
)


def status_of(kind: type[BaseException]) -> str:
    """`CANCELLED` for a cancellation or an early close, `ERROR` for anything else."""
    for base in kind.__mro__:
        if f"{base.__module__}.{base.__qualname__}" in _CANCELLATIONS:
            return "CANCELLED"
    return "ERROR"


def message_of(error: BaseException) -> str:
    """`Type: message`, as valid text of bounded length, whatever `__str__` does."""
    message = _printed(error)
    name = type(error).__name__
    return text(f"{name}: {message}" if message else name)[0] or name


def exception_attributes(
    error: BaseException, traceback: TracebackType | None = None
) -> dict[str, Scalar]:
    """The attributes of an `exception` event, named as OpenTelemetry's conventions name them."""
    kind = type(error)
    module = kind.__module__
    name = kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"
    attributes: dict[str, Scalar] = {"exception.type": name}
    message = text(_printed(error))[0]
    if message:
        attributes["exception.message"] = message
    stack = _stack(error, traceback or error.__traceback__)
    if stack:
        attributes["exception.stacktrace"] = stack
    return attributes


def _printed(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "<unprintable>"


def _stack(error: BaseException, traceback: TracebackType | None) -> str | None:
    if traceback is None:
        return None
    # Imported here because only a failing span needs it.
    from traceback import format_tb

    depth = 0
    below: TracebackType | None = traceback
    while below is not None:
        depth, below = depth + 1, below.tb_next
    left_out = f"  [{depth - MAX_CALLS} outer calls left out]\n" if depth > MAX_CALLS else ""
    try:
        return text(left_out + "".join(format_tb(traceback, -MAX_CALLS)))[0]
    except Exception:
        return None
