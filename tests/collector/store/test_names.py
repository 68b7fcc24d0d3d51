"""No character in the name of a database is special, although it is to shells or SQL."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infertrace.collector.store.journaled import applier
from infertrace.collector.store.journaled.journal import Entry, Journal
from infertrace.collector.store.registry import open_store
from infertrace.collector.store.span_filter import SpanFilter
from infertrace.collector.store.store import Store, StoreError
from store_batches import batch_of, new_span

NAMES = [
    "spans[1].duckdb",
    "*.duckdb",
    "a#b&c.duckdb",
    "a%20b.duckdb",
    "it's; --.duckdb",
    "a\nb.duckdb",
    "~/spans.duckdb",
    "sqlite:spans.duckdb",
    ":memory:",
    "file:spans",
    "spans",
    "gr\u00f6\u00dfe.duckdb",
]


def entry(number: int) -> Entry:
    return Entry(number, [batch_of([new_span()]).rows], [])


@pytest.mark.parametrize("name", NAMES)
def test_a_kill_loses_nothing(
    tmp_path: Path, name: str, opened: Callable[[str], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applier, "APPLY_INTERVAL_S", 3_600.0)
    here, left = tmp_path / "here", tmp_path / "left"
    (here / "~").mkdir(parents=True)
    monkeypatch.chdir(here)
    store = opened(f"duckdb:///{name}")
    for _ in range(3):
        store.commit([batch_of([new_span()])])
    assert (here / name).is_file()
    shutil.copytree(here, left)
    monkeypatch.chdir(left)
    again = opened(f"duckdb:///{name}")
    assert len(again.spans(SpanFilter(), 10)) == 3
    again.commit([batch_of([new_span()])])
    assert len(again.spans(SpanFilter(), 10)) == 4


@pytest.mark.parametrize("name", ["a\0b", "a?b.duckdb", "a?/b.duckdb"])
def test_a_name_that_cannot_be_is_one_error(name: str) -> None:
    with pytest.raises(StoreError, match="DuckDB takes no path with"):
        open_store(f"duckdb:///{name}")


def test_a_journal_that_was_not_read_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "spans.duckdb"
    journal = Journal(path)
    other = tmp_path / "spans.duckdb.journal.1"
    other.write_bytes(b"acknowledged")
    with pytest.raises(StoreError, match="cannot write the journal"):
        journal.append(entry(1))
    assert other.read_bytes() == b"acknowledged"


def test_only_what_is_numbered_is_a_journal(tmp_path: Path) -> None:
    path = tmp_path / "spans.duckdb"
    for ending in ("01", "\u00b2", "x", "1.bak", ""):
        tmp_path.joinpath(f"spans.duckdb.journal.{ending}").write_bytes(b"theirs")
    journal = Journal(path)
    assert list(journal.read()) == []
    journal.append(entry(1))
    journal.clear()
    assert len(list(tmp_path.iterdir())) == 5


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its journal cannot be read, so the store must not be opened without it."""

    def refuse(self: Path) -> Iterator[Path]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(StoreError, match=r"cannot use .*Permission denied"):
        open_store(f"duckdb:///{tmp_path}/spans.duckdb")
