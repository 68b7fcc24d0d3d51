"""Reads and validates proto/dialects.toml, and writes its tables."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generator.c_code import HEADER as C_HEADER
from generator.field_table import Field, Table, TableError
from generator.python_code import HEADER as PYTHON_HEADER

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_SOURCES = 256  # the translator has a bit for each
# How a source is read; those that the compiled translator reads itself come first, in its order.
COMPILED_FORMS = (
    "text",
    "label",
    "count",
    "seconds",
    "ms",
    "measure",
    "ratio",
    "reading",
    "size",
    "reasons",
    "json_text",
    "per_token",
    "share",
    "event",
    "scope",
    "intervals",
)
OTHER_FORMS = ("duration", "instant", "json", "event_since")
USUAL_FORMS = {
    "text": "text",
    "count": "count",
    "measure": "measure",
    "ratio": "ratio",
    "reading": "reading",
    "size": "size",
    "ordinal": "size",
    "intervals": "intervals",
}
SOURCE_KEYS = {"key", "event", "scope", "as", "is", "since", "of", "path"}


@dataclass(frozen=True)
class Source:
    """Where a field may come from: a name, how that is read, and what that needs to know."""

    name: str
    form: str
    detail: str = ""


@dataclass(frozen=True)
class Target:
    """A field with its sources, the first of which counts."""

    field: Field
    sources: Sequence[Source]


def read_targets(path: Path, table: Table) -> list[Target]:
    """The fields of the table with their sources; raises TableError."""
    with path.open("rb") as file:
        try:
            content = tomllib.load(file)
        except tomllib.TOMLDecodeError as error:
            raise TableError(f"{path.name}: {error}") from None
    fields = {
        it.name: it
        for message in ("InferenceContext", "ResourceMetrics")
        for it in table.of(message)
    }
    if unknown := content.keys() - fields.keys():
        raise TableError(f"{path.name}: no such field: {', '.join(sorted(unknown))}")
    targets = []
    # Those with sources first, in their order: some need what came before them.
    for name in [*content, *(name for name in fields if name not in content)]:
        it = fields[name]
        own = Source(f"infertrace.{name}", USUAL_FORMS[it.kind_name])
        declared = content.get(name, {}).get("sources", [])
        others = [_source(f"{path.name}: {name}", it, given) for given in declared]
        targets.append(Target(it, [own, *others]))
    if (count := sum(len(target.sources) for target in targets)) > MAX_SOURCES:
        raise TableError(f"{path.name}: room for {MAX_SOURCES} sources, got {count}")
    return targets


def _source(where: str, it: Field, given: str | Mapping[str, Any]) -> Source:
    if isinstance(given, str):
        return Source(given, USUAL_FORMS[it.kind_name])
    if unknown := given.keys() - SOURCE_KEYS:
        raise TableError(f"{where}: expected {', '.join(sorted(SOURCE_KEYS))}, got {unknown}")
    if "event" in given:
        since = given.get("since", "")
        return Source(given["event"], "event_since" if since else "event", since)
    if "scope" in given:
        return Source(given["scope"], "scope", given["is"])
    form = given.get("as", "")
    if "key" not in given or form not in (*COMPILED_FORMS, *OTHER_FORMS):
        raise TableError(f"{where}: expected a key, and one of the forms, got {dict(given)}")
    return Source(given["key"], form, given.get("path") or given.get("of", ""))


def dialect_sources(targets: Sequence[Target]) -> str:
    """The table in Python."""
    lines = [
        PYTHON_HEADER.format(purpose="Where the fields of a span come from in OTLP.").replace(
            "fields.toml", "dialects.toml"
        )
        + "from typing import Final\n",
        "DIALECT_SOURCES: Final = (",
    ]
    for target in targets:
        it = target.field
        rows = "".join(f"({s.name!r}, {s.form!r}, {s.detail!r})," for s in target.sources)
        lines.append(f"    ({it.name!r}, ({rows})),")
    lines += [
        ")",
        '"""Field and sources; a source is a name, how it is read, and what that needs to know."""',
        "",
        "CONTEXT_FIELDS: Final = (",
    ]
    for message in ("InferenceContext", "ResourceMetrics"):
        lines.append(f"    ({message!r}, (")
        for it in sorted((t.field for t in targets if t.field.message == message), key=_number):
            lines.append(f"        ({it.name!r}, {it.tag!r}, {it.kind_name!r}),")
        lines.append("    )),")
    lines += [
        ")",
        '"""By message, the fields in the order of their numbers: name, tag, kind."""',
    ]
    return "\n".join(lines) + "\n"


def _number(it: Field) -> int:
    return it.number


def dialect_header(targets: Sequence[Target]) -> str:
    """The table in C."""
    header = C_HEADER.replace("fields.toml", "dialects.toml")
    lines = [
        header,
        "#ifndef INFERTRACE_DIALECT_SOURCES_H",
        "#define INFERTRACE_DIALECT_SOURCES_H",
        "",
        "#include <stdint.h>",
        "",
        "enum dialect_form {",
        *(f"    AS_{form.upper()}," for form in COMPILED_FORMS),
        "    AS_OTHER",
        "};",
        "",
        "enum dialect_target_name {",
        *(f"    TARGET_{target.field.name.upper()}," for target in targets),
        "    TARGET_COUNT",
        "};",
        "",
        "typedef struct {",
        "    const char *name;",
        "    uint8_t size;",
        "    uint8_t form;",
        "    uint8_t target;",
        "    uint8_t one; /* of a share: the targets of its two counts */",
        "    uint8_t other;",
        "} dialect_source;",
        "",
        "/* By target, and the first that is present counts. */",
        "static const dialect_source DIALECT_SOURCES[] = {",
    ]
    places = {target.field.name: number for number, target in enumerate(targets)}
    sources = [(target, source) for target in targets for source in target.sources]
    for target, source in sources:
        form = source.form.upper() if source.form in COMPILED_FORMS else "OTHER"
        one, other = 0, 0
        if source.form == "share":
            one, other = places[source.name], places[source.detail]
        size = len(source.name.encode())
        lines.append(
            f'    {{"{source.name}", {size}, AS_{form}, {places[target.field.name]}, '
            f"{one}, {other}}},"
        )
    asked = [n for n, (_, s) in enumerate(sources) if s.form in ("scope", "share")]
    words = [
        sum(1 << n % 64 for n in asked if n // 64 == word) for word in range(-(-len(sources) // 64))
    ]
    lines += [
        "};",
        f"enum {{ SOURCE_COUNT = {len(sources)}, SOURCE_WORDS = {len(words)} }};",
        "",
        "/* A bit for each source that is no attribute or event of the span. */",
        "static const uint64_t ASKED_OF_EACH_SPAN[] = {",
        *(f"    {word:#018x}u," for word in words),
        "};",
        "",
    ]
    named = {
        "KEYS": [n for n, (_, s) in enumerate(sources) if not _is_other_place(s)],
        "EVENTS": [n for n, (_, s) in enumerate(sources) if s.form in ("event", "event_since")],
    }
    for constant, numbers in named.items():
        lines += _by_size(constant, [(len(sources[n][1].name.encode()), n) for n in numbers])
    lines += [
        "typedef struct {",
        "    uint8_t target;",
        "    uint16_t tag; /* the first byte is the lowest */",
        "    uint8_t kind;",
        "} context_field;",
        "",
        "enum {",
        "    KIND_OF_TEXT, KIND_OF_COUNT, KIND_OF_MEASURE, KIND_OF_READING, KIND_OF_SIZE,",
        "    KIND_OF_INTERVALS",
        "};",
        "",
    ]
    kinds = {
        "text": "TEXT",
        "count": "COUNT",
        "measure": "MEASURE",
        "ratio": "MEASURE",
        "reading": "READING",
        "size": "SIZE",
        "ordinal": "SIZE",
        "intervals": "INTERVALS",
    }
    for message, constant in (("InferenceContext", "INFERENCE"), ("ResourceMetrics", "RESOURCE")):
        lines.append(f"/* {message}, by number. */")
        lines.append(f"static const context_field {constant}_CONTEXT[] = {{")
        for it in sorted((t.field for t in targets if t.field.message == message), key=_number):
            lines.append(
                f"    {{TARGET_{it.name.upper()}, {it.tag_number:#06x}, "
                f"KIND_OF_{kinds[it.kind_name]}}},"
            )
        lines.append("};")
    return "\n".join([*lines, "", "#endif", ""])


PAGE_HEAD = """# Dialects

