"""The query parameters of every route: their meaning, their parsing, their documentation."""

from __future__ import annotations

import re
import time
import uuid
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from starlette.datastructures import QueryParams

from infertrace.collector.store.columns import COLUMNS as SPAN_COLUMNS
from infertrace.collector.store.keyed_filter import KeyedText
from infertrace.collector.store.measures import DIMENSIONS, MEASURES
from infertrace.collector.store.metrics import METRICS
from infertrace.collector.store.span_filter import SpanKey
from infertrace.collector.store.timestamps import (
    MAX_UNIX_NANOS,
    NANOS_PER_MS,
    NANOS_PER_SECOND,
    parse_rfc3339,
)

MAX_LIMIT = 10_000
DEFAULT_LIMIT = 100
MAX_COLUMNS = 2_000
MAX_AMOUNT = 2**53  # up to it, JSON and floats have every whole number
MAX_KEYED = 16  # conditions on keys in one request
STATUSES = ("OK", "ERROR", "CANCELLED")

_NANOS_PER_UNIT = {
    "ms": NANOS_PER_MS,
    "s": NANOS_PER_SECOND,
    "m": 60 * NANOS_PER_SECOND,
    "h": 3_600 * NANOS_PER_SECOND,
    "d": 86_400 * NANOS_PER_SECOND,
}
_DURATION = re.compile(r"([1-9][0-9]{0,8})(ms|s|m|h|d)")
_TRACE_ID = re.compile(r"[0-9a-fA-F]{32}")
_SPAN_ID = re.compile(r"[0-9a-fA-F]{16}")
_MISSING_PLUS = re.compile(r" (?=\d\d:\d\d$)")


class ParameterError(ValueError):
    """A parameter of a request is wrong; the answer shows the text to the client."""


@dataclass(frozen=True)
class Parameter:
    """One query parameter; `parse` raises ValueError, whose text says what was expected."""

    name: str
    description: str
    parse: Callable[[str], Any]
    schema: Mapping[str, Any]

    def openapi(self) -> dict[str, Any]:
        """How OpenAPI describes it."""
        return {
            "name": self.name,
            "in": "query",
            "required": False,
            "description": self.description,
            "schema": dict(self.schema),
        }


@dataclass(frozen=True)
class KeyedParameter:
    """Query parameters `NAME.KEY=TEXT`, one for each condition, with any key and any text.

    `name` is what comes before the key, and `field` that of a SpanFilter.
    """

    name: str
    description: str
    field: str

    def openapi(self) -> dict[str, Any]:
        """How OpenAPI describes it: an object whose properties are query parameters."""
        return {
            "name": self.name,
            "in": "query",
            "required": False,
            "description": f"`{self.name}.KEY=TEXT`: {self.description}",
            "style": "form",
            "explode": True,
            "schema": {
                "type": "object",
                "propertyNames": {"pattern": rf"^{self.name}\.[\s\S]+$"},
                "additionalProperties": _STRING,
                "maxProperties": MAX_KEYED,
            },
        }


def parse_keyed(
    given: QueryParams, known: Sequence[KeyedParameter]
) -> tuple[dict[str, Any], QueryParams]:
    """The conditions on keys, lists by the fields of a SpanFilter, and the other parameters.

    A blank text is one that a value can have. Raises ParameterError.
    """
    found: dict[str, list[KeyedText]] = {}
    others: list[tuple[str, str]] = []
    for name, text in given.multi_items():
        before, dot, key = name.partition(".")
        field = next((each.field for each in known if dot and each.name == before), None)
        if field is None:
            others.append((name, text))
        elif not key:
            raise ParameterError(f"{name}: expected a key after the dot, such as {name}user")
        else:
            found.setdefault(field, []).append(KeyedText(key, text))
    if sum(map(len, found.values())) > MAX_KEYED:
        names = ", ".join(f"{each.name}.KEY" for each in known)
        raise ParameterError(f"{names}: expected at most {MAX_KEYED} of them")
    return found, QueryParams(others)


