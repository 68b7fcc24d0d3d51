"""Reads and validates proto/fields.toml."""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MESSAGES = ("Span", "InferenceContext", "ResourceMetrics")
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types of Protocol Buffers
MAX_FIELD_NUMBER = 2047  # the encoders write tags of one byte and of two

_METHOD = re.compile(r"(set_[a-z0-9_]+)\(([a-z][a-z0-9_]*)\)")
_NAME = re.compile(r"[a-z][a-z0-9_]*")


class TableError(ValueError):
    """The table has an error; the message names the field and what is allowed."""


@dataclass(frozen=True)
class Kind:
    """What a field holds: its type on the wire, in Python, and in a store's columns."""

    proto: str
    wire_type: int
    column: str
    form: str = ""
    """How the compiled decoder reads it, by its enum `form`."""
    python: str = ""
    upper: str = ""
    """The largest value, as an expression that both backends know."""
    values: str = ""
    """Of what is allowed, in words."""
    is_optional: bool = False
    sample: Any = None


KINDS: Mapping[str, Kind] = {
    "text": Kind("string", BYTES, "text", "TEXT", "str", sample="text"),
    "count": Kind(
        "int32", VARINT, "int32", "INT32", "int", "INT32_MAX", "0 or more", True, sample=7
    ),
    "measure": Kind(
        "float", FIXED32, "float32", "FLOAT", "float", "FLOAT32_MAX", "0 or more", True, sample=0.5
    ),
    "ratio": Kind("float", FIXED32, "float32", "FLOAT", "float", "1.0", "0 to 1", True, sample=0.5),
    "ordinal": Kind(
        "int64", VARINT, "int64", "INT64", "int", "INT64_MAX", "0 or more", True, sample="7"
    ),
    "intervals": Kind(
        "TokenIntervals",
        BYTES,
        "intervals",
        "INTERVALS",
        "Sequence[int]",
        values="the bucket of the first count, and the counts",
        sample={"offset": 160, "counts": [3, 1]},
    ),
    "reading": Kind("double", FIXED64, "float64", "DOUBLE", "float", is_optional=True, sample=0.5),
    "size": Kind("int64", VARINT, "int64", "INT64", "int", is_optional=True, sample="7"),
    "total": Kind("uint32", VARINT, "int64", "TOTAL", sample=7),
    "span_kind": Kind("SpanKind", VARINT, "span_kind", "ENUM", sample="SPAN_KIND_SERVER"),
    "trace_id": Kind("bytes", BYTES, "uuid", "ID"),
    "span_id": Kind("bytes", BYTES, "span_id", "ID"),
    "time": Kind("int64", VARINT, "time", "INT64"),
    "duration": Kind("int64", VARINT, "duration", "INT64"),
    "tags": Kind("map<string, string>", BYTES, "json"),
    "attributes": Kind("map<string, AttributeValue>", BYTES, "json"),
    "events": Kind("repeated Event", BYTES, "json"),
    "links": Kind("repeated Link", BYTES, "json"),
    **{message: Kind(message, BYTES, "") for message in MESSAGES[1:]},
}
# The kinds that a span's setters can set.
SETTABLE = ("text", "count", "measure", "ratio", "ordinal", "intervals")
# Those of them that no span has room for.
ALWAYS_APART = ("ordinal", "intervals")
# Keywords of start_span, record and record_batch that are neither fields nor columns.
OTHER_KEYWORDS = ("parent", "start_ns", "duration_ns")
# Methods of a span that the table does not make.
OTHER_SETTERS = ("set_attribute", "set_status", "set_tag")


@dataclass(frozen=True)
class Field:
    """One line of the table."""

    message: str
    name: str
    number: int
    kind_name: str
    since: str
    unit: str = ""
    description: str = ""
    shown: str = ""
    setter: str = ""
    apart: bool = False
    """Whether a span has memory for it only once it is set."""
    column: str = ""
    answer: str = ""
    required: bool = False
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        return KINDS[self.kind_name]

    @property
    def tag(self) -> bytes:
        """The field's tag on the wire, one byte or two."""
        value = self.number << 3 | self.kind.wire_type
        return bytes((value,)) if value < 0x80 else bytes((value & 0x7F | 0x80, value >> 7))

    @property
    def tag_number(self) -> int:
        """The bytes of the tag as a little-endian number, so the first byte is the lowest."""
        return int.from_bytes(self.tag, "little")

    @property
    def column_name(self) -> str:
        return self.column or self.name

    @property
    def constant(self) -> str:
        """Its name among constants of C."""
        return self.column_name.upper()

    @property
    def allowed(self) -> str:
        """Unit and range, in words."""
        return ", ".join(part for part in (self.unit, self.kind.values) if part)

    @property
    def is_set_by_users(self) -> bool:
        """Whether a span has a method for it."""
        return self.message == "InferenceContext" and self.setter != "start_span"

    @property
    def method(self) -> tuple[str, str]:
        """The method of a span that sets it, and that method's parameter."""
        setter = self.setter or f"set_{self.name}(value)"
        result = _METHOD.fullmatch(setter)
        if not result or result[1] in OTHER_SETTERS or keyword.iskeyword(result[2]):
            raise TableError(
                f"{self.message}.{self.name}: setter: expected set_name(parameter), "
                f"none of {', '.join(OTHER_SETTERS)}, got {setter!r}"
            )
        return result[1], result[2]


@dataclass(frozen=True)
class Method:
    """A setter of a span: one field, or several that are optional."""

    name: str
    fields: Sequence[Field]
    documentation: str

    @property
    def is_single(self) -> bool:
        return len(self.fields) == 1


