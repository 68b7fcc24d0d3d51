"""Appended entries are read again, whatever a kill or a full disk did to the end of a file."""

from __future__ import annotations

import errno
import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from infertrace.collector.store.journaled import journal
from infertrace.collector.store.journaled.journal import Entry, Journal
from infertrace.collector.store.producer_rows import LATER_PRODUCER_COLUMNS, PRODUCER_COLUMNS
from infertrace.collector.store.span_rows import merged_rows
from infertrace.collector.store.store import StoreError
from infertrace.generated.span_pb2 import AttributeValue, Event
from store_batches import batch_of, new_span


def entry(number: int, spans: int = 3) -> Entry:
    made = [
        new_span(tags={"k": "é"}, events=[Event(name="e")], parent_span_id=b"12345678")
        for _ in range(spans)
    ]
    account = dict.fromkeys(PRODUCER_COLUMNS, number)
    return Entry(number, [batch_of(made).rows], [account], {"bb" * 16: "{}"})


def read(path: Path) -> list[Entry]:
    return list(Journal(path).read())


def written(path: Path, count: int) -> list[Entry]:
    entries = [entry(number) for number in range(1, count + 1)]
    opened = Journal(path)
    for it in entries:
        opened.append(it)
    opened.close()
    return entries


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "spans.duckdb"
    entries = written(path, 3)
    assert read(path) == entries
    opened = Journal(path)
    assert len(list(opened.read())) == 3
    opened.append(entry(4, spans=0))
    opened.close()
    found = read(path)
    assert [it.number for it in found] == [1, 2, 3, 4]
    assert found[3].row_count == 0


def test_runs_of_producers(tmp_path: Path) -> None:
    """Values that all spans of a request share are written once for each run of spans."""
    path = tmp_path / "spans.duckdb"
    attributes = {"k": AttributeValue(string_value="v")}
    batches = [
        batch_of([new_span()] * 3, b"p" * 16, 1, attributes),
        batch_of([new_span()] * 2),
        batch_of([new_span()] * 2, b"p" * 16, 4),
        batch_of([new_span()], b"q" * 16, 1, attributes),
    ]
    rows = merged_rows([batch.rows for batch in batches])
    opened = Journal(path)
    for number, some in enumerate((rows, rows.slice(1, 5), rows.slice(0, 0)), 1):
        opened.append(Entry(number, [some], []))
    opened.close()
    found = [rows for entry in read(path) for rows in entry.batches]
    assert [len(some) for some in found] == [8, 5, 0]
    for some, expected in zip(found, (rows, rows.slice(1, 5), rows.slice(0, 0)), strict=True):
        some.validate(full=True)
        assert some.to_pydict() == expected.to_pydict()
    producers = [None if v is None else v.bytes[:1] for v in found[0]["producer_id"].to_pylist()]
    assert producers == [b"p"] * 3 + [None] * 2 + [b"p"] * 2 + [b"q"]


def test_every_cut_leaves_the_entries_before_it(tmp_path: Path) -> None:
    path = tmp_path / "spans.duckdb"
    entries = written(path, 2)
    (file,) = tmp_path.glob("*.journal.*")
    whole = file.read_bytes()
    boundary = len(whole) // 2  # both entries are of one size
    for cut in range(0, len(whole), 7):
        file.write_bytes(whole[:cut])
        assert read(path) == entries[: 1 if cut >= boundary else 0]


def test_a_changed_byte_ends_its_file(tmp_path: Path) -> None:
    path = tmp_path / "spans.duckdb"
    entries = written(path, 2)
    (file,) = tmp_path.glob("*.journal.*")
    whole = bytearray(file.read_bytes())
    for place in range(len(whole) // 2 + 4, len(whole), 11):
        damaged = whole.copy()
        damaged[place] ^= 1
        file.write_bytes(damaged)
        assert read(path) == entries[:1]


def test_files_are_removed_when_nothing_in_them_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "MAX_FILE_BYTES", 1)  # a file for each entry
    path = tmp_path / "spans.duckdb"
    opened = Journal(path)
    for number in range(1, 6):
        opened.append(entry(number))
    opened.truncate_through(3)
    assert [it.number for it in read(path)] == [4, 5]
    opened.truncate_through(5)  # the last file is still open
    assert [it.number for it in read(path)] == [5]
    opened.clear()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("step", ["writev", "fdatasync"])
