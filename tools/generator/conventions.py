"""Reads and validates proto/conventions.toml, and makes the tables of both translators of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from generator import c_code, python_code
from generator.field_table import Table, TableError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ALWAYS: Final = "always"
CONVENTIONS: Final = ("otel", "openinference", "langfuse")
PREFIX: Final = "infertrace."
MAX_SOURCES: Final = 64  # a translator has a bit for each
MAX_KEY_BYTES: Final = 60
ENTRY_ROOM: Final = 96

# How a translator reads a field of that kind.
READS: Final = {
    "text": "TEXT",
    "count": "INT32",
    "ordinal": "INT64",
    "intervals": "INTERVALS",
    "size": "INT64",
    "total": "UINT32",
    "measure": "FLOAT",
    "ratio": "FLOAT",
    "reading": "DOUBLE",
}
MESSAGES: Final = ("InferenceContext", "ResourceMetrics")
# What a translator derives, before the fields in its order, and after them.
DERIVED_FIRST: Final = {"operation": "TEXT"}
DERIVED_LAST: Final = {
    "duration_nanos": "INT64",
    "total_tokens": "INT64",
    "usage": "USAGE",
    "operation_name": "TEXT",
    "error_type": "TEXT",
    "status": "TEXT",
    "invalid_field_count": "INT64",
}
# The others: INT.
PLAIN_FORMS: Final = {
    "TEXT": "TEXT",
    "FLOAT": "DOUBLE",
    "DOUBLE": "DOUBLE",
    "INTERVALS": "INTERVALS",
}
FORMS: Final = ("seconds", "list", "iso_time", "json", "event")
# With these a receiver finds the field's own value in the attribute.
CARRYING: Final = ("", "seconds", "list")


@dataclass(frozen=True)
class Source:
    """What an attribute's value comes from."""

    name: str
    read: str
    message: str = ""
    """Empty for what is derived."""
    number: int = 0

    @property
    def constant(self) -> str:
        return f"OTLP_{self.name.upper()}"


@dataclass(frozen=True)
class Row:
    """One attribute."""

    key: str
    source: Source
    convention: str
    """`always`, one of the conventions, or empty: where none that is chosen carries the field."""
    form: str = ""
    value: str | bool | None = None

    @property
    def written(self) -> str:
        """The form as the translators know it."""
        if self.value is not None:
            return "CONSTANT"
        if self.form == "seconds":
            return "NANOSECONDS" if self.source.name == "duration_nanos" else "MILLISECONDS"
        return self.form.upper() or PLAIN_FORMS.get(self.source.read, "INT")

    @property
    def carries(self) -> bool:
        return self.value is None and self.form in CARRYING

    @property
    def bits(self) -> int:
        """The conventions that it belongs to; all for `always`, 0 where none carries the field."""
        if self.convention == ALWAYS:
            return (1 << len(CONVENTIONS)) - 1
        return 1 << CONVENTIONS.index(self.convention) if self.convention else 0

    @property
    def entry(self) -> bytes:
        """The encoded KeyValue as far as it does not depend on the span; an event's name."""
        key = self.key.encode()
        if self.form == "event":
            return key
        head = b"\x0a%c%b\x12" % (len(key), key)
        if self.value is None:
            return head
        if self.value is True or self.value is False:
            return head + bytes((2, 0x10, self.value))
        text = str(self.value).encode()
        return head + bytes((len(text) + 2, 0x0A, len(text))) + text


@dataclass(frozen=True)
class Conventions:
    """All sources and rows, in the order in which a translator writes."""

    sources: Sequence[Source]
    rows: Sequence[Row]

    def carried(self, source: Source) -> int:
        """The conventions that carry it, as bits."""
        found = 0
        for row in self.rows:
            if row.source is source and row.carries:
                found |= row.bits
        return found

    def fields_of(self, message: str) -> list[Source]:
        return sorted(
            (it for it in self.sources if it.message == message), key=lambda it: it.number
        )


