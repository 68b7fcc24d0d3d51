"""ARCHITECTURE.md is one page, and everything it names exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def files(folder: str) -> Iterator[Path]:
    return (path for path in (ROOT / folder).rglob("*.*") if "__pycache__" not in path.parts)


PACKAGE = ROOT / "src" / "infertrace"
TEXT = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
MAX_LINES = 90
# A path named in a page of docs/ or the top folder: a file with a suffix, or a folder.
PATH = re.compile(r"`((?:[\w.-]+/)+|(?:[\w.-]+/)*[\w-]+\.(?:py|pyx|pxi|h|md|toml|proto))`")
# Paths are relative to one of these; a bare name is that of a file somewhere.
BASES = (ROOT, PACKAGE, ROOT / "tests")
NAMES = {
    path.name for folder in ("src", "csrc", "tests", "tools", "examples") for path in files(folder)
}
PAGES = ["ARCHITECTURE.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_is_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(PATH.findall(text))
    missing = [
        path
        for path in sorted(named)
        if not any((base / path).exists() for base in BASES)
        and path not in NAMES
        and path not in NOT_IN_GIT
    ]
    assert not missing


# The reader's own files, in examples of use, and what a build makes.
NOT_IN_GIT = {"app.py", "server.py", "main.py", "conftest.py", "collector.toml", "build/"}


def test_every_package_is_on_the_page() -> None:
    packages = {
        path.parent.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("__init__.py")
        if path.parent != PACKAGE
    }
    named = [name for name in packages if f"`{name}/" in TEXT]
    below = [name for name in packages if f"`{name.rpartition('/')[0]}/`" in TEXT]
    assert packages == {*named, *below}


def test_every_folder_of_the_c_is_on_the_page() -> None:
    for folder in (ROOT / "csrc").iterdir():
        assert f"`csrc/{folder.name}/" in TEXT


def test_it_is_one_page() -> None:
    assert len(TEXT.splitlines()) <= MAX_LINES