def parse_parameters(
    given: QueryParams, known: Sequence[Parameter], keyed: Sequence[KeyedParameter] = ()
) -> dict[str, Any]:
    """The values of the parameters that are given; a blank one counts as not given.

    Raises ParameterError for one that is unknown, given twice or not what it should be. `keyed`
    are those that are allowed as well, which `parse_keyed` has taken out.
    """
    by_name = {parameter.name: parameter for parameter in known}
    values: dict[str, Any] = {}
    for name, text in given.multi_items():
        if name not in by_name:
            allowed = ", ".join([*by_name, *(f"{each.name}.KEY" for each in keyed)]) or "none"
            raise ParameterError(f"{name[:100]}: unknown parameter; expected {allowed}")
        if name in values:
            raise ParameterError(f"{name}: given more than once")
        if text:
            try:
                values[name] = by_name[name].parse(text)
            except ValueError as error:
                raise ParameterError(f"{name}: expected {error}, got {text[:100]!r}") from None
    return values


def parse_trace_id(text: str) -> uuid.UUID:
    """32 hexadecimal digits; raises ValueError."""
    if not _TRACE_ID.fullmatch(text):
        raise ValueError("32 hexadecimal digits")
    return uuid.UUID(hex=text)


def format_cursor(key: SpanKey) -> str:
    """An opaque text for the position after a span."""
    plain = f"{key.start_time_ns}/{key.trace_id.hex}/{key.span_id:x}"
    return urlsafe_b64encode(plain.encode()).decode().rstrip("=")


def _parse_cursor(text: str) -> SpanKey:
    try:
        plain = urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii")
        start_time, trace_id, span_id = plain.split("/")
        key = SpanKey(int(start_time), uuid.UUID(hex=trace_id), int(span_id, 16))
    except ValueError:
        raise ValueError("the cursor of an answer") from None
    if not 0 <= key.start_time_ns <= MAX_UNIX_NANOS or not 0 <= key.span_id < 2**64:
        raise ValueError("the cursor of an answer")
    return key


def _parse_limit(text: str) -> int:
    expected = f"1 to {MAX_LIMIT}"
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise ValueError(expected)
    if not 1 <= int(text) <= MAX_LIMIT:
        raise ValueError(expected)
    return int(text)


def _parse_duration(text: str) -> int:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError("a duration such as 90s, 5m, 24h or 7d")
    return min(int(match[1]) * _NANOS_PER_UNIT[match[2]], MAX_UNIX_NANOS)


def _parse_time(text: str) -> int:
    if _DURATION.fullmatch(text):
        return max(0, time.time_ns() - _parse_duration(text))
    try:
        if text[:5].isdigit() or "-" not in text:
            nanos = int(_decimal(text) * NANOS_PER_SECOND)
        else:
            # A plus that was not escaped in the address arrives as a space.
            nanos = parse_rfc3339(_MISSING_PLUS.sub("+", text))
    except ValueError:
        nanos = -1
    if not 0 <= nanos <= MAX_UNIX_NANOS:
        raise ValueError(
            "RFC 3339 (2026-01-31T12:00:00Z), seconds since 1970 or a time ago such as 15m"
        )
    return nanos


def _parse_milliseconds(text: str) -> int:
    try:
        nanos = int(_decimal(text) * NANOS_PER_MS)
    except ValueError:
        nanos = -1
    if not 0 <= nanos <= MAX_UNIX_NANOS:
        raise ValueError("a number of milliseconds, 0 or more")
    return nanos


def _decimal(text: str) -> Decimal:
    try:
        number = Decimal(text) if len(text) <= 40 else Decimal("NaN")
    except InvalidOperation:
        raise ValueError(text) from None
    if not number.is_finite() or number.adjusted() > 20:
        raise ValueError(text)
    return number