def test_a_write_that_fails_is_not_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "spans.duckdb"
    opened = Journal(path)
    first, again = entry(1), entry(2)
    opened.append(first)
    real = getattr(os, step)

    def fail(file: int, *parts: list[bytes]) -> int:
        if parts:
            real(file, [parts[0][0], b"torn"])
            return 12
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as full:
        full.setattr(os, step, fail)
        with pytest.raises(StoreError, match="cannot write the journal"):
            opened.append(entry(2))
    assert read(path) == [first]
    opened.append(again)
    assert read(path) == [first, again]


NOTHING_ELSE: dict[str, Any] = {"runs": {}, "accounts": [], "resources": {}}


def test_an_entry_of_several_batches(tmp_path: Path) -> None:
    """Each has its own columns with values, and more pieces than one call writes are written."""
    path = tmp_path / "spans.duckdb"
    some = [
        batch_of([new_span(tags={"k": "v"})] * 3, b"p" * 16, 1).rows,
        batch_of([]).rows,
        batch_of([new_span(status_message="m")] * 2).rows,
    ]
    entries = [Entry(1, some, []), Entry(2, some * 100, [])]
    opened = Journal(path)
    for it in entries:
        opened.append(it)
    opened.close()
    assert read(path) == entries
    for rows in read(path)[0].batches:
        rows.validate(full=True)


def test_batches_with_other_rows_than_the_runs_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "spans.duckdb"
    rows = entry(1).batches[0].select(["status"]).serialize().to_pybytes()
    described = {"number": 1, "columns": ["status"], "accounts": [], "resources": {}}
    put(path, {**described, "runs": {"producer_id": [[6, None]]}}, rows * 2)
    assert [len(batch) for batch in read(path)[0].batches] == [3, 3]
    for some in (b"", rows, rows * 3):
        put(path, {**described, "runs": {"producer_id": [[6, None]]}}, some)
        with pytest.raises(StoreError, match="cannot read an entry"):
            read(path)


def put(path: Path, described: Any, rows: bytes) -> None:
    """One entry, as the bytes of the format."""
    text = json.dumps(described).encode()
    body = struct.pack("<I", len(text)) + text + rows
    path.with_name(f"{path.name}.journal.1").write_bytes(
        struct.pack("<II", len(body), zlib.crc32(body)) + body
    )


def test_an_entry_from_before_the_columns_had_names(tmp_path: Path) -> None:
    """It has the indices of its columns, and accounts as lists; there were fewer of both."""
    path = tmp_path / "spans.duckdb"
    expected = entry(7)
    (rows,) = expected.batches
    names = [name for name in journal._UNNAMED_COLUMNS.split() if rows[name].null_count == 0]
    places = list(map(journal._UNNAMED_COLUMNS.split().index, names))
    (complete,) = expected.accounts
    account = {key: complete[key] for key in complete if key not in LATER_PRODUCER_COLUMNS}
    described = [7, places, [list(account.values())]]
    put(path, described, rows.select(names).serialize().to_pybytes())
    (found,) = read(path)
    assert found == Entry(7, [rows], [account], {})


@pytest.mark.parametrize(
    ("described", "rows"),
    [
        (
            {"number": 1, "columns": ["unheard_of"], **NOTHING_ELSE},
            None,
        ),
        (
            {"number": 1, "columns": ["status"], **NOTHING_ELSE},
            b"not Arrow",
        ),
        ({"number": 1, "columns": ["tags"] * 5, **NOTHING_ELSE}, None),
        ({"number": 1, "columns": ["tags"], "runs": {"producer_id": [[1, "xx"]]}}, None),
        ({"number": 1, "columns": [], **NOTHING_ELSE, "runs": {"unheard_of": [[1, None]]}}, None),
        ({"number": 1}, None),
        ([1, [400], []], None),
        ("text", None),
    ],
)
def test_a_whole_entry_that_cannot_be_read_is_an_error(
    tmp_path: Path, described: Any, rows: bytes | None
) -> None:
    path = tmp_path / "spans.duckdb"
    if rows is None:
        rows = entry(1).batches[0].select(["status", "start_time"]).serialize().to_pybytes()
    put(path, described, rows)
    with pytest.raises(StoreError, match=r"cannot read an entry of .*journal\.1"):
        read(path)
