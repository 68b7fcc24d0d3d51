"""Validates the values that a backend's fast path does not accept.

Each function returns the value to record (None leaves the field out) and whether that is the
caller's value unchanged. None of them raises, whatever the value's own methods do.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from itertools import islice

from infertrace.limits import (
    INT32_MAX,
    INT64_MAX,
    INT64_MIN,
    MAX_ENTRIES,
    MAX_TEXT_BYTES,
)
from infertrace.recording.invalid_values import ENTRIES, KEY, MAPPING, SCALAR, notice
from infertrace.wire.token_intervals import MAX_BUCKETS, is_valid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    Scalar: TypeAlias = "str | bool | int | float"

# The kinds of a span, as OTLP numbers them.
KINDS = {"internal": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}
_NAME = type.__dict__["__name__"].__get__
_MODULE = type.__dict__["__module__"].__get__


def text(value: object) -> tuple[str | None, bool]:
    """A string: lone surrogates become U+FFFD, anything beyond `MAX_TEXT_BYTES` is cut off."""
    # Not isinstance: that reads the value's own `__class__`, which may raise.
    if not issubclass(type(value), str):
        return None, False
    subclass: Any = value
    plain = str.__str__(subclass)
    # A character takes at least one byte of UTF-8, so cut before encoding what may be 100 MB.
    valid = plain[:MAX_TEXT_BYTES]
    try:
        encoded = valid.encode()
    except UnicodeEncodeError:
        valid = valid.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        encoded = valid.encode()
    if len(encoded) > MAX_TEXT_BYTES:
        valid = encoded[:MAX_TEXT_BYTES].decode(errors="ignore")
    return valid, valid == plain


def count(value: object) -> tuple[int | None, bool]:
    """An integer from 0 to 2**31 - 1: larger ones are clamped, negative ones left out."""
    number = _integer(value)
    if number is None or number < 0:
        return None, False
    return min(number, INT32_MAX), number <= INT32_MAX


def ordinal(value: object) -> tuple[int | None, bool]:
    """An integer from 0 to 2**63 - 1; anything else is left out."""
    number = _integer(value)
    is_one = number is not None and 0 <= number <= INT64_MAX
    return (number, True) if is_one else (None, False)


def intervals(value: object) -> list[int] | None:
    """The bucket of the first count and the counts, as wire/token_intervals.py allows them."""
    if issubclass(type(value), (str, bytes, bytearray)):
        return None
    try:
        given = list(islice(iter(value), MAX_BUCKETS + 2))  # type: ignore[call-overload]
    except Exception:  # no iterable, or one that raises
        return None
    numbers = [number for number in map(_integer, given) if number is not None]
    if len(numbers) < len(given) or not numbers or not is_valid(numbers[0], numbers[1:]):
        return None
    return numbers


def measure(value: object, upper: float) -> tuple[float | None, bool]:
    """A finite number from 0 to `upper`: larger ones are clamped, negative ones left out."""
    number = _real(value)
    if number is None or not 0.0 <= number < math.inf:
        return None, False
    return min(number, upper), number <= upper


def scalar(value: object) -> tuple[Scalar | None, bool]:
    """A string, bool, 64-bit integer or finite float; anything else is left out."""
    if issubclass(type(value), str):
        return text(value)
    if value is True or value is False:
        return value, True
    if _is_numpy_bool(type(value)):
        return bool(value), True
    integer = _integer(value)
    if integer is not None:
        return (integer, True) if INT64_MIN <= integer <= INT64_MAX else (None, False)
    real = _real(value)
    return (real, True) if real is not None and math.isfinite(real) else (None, False)


def key(value: object) -> tuple[str | None, bool]:
    """A non-empty string."""
    name, as_given = text(value)
    return (name, as_given) if name else (None, False)


def entries(
    mapping: object, wake: Callable[[], object] = lambda: None
) -> tuple[dict[str, Scalar] | None, int]:
    """The valid entries of an attribute mapping, and how many were changed or left out.

    wake: wakes the exporter, which logs the first of each kind.
    """
    if mapping is None:
        return None, 0
    valid: dict[str, Scalar] = {}
    invalid = 0
    try:
        if not isinstance(mapping, Mapping):
            notice("attributes", mapping, MAPPING, wake)
            return None, 1
        for raw_key, raw_value in mapping.items():
            name, name_as_given = key(raw_key)
            value, value_as_given = scalar(raw_value)
            if not name_as_given:
                notice("attribute key", raw_key, KEY, wake)
            elif not value_as_given:
                notice("attribute", raw_value, SCALAR, wake, raw_key)
            invalid += not (name_as_given and value_as_given)
            if name is None or value is None:
                continue
            if len(valid) >= MAX_ENTRIES and name not in valid:
                notice("attribute", raw_value, ENTRIES, wake, raw_key)
                invalid += name_as_given and value_as_given
                continue
            valid[name] = value
    except Exception:  # raised by a user's mapping in mid-iteration
        notice("attributes", mapping, MAPPING, wake)
        invalid += 1
    return valid or None, invalid


def _is_numpy_bool(kind: type) -> bool:
    """NumPy's bool, `bool_` before version 2: it has an `__index__`, but is not a number."""
    # Through the descriptors of `type`: a user's metaclass may raise.
    return _NAME(kind) in ("bool", "bool_") and _MODULE(kind) == "numpy"


def _integer(value: object) -> int | None:
    if type(value) is bool or _is_numpy_bool(type(value)):
        return None
    try:
        return int(operator.index(value))  # type: ignore[arg-type]
    except Exception:
        return None


def _real(value: object) -> float | None:
    if issubclass(type(value), (bool, str, bytes, bytearray)) or _is_numpy_bool(type(value)):
        return None
    try:
        return float(value)  # type: ignore[arg-type]
    except Exception:
        return None
