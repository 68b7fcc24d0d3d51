"""A line of proto/conventions.toml that cannot be gets an error that says what can."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "proto" / "conventions.toml").read_text(encoding="utf-8")


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType]:
    monkeypatch.syspath_prepend(ROOT / "tools")
    monkeypatch.delitem(sys.modules, "generator", raising=False)
    return tuple(  # type: ignore[return-value]
        importlib.import_module(f"generator.{name}") for name in ("conventions", "field_table")
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('"a" = { from = "modle" }', "langfuse, a: from: expected a field, got 'modle'"),
        ('"a" = { from = "usage", form = "xml" }', "form: expected seconds, list, .*, got 'xml'"),
        ('"a" = { form = "json", source = "usage" }', "expected from, form, .*, got 'source'"),
        (f'"{"a" * 61}" = {{ from = "usage" }}', "expected a name of 1 to 60 bytes"),
        (f'"a" = {{ from = "usage", value = "{"b" * 96}" }}', "value: expected a shorter one"),
        ('[phoenix]\n"a" = { from = "usage" }', "expected tables always, otel, .*'phoenix'"),
        ("a = ", "conventions.toml: "),
    ],
)
def test_a_bad_line(
    modules: tuple[ModuleType, ModuleType], tmp_path: Path, line: str, message: str
) -> None:
    conventions, field_table = modules
    path = tmp_path / "conventions.toml"
    path.write_text(f"{TEXT}{line}\n")
    table = field_table.read(ROOT / "proto" / "fields.toml")
    with pytest.raises(field_table.TableError, match=message):
        conventions.read(path, table)


def test_no_field_is_without_a_name(modules: tuple[ModuleType, ModuleType]) -> None:
    conventions, field_table = modules
    table = field_table.read(ROOT / "proto" / "fields.toml")
    found = conventions.read(ROOT / "proto" / "conventions.toml", table)
    for source in found.sources:
        assert any(row.source is source for row in found.rows), source.name