Which attribute or event of OTLP each field of a span comes from. Generated from
[proto/dialects.toml](../proto/dialects.toml) by `python tools/generate.py`, which is where to
change it. The first source counts that a span has and that can be understood; the attribute itself
always stays. `GET /traces/{id}?explain=1` says of each span which source it was.

Before these, each field has the attribute `infertrace.FIELD`, in the field's own unit, which is
what infertrace writes when it sends OTLP. Numbers may be texts. A number that makes no sense is
counted in `invalid_field_count`, and the next source is asked. Latencies in seconds cannot be
longer than their span: some senders write milliseconds or nanoseconds under the same name, and
these are tried then.

A span that is about a model and names none, as those of vLLM, gets the one that
`--default-model SERVICE=MODEL` gives its service, or the only one that its service ever named.
"""
_AS_WORDS = {
    "seconds": "seconds",
    "ms": "milliseconds",
    "duration": "such as 1.5ms",
    "instant": "a time, from the start",
    "reasons": "several, with commas between them",
    "json": "JSON, {detail}",
    "json_text": "a text, or JSON of one",
    "per_token": "seconds, for each output token after the first",
    "event": "event, from the start",
    "event_since": "event, from the event {detail}",
    "scope": "scope that begins so: {detail}",
    "share": "of `{detail}`",
}


def dialects_page(targets: Sequence[Target]) -> str:
    """docs/dialects.md."""
    lines = [PAGE_HEAD.rstrip(), "", "| field | sources, the first that counts |", "| --- | --- |"]
    for target in targets:
        said = []
        for source in target.sources[1:]:
            words = _AS_WORDS.get(source.form, "").format(detail=source.detail)
            said.append(f"`{source.name}`" + (f" ({words})" if words else ""))
        if said:
            lines.append(f"| `{target.field.name}` | {'<br>'.join(said)} |")
    return "\n".join(lines) + "\n"


def _is_other_place(source: Source) -> bool:
    return source.form in ("event", "event_since", "scope", "share")


def _by_size(constant: str, sized: list[tuple[int, int]]) -> list[str]:
    """Sources in the order of their names' lengths, and where each length begins."""
    sized.sort()
    longest = sized[-1][0]
    starts = [sum(size < length for size, _ in sized) for length in range(longest + 2)]
    numbers = ", ".join(str(number) for _, number in sized)
    return [
        "/* Sources by the length of their names, and where each length begins. */",
        f"static const uint8_t {constant}_BY_SIZE[] = {{{numbers}}};",
        f"static const uint8_t {constant}_START[] = {{{', '.join(map(str, starts))}}};",
        f"enum {{ {constant}_LONGEST = {longest} }};",
        "",
    ]
