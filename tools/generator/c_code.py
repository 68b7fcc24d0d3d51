"""The fields of the compiled decoder."""

from __future__ import annotations

import textwrap

from generator.field_table import MESSAGES, Table, TableError

HEADER = "/* Generated from proto/fields.toml by tools/generate.py, which is where to change it. */"
WIDTH = 100
MAX_COLUMNS = 255  # the decoder knows a column by one byte
# Bytes of a value in a column; a column of texts has offsets instead.
COLUMN_BYTES = {
    "uuid": 16,
    "span_id": 8,
    "time": 8,
    "duration": 8,
    "int32": 4,
    "span_kind": 4,
    "int64": 8,
    "float32": 4,
    "float64": 8,
    "text": 0,
    "json": 0,
    "intervals": 0,
}


def decoder_fields(table: Table) -> str:
    """Columns, and which field of a message goes to which."""
    columns = [it for _, it in table.columns]
    if len(columns) > MAX_COLUMNS:
        raise TableError(f"the decoder has room for {MAX_COLUMNS} columns, got {len(columns)}")
    names = ", ".join(it.constant for it in columns)
    sizes = ", ".join(str(COLUMN_BYTES[it.kind.column]) for it in columns)
    parts = [
        HEADER,
        "#ifndef INFERTRACE_DECODER_FIELDS_H",
        "#define INFERTRACE_DECODER_FIELDS_H",
        "",
        "enum {",
        *_wrapped(f"{names}, COLUMN_COUNT"),
        "};",
        "",
        "/* Bytes of a value, 0 for a text or bytes. */",
        "static const int COLUMN_KINDS[COLUMN_COUNT] = {",
        *_wrapped(f"{sizes},"),
        "};",
        "",
        "enum form {",
        "    FORM_NONE, FORM_ID, FORM_TEXT, FORM_INT32, FORM_INT64, FORM_FLOAT, FORM_DOUBLE,",
        "    FORM_TOTAL, FORM_ENUM, FORM_INTERVALS",
        "};",
        "",
        "typedef struct {",
        "    unsigned char column;",
        "    unsigned char form;",
        "} wire_field;",
        "",
        "/* By the number of the field. */",
    ]
    for message, constant in zip(MESSAGES, ("SPAN", "INFERENCE", "RESOURCE"), strict=True):
        fields = [it for it in table.by_number(message) if it.kind.form]
        parts.append(f"static const wire_field {constant}_FIELDS[] = {{")
        parts += [f"    [{it.number}] = {{{it.constant}, FORM_{it.kind.form}}}," for it in fields]
        parts.append("};")
    return "\n".join([*parts, "", "#endif", ""])


def resource_tags(table: Table) -> str:
    """Tags of the fields that the recorder's samplers write."""
    defines = [
        f"#define INFERTRACE_{it.name.upper()}_TAG 0x{it.tag.hex().upper()}"
        for it in table.by_number("ResourceMetrics")
        if len(it.tag) == 1
    ]
    guard = "INFERTRACE_RESOURCE_TAGS_H"
    head = [HEADER, f"#ifndef {guard}", f"#define {guard}", ""]
    return "\n".join([*head, *defines, "", "#endif", ""])


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="    ", subsequent_indent="    ")
