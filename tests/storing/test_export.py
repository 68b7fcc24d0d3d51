"""What is exported is what is stored, read back by another engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

from infertrace.commands import main
from infertrace.generated.span_pb2 import AttributeValue, Event
from infertrace.storing.opening import open_store
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
        assert row[5] == name or name is None  # which engines write in several ways
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