@dataclass(frozen=True)
class Table:
    """All fields, in the order of the file."""

    fields: Sequence[Field]
    setters: Mapping[str, str]

    def of(self, message: str) -> list[Field]:
        """The fields of a message in the order of the file."""
        return [it for it in self.fields if it.message == message]

    @property
    def tagged_by_name(self) -> list[Field]:
        """The fields that the encoders write by hand, with a constant for the tag."""
        others = ("model_name", "sample_age_ms")
        return [it for it in self.fields if it.message == "Span" or it.name in others]

    def by_number(self, message: str) -> list[Field]:
        """The fields of a message in the order of their numbers."""
        return sorted(self.of(message), key=lambda it: it.number)

    @property
    def columns(self) -> list[tuple[str, Field]]:
        """The fields that are columns, in order, each with its path in the message Span."""
        result = []
        for outer in self.of("Span"):
            if outer.kind_name in MESSAGES:
                result += [(f"{outer.name}.{it.name}", it) for it in self.of(outer.kind_name)]
            else:
                result.append((outer.name, outer))
        return result

    def settable(self, *kinds: str) -> list[Field]:
        """The fields with a setter, of these kinds, in the order of the file."""
        return [
            it
            for it in self.of("InferenceContext")
            if it.is_set_by_users and (not kinds or it.kind_name in kinds)
        ]

    @property
    def keywords(self) -> list[Field]:
        """The fields that are keywords of start_span(): texts, then numbers."""
        return [*self.settable("text"), *self.numbers, *self.settable("intervals")]

    @property
    def numbers(self) -> list[Field]:
        """Those that are one number: counts, measures, ordinals; those that are apart last."""
        found = [*self.settable("count"), *self.measures, *self.settable("ordinal")]
        return sorted(found, key=lambda it: it.apart)

    @property
    def measures(self) -> list[Field]:
        return self.settable("measure", "ratio")

    @property
    def methods(self) -> list[Method]:
        """The setters of a span."""
        grouped: dict[str, list[Field]] = {}
        for it in self.settable():
            grouped.setdefault(it.method[0], []).append(it)
        return [
            Method(name, fields, self.setters.get(name) or _documentation(fields))
            for name, fields in grouped.items()
        ]


def _documentation(fields: Sequence[Field]) -> str:
    said = []
    for it in fields:
        text = it.description or f"{it.name.replace('_', ' ').capitalize()}."
        unit = "" if it.unit in text.lower() else it.unit
        allowed = ", ".join(part for part in (unit, it.kind.values) if part)
        said.append(f"{text.rstrip('.')}; {allowed}." if allowed else text)
    return " ".join(said)


def read(path: Path) -> Table:
    """Read the table; raises TableError."""
    with path.open("rb") as file:
        try:
            content = tomllib.load(file)
        except tomllib.TOMLDecodeError as error:
            raise TableError(f"{path.name}: {error}") from None
    unknown = content.keys() - {*MESSAGES, "setters"}
    if unknown:
        raise TableError(f"{path.name}: expected tables {', '.join(MESSAGES)}, got {unknown}")
    fields = [
        _field(message, name, declared)
        for message in MESSAGES
        for name, declared in content.get(message, {}).items()
    ]
    for message in MESSAGES:
        numbers = [it.number for it in fields if it.message == message]
        for number in numbers:
            if numbers.count(number) > 1:
                raise TableError(f"{message}: the number {number} is used twice")
    names = [it.column_name for it in fields if it.kind.column]
    for name in names:
        if names.count(name) > 1:
            raise TableError(f"the column {name} is declared twice")
    table = Table(fields, content.get("setters", {}))
    for name in table.setters.keys() - {method.name for method in table.methods}:
        raise TableError(f"setters: no field is set by {name}")
    for method in table.methods:
        if len({it.method[1] for it in method.fields}) < len(method.fields):
            raise TableError(f"{method.name}: two fields have the same parameter")
    return table


def _field(message: str, name: str, declared: Mapping[str, Any]) -> Field:
    where = f"{message}.{name}"
    allowed = {key for key in Field.__dataclass_fields__ if key not in ("message", "name")}
    allowed = allowed - {"kind_name"} | {"kind"}
    for key in declared:
        if key not in allowed:
            raise TableError(f"{where}: expected {', '.join(sorted(allowed))}, got {key!r}")
    for key in ("number", "kind", "since"):
        if key not in declared:
            raise TableError(f"{where}: {key} is missing")
    if declared["kind"] not in KINDS:
        raise TableError(f"{where}: kind: expected {', '.join(KINDS)}, got {declared['kind']!r}")
    number = declared["number"]
    if type(number) is not int or not 1 <= number <= MAX_FIELD_NUMBER:
        raise TableError(f"{where}: number: expected 1 to {MAX_FIELD_NUMBER}, got {number!r}")
    if not _NAME.fullmatch(name) or keyword.iskeyword(name) or name in OTHER_KEYWORDS:
        raise TableError(
            f"{where}: expected a name in lower case, neither a keyword of Python nor one of "
            f"{', '.join(OTHER_KEYWORDS)}"
        )
    rest = {key: value for key, value in declared.items() if key != "kind"}
    made = Field(message=message, name=name, kind_name=declared["kind"], **rest)
    if made.is_set_by_users:
        if made.kind_name not in SETTABLE:
            raise TableError(f"{where}: kind: expected one of {', '.join(SETTABLE)}")
        if made.kind_name in ALWAYS_APART and not made.apart:
            raise TableError(f"{where}: apart: expected true for the kind {made.kind_name}")
        _ = made.method
    elif made.apart:
        raise TableError(f"{where}: apart: expected only where a span has a setter")
    return made