def _parse_producer(text: str) -> uuid.UUID:
    if not _TRACE_ID.fullmatch(text):
        raise ValueError("32 hexadecimal digits, as /ledger has them")
    return uuid.UUID(hex=text)


def _parse_span_id(text: str) -> int:
    if not _SPAN_ID.fullmatch(text):
        raise ValueError("16 hexadecimal digits")
    return int(text, 16)


def parse_step_index(text: str) -> int:
    """The number of a step; raises ValueError."""
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ValueError("a number of at most 18 digits")
    return int(text)


def _parse_include(text: str) -> str:
    if text != "resource":
        raise ValueError("resource")
    return text


def _parse_flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError("0 or 1")
    return text == "1"


def _parse_status(text: str) -> str:
    if text not in STATUSES:
        raise ValueError("OK, ERROR or CANCELLED")
    return text


def _parse_metric(text: str) -> str:
    if text not in METRICS:
        raise ValueError(f"one of {', '.join(METRICS)}")
    return text


def _parse_amount(text: str) -> float:
    try:
        number = float(_decimal(text))
    except ValueError:
        number = -1.0
    if not 0 <= number <= MAX_AMOUNT:
        raise ValueError(f"a number from 0 to {MAX_AMOUNT}")
    return number


def _parse_order(text: str) -> str:
    if text != "start" and text not in MEASURES:
        raise ValueError(f"start or one of {', '.join(MEASURES)}")
    return text


def _parse_measure(text: str) -> str:
    if text not in MEASURES:
        raise ValueError(f"one of {', '.join(MEASURES)}")
    return text


def _parse_fields(text: str) -> frozenset[str]:
    fields = frozenset(text.split(","))
    if not fields <= set(_KEYS):
        raise ValueError("keys of a span with commas between them, as docs/fields.md has them")
    return fields


def _parse_field(text: str) -> str:
    kind, _, key = text.partition(".")
    if text not in DIMENSIONS and not (kind in ("tag", "attribute", "resource") and key):
        raise ValueError(f"tag.KEY, attribute.KEY, resource.KEY or one of {', '.join(DIMENSIONS)}")
    return text


