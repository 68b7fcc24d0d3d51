"""Another engine reads from an export exactly what is stored."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow.dataset import dataset

from infertrace.collector.store import parquet_export
from infertrace.collector.store.partition_names import partition_name
from infertrace.collector.store.postgres import store as postgres_store
from infertrace.collector.store.registry import open_store
from infertrace.commands import main
from infertrace.generated.span_pb2 import AttributeValue, Event
from postgresql_cluster import kinds
from store_batches import START_NS, batch_of, new_span

DAY = 86_400_000_000_000


@pytest.fixture(params=["duckdb", *kinds()])
def store_url(request: pytest.FixtureRequest, new_store_url: Any) -> Any:
    return new_store_url(request.param)


def test_the_same_rows_come_back(
    store_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["gpt-4", "meta-llama/Llama-3", "", "a=b &%é"]
    spans = [
        new_span(
            model=names[n % 4],
            start_time_unix_nano=START_NS - (n % 3) * DAY + n,
            parent_span_id=b"12345678" if n % 2 else b"",
            tags={"n": str(n)},
            events=[Event(name="e")],
        )
        for n in range(60)
    ]
    store = open_store(store_url)
    gpu_1 = {"host.name": AttributeValue(string_value="gpu-1")}
    store.commit([batch_of(spans[:30], b"p" * 16, 1, gpu_1), batch_of(spans[30:])])
    store.close()
    to = tmp_path / "lake"
    for _ in range(2):  # the second replaces the first
        assert main(["export", "--store", store_url, "--to", str(to)]) == 0
        assert capsys.readouterr().out == f"infertrace export: 60 spans to {to}\n"
    with duckdb.connect() as connection:
        rows = connection.execute(
            "SELECT trace_id, span_id, parent_span_id, start_time_unix_nano, model_name, model, "
            "tags, events, epoch_us(start_time), producer_id, resource "
            f"FROM read_parquet('{to}/**/*.parquet', hive_partitioning=true) "
            "ORDER BY start_time_unix_nano"
        ).fetchall()
    expected = sorted(spans, key=lambda span: span.start_time_unix_nano)
    assert len(rows) == 60
    for row, span in zip(rows, expected, strict=True):
        name = span.inference.model_name or None
        assert row[:4] == (
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex() or None,
            span.start_time_unix_nano,
        )
        assert row[4] == name
        assert row[5] == name or name is None  # engines differ in how they write it
        assert row[6] == f'{{"n":"{span.tags["n"]}"}}'
        assert row[7] == '[{"time":"1970-01-01T00:00:00.000000000Z","name":"e"}]'
        assert row[8] == span.start_time_unix_nano // 1_000
        has_origin = span in spans[:30]
        assert row[9] == ((b"p" * 16).hex() if has_origin else None)
        assert row[10] == ('{"host.name":"gpu-1"}' if has_origin else None)


def test_a_time(store_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = open_store(store_url)
    moments = [1_700_000_000_000_000_000 + n * DAY for n in range(4)]
    store.commit([batch_of([new_span(start_time_unix_nano=moment) for moment in moments])])
    store.close()
    to = str(tmp_path / "lake")
    times = ["--since", "2023-11-15T22:13:20Z", "--until", "2023-11-17T22:13:20Z"]
    assert main(["export", "--store", store_url, "--to", to, *times]) == 0
    assert "2 spans" in capsys.readouterr().out
    days = {path.name for path in (tmp_path / "lake").iterdir()}
    assert days == {"day=2023-11-15", "day=2023-11-16"}
    nothing = ["--until", "2020-01-01T00:00:00Z"]
    assert main(["export", "--store", store_url, "--to", to, *nothing]) == 0
    assert main(["export", "--store", store_url, "--to", to, "--since", "yesterday"]) == 2
    assert "not an RFC 3339 date and time: 'yesterday'" in capsys.readouterr().err


HARD_NAMES = [
    "m" * 300,
    "m" * 299 + "n",
    "\u00e9" * 200,
    "GPT-4",
    "gpt-4",
    "gpt-4.",
    ".",
    "..",
    "../../up",
    "/etc/x",
    "a\0b",
    "a=b%41 &\n",
    "con",
    "\u00e9",
    "e\u0301",
    "__HIVE_DEFAULT_PARTITION__",
    "*[1]?",
    partition_name("m" * 300),
]


def test_every_name_of_a_model_has_its_folder(
    store_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(store_url)
    store.commit([batch_of([new_span(model=name) for name in [*HARD_NAMES, ""]])])
    store.close()
    to = tmp_path / "s3:lake[1]"
    assert main(["export", "--store", store_url, "--to", str(to)]) == 0
    assert capsys.readouterr().out == f"infertrace export: {len(HARD_NAMES) + 1} spans to {to}\n"
    folders = [path.parent for path in to.rglob("*.parquet")]
    assert len(folders) == len(HARD_NAMES) + 1
    names = [folder.name for folder in folders]
    assert all(name.isascii() and len(name.encode()) <= 255 for name in names)
    assert len({name.lower() for name in names}) == len(names)
    assert all(folder.parent.parent == to for folder in folders)
    rows = dataset(to, partitioning="hive").to_table().to_pylist()
    assert sorted(row["model_name"] or "" for row in rows) == sorted([*HARD_NAMES, ""])
    for row in rows:
        name = row["model_name"]
        if name is not None and len(name) < 100 and "HIVE" not in name:
            assert row["model"] == name


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(1, 100))
def test_names_are_bounded_and_told_apart(name: str, times: int) -> None:
    found = partition_name(name * times)
    assert found.isascii()
    assert len(found) <= 248
    assert found == found.lower() or "%" in found
    if len(found) <= 180:
        assert unquote(found) == name * times
    if name:
        assert partition_name(name * times + "x").lower() != found.lower()


def test_more_models_than_files_may_be_open(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_export, "MAX_OPEN_FILES", 3)
    store = open_store(store_url)
    monkeypatch.setattr(postgres_store, "EXPORT_ROWS", 10)
    store.commit([batch_of([new_span(model=f"m{n % 7}") for n in range(35)])])
    store.close()
    for _ in range(2):
        assert main(["export", "--store", store_url, "--to", str(tmp_path / "lake")]) == 0
        assert dataset(tmp_path / "lake", partitioning="hive").count_rows() == 35


def test_files_are_private(store_url: str, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        store = open_store(store_url)
        store.commit([batch_of([new_span()])])
        store.close()
        assert main(["export", "--store", store_url, "--to", str(tmp_path / "lake")]) == 0
    finally:
        assert os.umask(before) == 0o022
    for path in [tmp_path / "lake", *(tmp_path / "lake").rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)