def read(path: Path, table: Table) -> Conventions:
    """Read the file against the table of fields; raises TableError."""
    with path.open("rb") as file:
        try:
            content = tomllib.load(file)
        except tomllib.TOMLDecodeError as error:
            raise TableError(f"{path.name}: {error}") from None
    expected = (ALWAYS, *CONVENTIONS)
    if tuple(content) != expected:
        raise TableError(f"{path.name}: expected tables {', '.join(expected)}, got {list(content)}")
    sources = list(_sources(table))
    if len(sources) > MAX_SOURCES:
        raise TableError(f"{path.name}: expected at most {MAX_SOURCES} fields, got {len(sources)}")
    by_name = {it.name: it for it in sources}
    rows = [
        _row(convention, key, declared, by_name)
        for convention in (*CONVENTIONS, ALWAYS)
        for key, declared in content[convention].items()
    ]
    rows += [Row(PREFIX + it.name, it, "") for it in sources if it.message]
    rows.sort(key=lambda row: sources.index(row.source))
    return Conventions(sources, rows)


def _sources(table: Table) -> Iterator[Source]:
    for name, read_as in DERIVED_FIRST.items():
        yield Source(name, read_as)
    for message in MESSAGES:
        for it in table.by_number(message):
            if it.kind_name in READS:
                yield Source(it.name, READS[it.kind_name], message, it.number)
    for name, read_as in DERIVED_LAST.items():
        yield Source(name, read_as)


def _row(
    convention: str, key: str, declared: Mapping[str, Any], sources: Mapping[str, Source]
) -> Row:
    where = f"{convention}, {key}"
    allowed = ("from", "form", "value")
    for name in declared:
        if name not in allowed:
            raise TableError(f"{where}: expected {', '.join(allowed)}, got {name!r}")
    source = sources.get(declared.get("from", ""))
    if source is None:
        raise TableError(f"{where}: from: expected a field, got {declared.get('from')!r}")
    form = declared.get("form", "")
    if form and form not in FORMS:
        raise TableError(f"{where}: form: expected {', '.join(FORMS)}, got {form!r}")
    if not 0 < len(key.encode()) <= MAX_KEY_BYTES:
        raise TableError(f"{where}: expected a name of 1 to {MAX_KEY_BYTES} bytes")
    row = Row(key, source, convention, form, declared.get("value"))
    if len(row.entry) > ENTRY_ROOM:
        raise TableError(f"{where}: value: expected a shorter one")
    return row


def fnv1a(data: bytes) -> int:
    """The hash by which the compiled translator finds a key. Source: RFC 9923, 32 bits."""
    found = 0x811C9DC5
    for byte in data:
        found = (found ^ byte) * 0x01000193 & 0xFFFFFFFF
    return found


def _literal(data: bytes) -> str:
    """As C writes it; octal, since a hexadecimal escape has no end."""
    plain = set(range(0x20, 0x7F)) - set(b'"\\?')
    return "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in data)


def c_tables(conventions: Conventions) -> str:
    """The tables of the compiled translator."""
    head = c_code.HEADER.replace("fields.toml", "conventions.toml and fields.toml")
    names = ", ".join(it.constant for it in conventions.sources)
    forms = ", ".join(f"OTLP_AS_{form}" for form in _written(conventions))
    reads = ", ".join(f"OTLP_READ_{read}" for read in dict.fromkeys(READS.values()))
    room = sum(len(row.entry) + 24 for row in conventions.rows)
    lines = [
        head,
        "#ifndef INFERTRACE_OTLP_ATTRIBUTES_H",
        "#define INFERTRACE_OTLP_ATTRIBUTES_H",
        "",
        "#include <stdint.h>",
        "",
        "/* Where values come from, in the order in which attributes are written. */",
        "enum {",
        *c_code._wrapped(f"{names}, OTLP_SOURCE_COUNT"),
        "};",
        "",
        "enum {",
        *c_code._wrapped(f"OTLP_READ_NONE, {reads}"),
        "};",
        "",
        "enum {",
        *c_code._wrapped(forms),
        "};",
        "",
        "typedef struct {",
        "    uint8_t source;",
        "    uint8_t read;",
        "} otlp_field;",
        "",
        "typedef struct {",
        "    uint8_t source;",
        "    uint8_t form;",
        "    uint8_t conventions; /* bits; 0: where none of `carried` is chosen */",
        "    uint8_t carried;",
        "    uint8_t key_size;",
        "    uint8_t entry_size;",
        "    uint32_t hash;",
        "    const char *key;",
        f"    char entry[{ENTRY_ROOM}]; /* copied whole */",
        "} otlp_row;",
        "",
        f"#define OTLP_ENTRY_ROOM {ENTRY_ROOM}",
        "",
        "/* Bytes that all attributes of a span take at most, without their texts. */",
        f"#define OTLP_ATTRIBUTES_ROOM {room}",
    ]
    for message, constant in zip(MESSAGES, ("INFERENCE", "RESOURCE"), strict=True):
        lines += ["", "/* By the number of the field. */"]
        lines.append(f"static const otlp_field OTLP_{constant}_FIELDS[] = {{")
        lines += [
            f"    [{it.number}] = {{{it.constant}, OTLP_READ_{it.read}}},"
            for it in conventions.fields_of(message)
        ]
        lines.append("};")
    lines += ["", "/* In the order of their sources. */", "static const otlp_row OTLP_ROWS[] = {"]
    for row in conventions.rows:
        numbers = (
            row.bits,
            conventions.carried(row.source),
            len(row.key.encode()),
            len(row.entry),
        )
        lines += [
            f"    {{{row.source.constant}, OTLP_AS_{row.written}, "
            f"{', '.join(map(str, numbers))}, 0x{fnv1a(row.key.encode()):08X},",
            f'     "{_literal(row.key.encode())}", "{_literal(row.entry)}"}},',
        ]
    return "\n".join([*lines, "};", "", "#endif", ""])