def _parse_place(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18 or int(text) > MAX_AMOUNT:
        raise ValueError("the number that `next` of an answer is")
    return int(text)


def _parse_objective(text: str) -> float:
    try:
        share = float(_decimal(text))
    except ValueError:
        share = 0.0
    if not 0.0001 <= share <= 0.9999:
        raise ValueError("a share from 0.0001 to 0.9999, such as 0.99")
    return share


_KEYS = (*(column.key for column in SPAN_COLUMNS), "resource")
_STRING = {"type": "string"}
TRACE_ID_SCHEMA = {**_STRING, "pattern": f"^{_TRACE_ID.pattern}$"}
_DURATION_SCHEMA = {**_STRING, "pattern": f"^{_DURATION.pattern}$"}
_TIME_SCHEMA = {
    "anyOf": [
        {**_STRING, "format": "date-time"},
        {"type": "number", "minimum": 0, "maximum": MAX_UNIX_NANOS // NANOS_PER_SECOND},
        _DURATION_SCHEMA,
    ]
}
_TIME = "RFC 3339, seconds since 1970, or a time ago such as `15m`"


def flag(name: str, description: str) -> Parameter:
    """A parameter that is 0 or 1."""
    return Parameter(name, f"`1`: {description}", _parse_flag, {**_STRING, "enum": ["0", "1"]})


def amount(name: str, description: str) -> Parameter:
    """A parameter that is a number, 0 or more."""
    schema = {"type": "number", "minimum": 0, "maximum": MAX_AMOUNT}
    return Parameter(name, description, _parse_amount, schema)


def parts_of_time(usual: int, most: int) -> Parameter:
    """`columns`, with its default and the largest number."""

    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= most:
            raise ValueError(f"1 to {most}")
        return int(text)

    return Parameter(
        "columns",
        f"into how many equal parts of the time to sum up; default {usual}",
        parse,
        {"type": "integer", "minimum": 1, "maximum": most, "default": usual},
    )


LIMIT = Parameter(
    "limit",
    f"how many at most; default {DEFAULT_LIMIT}",
    _parse_limit,
    {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
)
EXPLAIN = flag(
    "explain",
    "also tell of each span, under `explain`, which attribute or event each field came from",
)
SINCE = Parameter("since", f"started at this time or later: {_TIME}", _parse_time, _TIME_SCHEMA)
UNTIL = Parameter("until", f"started before this time: {_TIME}", _parse_time, _TIME_SCHEMA)
WINDOW = Parameter(
    "window",
    "how far back from now a span may have started, such as `90s`, `5m`, `24h`, `7d`; "
    "without `since` and `until`",
    _parse_duration,
    _DURATION_SCHEMA,
)
BASELINE = Parameter(
    "baseline",
    "also tell the change against the time before the window, so long, such as `1h`",
    _parse_duration,
    _DURATION_SCHEMA,
)
STEP = Parameter(
    "step",
    "the time of one point, such as `10s`, `1m`; default `1m`",
    _parse_duration,
    _DURATION_SCHEMA,
)
OPERATION = Parameter(
    "operation",
    "count the spans of this operation, `*` for those of all; default: the requests",
    str,
    _STRING,
)
# The time, and which spans of it.
COUNTED = (OPERATION, WINDOW, SINCE, UNTIL)
METRIC = Parameter(
    "metric",
    "what to tell; default `p95_ms`; `aggregate` in the answer says whether it is a mean",
    _parse_metric,
    {**_STRING, "enum": list(METRICS)},
)
MODEL = Parameter("model", "the model's name", str, _STRING)
ENGINE = Parameter("engine", "the engine's name; `0` where a span names none", str, _STRING)
PRODUCER = Parameter(
    "producer",
    "which process recorded it, as `/ledger` names it",
    _parse_producer,
    TRACE_ID_SCHEMA,
)
COLUMNS = parts_of_time(240, MAX_COLUMNS)
SPAN_ID = Parameter(
    "span_id",
    "which span of the trace; default: the one that says most of what a request has",
    _parse_span_id,
    {**_STRING, "pattern": f"^{_SPAN_ID.pattern}$"},
)
SERVICE = Parameter("service", "the service's name", str, _STRING)
STATUS = Parameter("status", "how the span ended", _parse_status, {**_STRING, "enum": [*STATUSES]})
_MIN_DURATION = Parameter(
    "min_duration_ms",
    "took at least so many milliseconds",
    _parse_milliseconds,
    {"type": "number", "minimum": 0, "maximum": MAX_UNIX_NANOS // NANOS_PER_MS},
)
_RANGES = tuple(
    amount(f"{bound}_{measure.name}", f"`{measure.name}` is {word} so much, in {measure.unit}")
    for measure in MEASURES.values()
    for bound, word in (("min", "at least"), ("max", "at most"))
    if f"{bound}_{measure.name}" != _MIN_DURATION.name
)
TEXTS = tuple(
    Parameter(name, f"`{name}` is this text", str, _STRING)
    for name in DIMENSIONS
    if name not in ("model_name", "service_name", "operation_name", "status")
)
_CONDITIONS = (_MIN_DURATION, *_RANGES, *TEXTS, PRODUCER)
TRACE_ID = Parameter("trace_id", "32 hexadecimal digits", parse_trace_id, TRACE_ID_SCHEMA)
SPAN_PARAMETERS = (
    MODEL,
    SERVICE,
    Parameter("operation", "the operation's name", str, _STRING),
    STATUS,
    TRACE_ID,
    SINCE,
    UNTIL,
    *_CONDITIONS,
    flag("requests", "only requests of a model, which statistics count"),
    LIMIT,
    Parameter(
        "order",
        "by what to sort, the largest first: `start` (default, alone in pages) or a measure",
        _parse_order,
        {**_STRING, "enum": ["start", *MEASURES]},
    ),
    Parameter(
        "fields",
        "which keys to tell of each span, with commas between them; default: all",
        _parse_fields,
        {**_STRING, "pattern": f"^({'|'.join(_KEYS)})(,({'|'.join(_KEYS)}))*$"},
    ),
    flag("total", "count all spans that match, and tell it in the header `X-Total-Count`"),
    Parameter(
        "include",
        "what else to tell of each span: `resource`, the attributes of what recorded it",
        _parse_include,
        {**_STRING, "enum": ["resource"]},
    ),
    Parameter(
        "cursor",
        "the place to go on from: `X-Next-Cursor` of the page before",
        _parse_cursor,
        _STRING,
    ),
)
CHOSEN = (MODEL, SERVICE, *COUNTED, STATUS, *_CONDITIONS)
"""Of which spans a route tells that counts them: requests unless asked otherwise."""
ARRIVED = (MODEL, SERVICE, OPERATION, STATUS, *_CONDITIONS)
VALUE = Parameter(
    "value",
    "which number of a span; default `duration_ms`",
    _parse_measure,
    {**_STRING, "enum": list(MEASURES)},
)
BY = Parameter(
    "by",
    "in place of columns of the time: columns of this number of a span",
    _parse_measure,
    {**_STRING, "enum": list(MEASURES)},
)
SELECTED = (
    Parameter(
        "select_since", f"the selection starts then or later: {_TIME}", _parse_time, _TIME_SCHEMA
    ),
    Parameter("select_until", f"the selection starts before: {_TIME}", _parse_time, _TIME_SCHEMA),
    amount("select_min", "the selection has at least this `value`"),
    amount("select_max", "the selection has at most this `value`"),
    Parameter(
        "select_status", "the selection ended so", _parse_status, {**_STRING, "enum": [*STATUSES]}
    ),
)
OTHER_PERIOD = (
    Parameter(
        "baseline_since",
        f"compare with what started from then on, not with the rest: {_TIME}",
        _parse_time,
        _TIME_SCHEMA,
    ),
    Parameter("baseline_until", f"and before: {_TIME}", _parse_time, _TIME_SCHEMA),
)
FIELD = Parameter(
    "field",
    "whose values to tell: a text of spans, or `tag.KEY`, `attribute.KEY`, `resource.KEY`; "
    "default `model_name`",
    _parse_field,
    {**_STRING, "pattern": f"^({'|'.join(DIMENSIONS)}|(tag|attribute|resource)\\.[\\s\\S]+)$"},
)
PREFIX = Parameter("prefix", "only values that begin so", str, _STRING)
AFTER = Parameter(
    "after",
    "`next` of the answer before; default: all that is remembered",
    _parse_place,
    {"type": "integer", "minimum": 0, "maximum": MAX_AMOUNT},
)
OBJECTIVE = Parameter(
    "objective",
    "the share of requests that have to be good; default 0.99",
    _parse_objective,
    {"type": "number", "minimum": 0.0001, "maximum": 0.9999, "default": 0.99},
)
TARGET_PREFIX = "target_"
TARGETS = tuple(
    amount(f"{TARGET_PREFIX}{measure.name}", f"a good request has at most this `{measure.name}`")
    for measure in MEASURES.values()
    if measure.unit == "ms"
)
KEYED_PARAMETERS = (
    KeyedParameter("tag", "the span has this tag", "tags"),
    KeyedParameter(
        "attribute",
        "the span has this attribute: a text that is equal, `true` or `false`, or the same number",
        "attributes",
    ),
    KeyedParameter(
        "resource", "what recorded the span has this attribute, compared alike", "resource"
    ),
)
