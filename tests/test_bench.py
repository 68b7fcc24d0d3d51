"""What bench/ takes of infertrace is there. CI runs no benchmark, so a move could break one."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("bench", "examples", "tools")
    for path in (ROOT / folder).rglob("*.py")
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_import_of_infertrace_is_there(script: str) -> None:
    tree = ast.parse((ROOT / script).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("infertrace"):
            assert node.module
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("infertrace"):
                    importlib.import_module(alias.name)


def test_every_header_of_the_floor_is_there() -> None:
    named = re.findall(r'extern from "(.+)"', (ROOT / "bench" / "floor.pyx").read_text("utf-8"))
    assert named
    for header in named:
        assert (ROOT / "csrc" / header).exists()
