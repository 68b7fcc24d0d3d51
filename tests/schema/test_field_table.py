"""A line of proto/fields.toml that cannot be gets an error that names it and says what can."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
TABLE = (ROOT / "proto" / "fields.toml").read_text(encoding="utf-8")


@pytest.fixture
def field_table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "tools")
    monkeypatch.delitem(sys.modules, "generator", raising=False)
    return importlib.import_module("generator.field_table")


def with_line(line: str) -> str:
    """The table with one more field of InferenceContext, or with other setters."""
    if line.startswith("[setters]"):
        return TABLE.split("[setters]\n")[0] + line
    head, rest = TABLE.split("[ResourceMetrics]\n")
    return f"{head.rstrip()}\n{line}\n\n[ResourceMetrics]\n{rest}"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('x = { number = 3, kind = "count", since = "1" }', "the number 3 is used twice"),
        ('x = { kind = "count", since = "1" }', "InferenceContext.x: number is missing"),
        ('x = { number = 99, kind = "int", since = "1" }', "kind: expected text, count, .*'int'"),
        ('x = { number = 0, kind = "count", since = "1" }', "number: expected 1 to 2047, got 0"),
        ('x = { number = 99, kind = "reading", since = "1" }', "kind: expected one of text, count"),
        ('X = { number = 99, kind = "count", since = "1" }', "expected a name in lower case"),
        ('x = { number = 99, kind = "count", since = "1", unti = "s" }', "got 'unti'"),
        (
            'x = { number = 99, kind = "count", since = "1", setter = "f" }',
            r"set_name\(parameter\)",
        ),
        ('x = { number = 99, kind = "count", since = "1", setter = "end(x)" }', r"got 'end\(x\)'"),
        ('x = { number = 99, kind = "count", since = "1", setter = "set_x(in)" }', r"set_x\(in\)"),
        ('tag = { number = 99, kind = "text", since = "1" }', r"none of .*got 'set_tag\(value\)'"),
        (
            'parent = { number = 99, kind = "text", since = "1" }',
            "InferenceContext.parent: expected",
        ),
        ('class = { number = 99, kind = "text", since = "1" }', "neither a keyword of Python"),
        ('[setters]\nset_toknes = "Tokens."', "setters: no field is set by set_toknes"),
        (
            'x = { number = 99, kind = "count", since = "1", setter = "set_tokens(input)" }',
            "set_tokens: two fields have the same parameter",
        ),
        (
            'tags = { number = 99, kind = "count", since = "1" }',
            "the column tags is ",
        ),
        ('x = { number = 99, kind = "ordinal", since = "1" }', "apart: expected true for the kind"),
        (
            'model = { number = 99, kind = "text", setter = "start_span", apart = true, '
            'since = "1" }',
            "apart: expected only where a span has a setter",
        ),
        ("x = {", "fields.toml: "),
    ],
)
def test_a_bad_line(field_table: ModuleType, tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "fields.toml"
    path.write_text(with_line(line), encoding="utf-8")
    with pytest.raises(field_table.TableError, match=message):
        field_table.read(path)


def test_the_table_itself(field_table: ModuleType) -> None:
    table = field_table.read(ROOT / "proto" / "fields.toml")
    ratios = ["cache_hit_rate", "batch_fill_ratio", "kv_cache_usage"]
    assert [it.name for it in table.settable("ratio")] == ratios
    tag = table.of("Span")[-1].tag
    assert (table.of("Span")[-1].name, tag) == ("flags", b"\xc0\x01")
