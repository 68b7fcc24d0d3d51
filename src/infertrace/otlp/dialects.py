"""Finds the fields of a span among its attributes and events, whichever dialect its sender speaks.

proto/dialects.toml says where each field may come from. The compiled translator does the same for
what is usual, and leaves a span to this module where an attribute of its table is anything else.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import isfinite
from typing import Any, Final

from infertrace.generated.dialect_sources import DIALECT_SOURCES
from infertrace.wire import token_intervals

INT32_MAX: Final = 2**31 - 1
INT64_MAX: Final = 2**63 - 1
FLOAT32_MAX: Final = struct.unpack("<f", b"\xff\xff\x7f\x7f")[0]
# How far a latency may exceed the duration of its span: two clocks measured them.
LATENCY_FACTOR: Final = 1.05
LATENCY_SLACK_S: Final = 0.01
MAX_JSON_CHARACTERS: Final = 1_000_000
MAX_NUMBER_CHARACTERS: Final = 40

_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?\s*", re.ASCII)
_DURATION = re.compile(r"(\d{1,19}(?:\.\d{1,19})?)(ns|µs|us|ms|s)", re.ASCII)
_MS_OF_UNIT = {"ns": 1e-6, "µs": 1e-3, "us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True)
class ForeignSpan:
    """What the dialects look at. Times in nanoseconds since 1970, the duration in nanoseconds.

    The values of attributes are as Python has them: text, bool, int, float, bytes, list, dict,
    None. `events` are names and times, in their order.
    """

    attributes: Mapping[str, Any]
    events: Sequence[tuple[str, int]]
    scope_name: str
    start_ns: int
    duration_ns: int


@dataclass
class FoundFields:
    """The fields that were found, where each came from, and how many sources made no sense."""

    values: dict[str, str | int | float | bytes] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    unusable_count: int = 0


class UnusableError(ValueError):
    """A source is there, and cannot be understood."""


def find_fields(span: ForeignSpan) -> FoundFields:
    """The first usable source of each field."""
    found = FoundFields()
    for name, sources in DIALECT_SOURCES:
        for key, form, detail in sources:
            try:
                value, said = _FORMS[form](span, found, key, detail)
            except UnusableError:
                found.unusable_count += 1
                continue
            if value is not None:
                found.values[name] = value
                found.sources[name] = said
                break
    return found


def scope_framework(scope_name: str) -> str:
    """What runs the model, where the scope of its spans says it."""
    for name, sources in DIALECT_SOURCES:
        for start, form, framework in sources if name == "framework" else ():
            if form == "scope" and scope_name.startswith(start):
                return framework
    return ""


Found = tuple[str | int | float | bytes | None, str]
_Read = Callable[[ForeignSpan, FoundFields, str, str], Found]


def _of_attribute(
    convert: Callable[[Any, ForeignSpan], str | int | float | bytes | None],
) -> _Read:
    def read(span: ForeignSpan, found: FoundFields, key: str, detail: str) -> Found:
        value = span.attributes.get(key)
        if value is None or value == "":
            return None, ""
        return convert(value, span), f"attribute {key}"

    return read


def _text(value: Any, span: ForeignSpan) -> str:
    if not isinstance(value, str):
        raise UnusableError
    return value


def _label(value: Any, span: ForeignSpan) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _text(value, span)


def _json_text(value: Any, span: ForeignSpan) -> str | None:
    text = _text(value, span)
    return _text(_parsed(text), span) or None if text.startswith('"') else text


def _parsed(text: str) -> Any:
    if len(text) > MAX_JSON_CHARACTERS:
        raise UnusableError
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise UnusableError from None


def _number(value: Any) -> int | float:
    """Finite, and not negative."""
    if isinstance(value, str):
        if len(value) > MAX_NUMBER_CHARACTERS or not _NUMBER.fullmatch(value):
            raise UnusableError
        text = value.strip()
        value = int(text) if text.lstrip("+-").isdigit() else float(text)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UnusableError
    if not isfinite(value) or value < 0:
        raise UnusableError
    return value


def _count(value: Any, span: ForeignSpan) -> int:
    number = _number(value)
    if number > INT32_MAX or number != int(number):
        raise UnusableError
    return int(number)


def _measure(value: Any, span: ForeignSpan) -> float:
    number = float(_number(value))
    if number > FLOAT32_MAX:
        raise UnusableError
    return number


def _ratio(value: Any, span: ForeignSpan) -> float:
    number = float(_number(value))
    if number > 1.0:
        raise UnusableError
    return number


def _reading(value: Any, span: ForeignSpan) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
        raise UnusableError
    return float(value)


def _size(value: Any, span: ForeignSpan) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > INT64_MAX:
        raise UnusableError
    return value


def _seconds(value: Any, span: ForeignSpan) -> float:
    """As milliseconds. Some senders write milliseconds or nanoseconds under the same name."""
    number = float(_number(value))
    if not span.duration_ns:
        return _measure(number * 1e3, span)  # nothing to judge it by
    limit_s = span.duration_ns / 1e9 * LATENCY_FACTOR + LATENCY_SLACK_S
    for per_second in (1.0, 1e3, 1e9):
        if number / per_second <= limit_s:
            return _measure(number / per_second * 1e3, span)
    raise UnusableError


def _duration(value: Any, span: ForeignSpan) -> float:
    match = _DURATION.fullmatch(_text(value, span))
    if match is None:
        raise UnusableError
    return float(match[1]) * _MS_OF_UNIT[match[2]]


def _instant(value: Any, span: ForeignSpan) -> float:
    text = _text(value, span).strip('"')
    try:
        # Before CPython 3.11, fromisoformat() takes no "Z".
        instant = datetime.fromisoformat(re.sub(r"Z$", "+00:00", text))
        if instant.tzinfo is None:
            raise UnusableError
        elapsed_ms = instant.timestamp() * 1e3 - span.start_ns / 1e6
    except (ValueError, OverflowError):
        raise UnusableError from None
    return _measure(elapsed_ms, span)


def _reasons(value: Any, span: ForeignSpan) -> str | None:
    if isinstance(value, str) and value.startswith("["):
        value = _parsed(value)
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not all(isinstance(reason, str) for reason in value):
        raise UnusableError
    return ",".join(value) or None


def _intervals(value: Any, span: ForeignSpan) -> bytes:
    """The bucket of the first count, and the counts, as a message TokenIntervals."""
    if not isinstance(value, list) or not all(type(number) is int for number in value):
        raise UnusableError
    if not value or not token_intervals.is_valid(value[0], value[1:]):
        raise UnusableError
    return token_intervals.encode(value[0], value[1:])


def _json(span: ForeignSpan, found: FoundFields, key: str, path: str) -> Found:
    value = span.attributes.get(key)
    if value is None or value == "":
        return None, ""
    value = _parsed(value) if isinstance(value, str) else value
    for name in path.split("."):
        if not isinstance(value, dict):
            raise UnusableError
        value = value.get(name)
    if value is None:
        return None, ""
    return _count(value, span), f"attribute {key}, {path}"


def _per_token(span: ForeignSpan, found: FoundFields, key: str, detail: str) -> Found:
    value = span.attributes.get(key)
    tokens = found.values.get("output_tokens", 0)
    if value is None or value == "" or not isinstance(tokens, int) or tokens < 2:
        return None, ""
    said = f"attribute {key}, per token after the first"
    return _seconds(value, span) / (tokens - 1), said


def _share(span: ForeignSpan, found: FoundFields, key: str, of: str) -> Found:
    part, whole = found.values.get(key), found.values.get(of)
    if not isinstance(part, int) or not isinstance(whole, int) or not whole:
        return None, ""
    return min(1.0, part / whole), f"{found.sources[key]}, of {found.sources[of]}"


def _event(span: ForeignSpan, found: FoundFields, name: str, since: str) -> Found:
    times = dict(reversed(span.events))  # of those with the same name, the first
    begin_ns = times.get(since) if since else span.start_ns
    if name not in times or begin_ns is None or times[name] < begin_ns:
        return None, ""
    said = f"event {name}, after {since or 'the start'}"
    return _measure((times[name] - begin_ns) / 1e6, span), said


def _scope(span: ForeignSpan, found: FoundFields, start: str, value: str) -> Found:
    return (value, "scope") if span.scope_name.startswith(start) else (None, "")


_FORMS: Final[Mapping[str, _Read]] = {
    "text": _of_attribute(_text),
    "label": _of_attribute(_label),
    "json_text": _of_attribute(_json_text),
    "count": _of_attribute(_count),
    "measure": _of_attribute(_measure),
    "ratio": _of_attribute(_ratio),
    "reading": _of_attribute(_reading),
    "size": _of_attribute(_size),
    "seconds": _of_attribute(_seconds),
    "ms": _of_attribute(_measure),
    "duration": _of_attribute(_duration),
    "instant": _of_attribute(_instant),
    "reasons": _of_attribute(_reasons),
    "intervals": _of_attribute(_intervals),
    "json": _json,
    "per_token": _per_token,
    "share": _share,
    "event": _event,
    "event_since": _event,
    "scope": _scope,
}
