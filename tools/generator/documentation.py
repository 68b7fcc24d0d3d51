"""docs/fields.md."""

from __future__ import annotations

from generator.field_table import MESSAGES, Field, Table

HEAD = """# Fields

What a span holds. Generated from [proto/fields.toml](../proto/fields.toml) by
`python tools/generate.py`, which is where to change it. The setters are methods of a span; each
field of `InferenceContext` but the model's name is a keyword of `start_span` and `record` and a
column of `record_batch`. What requests, steps and their tokens are says
[requests.md](requests.md). A store has a column for each field, under the name that the
answers over HTTP use.
"""
TITLES = {
    "Span": "The span",
    "InferenceContext": "What the model did",
    "ResourceMetrics": "What the machine did",
}


def fields_page(table: Table) -> str:
    """A table for each message."""
    lines = [HEAD.rstrip()]
    for message in MESSAGES:
        lines += [
            "",
            f"## {TITLES[message]}: `{message}`",
            "",
            "| field | number | on the wire | unit, range | set by | in answers | says |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        lines += [_row(it) for it in table.by_number(message) if it.kind.column]
    return "\n".join(lines) + "\n"


def _row(it: Field) -> str:
    setter = f"`{it.method[0]}({it.method[1]}=)`" if it.is_set_by_users else ""
    cells = (
        f"`{it.name}`",
        str(it.number),
        f"`{it.kind.proto}`",
        it.allowed,
        setter,
        f"`{it.answer or it.column_name}`",
        it.description or it.shown,
    )
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