def _written(conventions: Conventions) -> list[str]:
    return list(dict.fromkeys(row.written for row in conventions.rows))


def python_tables(conventions: Conventions) -> str:
    """The tables of the translator in Python."""
    head = python_code.HEADER.format(purpose="What our fields are called in OTLP.")
    lines = [
        head.replace("fields.toml", "conventions.toml and fields.toml")
        + "from collections.abc import Mapping\nfrom typing import Final\n",
        f"CONVENTIONS: Final = {CONVENTIONS!r}",
        '"""What `conventions=` may name; each is a bit, the first the lowest."""',
        "",
    ]
    for message, constant in zip(MESSAGES, ("INFERENCE", "RESOURCE"), strict=True):
        lines.append(f"{constant}_FIELDS: Final[Mapping[int, tuple[str, str]]] = {{")
        lines += [
            f"    {it.number}: ({it.name!r}, {it.read!r})," for it in conventions.fields_of(message)
        ]
        lines += ["}", '"""By number: the name, and how it is read."""', ""]
    lines.append("ROWS: Final[tuple[tuple[str, str, int, int, str, bytes], ...]] = (")
    for row in conventions.rows:
        cells = (
            row.source.name,
            row.written,
            row.bits,
            conventions.carried(row.source),
            row.key,
            row.entry,
        )
        lines.append(f"    {cells!r},")
    lines += [
        ")",
        '"""Source, form, conventions as bits (0: where none of those that carry the source is',
        'chosen), those that carry it, key, and the encoded entry as far as it is constant."""',
    ]
    return "\n".join(lines) + "\n"


BEGIN: Final = "<!-- names: generated from proto/conventions.toml -->\n"
END: Final = "<!-- end of names -->\n"


def page_with_names(page: str, conventions: Conventions) -> str:
    """docs/otlp.md with the table of the names in it."""
    before, found, rest = page.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (found and ended):
        raise ValueError("docs/otlp.md: expected the marks of the table of names")
    return before + BEGIN + _names(conventions) + END + after


def _names(conventions: Conventions) -> str:
    lines = [
        "",
        f"| field | {' | '.join(f'`{name}`' for name in CONVENTIONS)} | otherwise |",
        f"| --- | {' | '.join('---' for _ in CONVENTIONS)} | --- |",
    ]
    for source in conventions.sources:
        cells = [
            "<br>".join(
                _shown(row)
                for row in conventions.rows
                if row.source is source and row.convention == convention
            )
            for convention in CONVENTIONS
        ]
        always = "<br>".join(
            _shown(row)
            for row in conventions.rows
            if row.source is source and row.convention in ("", ALWAYS)
        )
        lines.append(f"| `{source.name}` | {' | '.join(cells)} | {always} |")
    return "\n".join([*lines, "", ""])


def _shown(row: Row) -> str:
    said = {"seconds": "s", "list": "array", "iso_time": "time", "json": "JSON", "event": "event"}
    note = json.dumps(row.value) if row.value is not None else said.get(row.form, "")
    if row.value is not None:
        return f"`{row.key}` = {note}"
    return f"`{row.key}`{f' ({note})' if note else ''}"
