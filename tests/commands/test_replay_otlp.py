"""`infertrace replay` of files of OTLP: into a collector, over the port of our own protocol."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from canonical_otlp import canonical, parse_json
from infertrace.collector.otlp_files.export import export_otlp
from infertrace.collector.server import Collector
from infertrace.collector.store.registry import open_store
from infertrace.commands import main, replayed_files
from infertrace.otlp.json_writer import read_request
from otlp_requests import export_request, otlp_span


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    url = f"duckdb:///{tmp_path}/store.duckdb"
    with Collector("127.0.0.1:0", "127.0.0.1:0", url, otlp_http_address="127.0.0.1:0") as started:
        yield started


def write(path: Path, *requests: ExportTraceServiceRequest) -> Path:
    lines = [json.dumps(read_request(it.SerializeToString())) for it in requests]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def stored(collector: Collector) -> int:
    answer = httpx.get(f"http://{collector.http_address}/spans?limit=10000")
    return len(answer.json())


def replay(path: Path, to: str | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Without the packages of the collector, which need not be installed where files are."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['pyarrow', 'duckdb', 'fastapi']));"
        "from infertrace.commands import main; sys.exit(main(sys.argv[1:]))"
    )
    return subprocess.run(
        [sys.executable, "-c", code, "replay", str(path), "--to", to or "", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_there_and_back(collector: Collector, tmp_path: Path) -> None:
    requests = [export_request(otlp_span(), otlp_span(kind=3)) for _ in range(3)]
    path = write(tmp_path / "a.jsonl", *requests)
    for _ in range(2):
        done = replay(path, collector.grpc_address)
        assert done.returncode == 0, done.stderr
        assert done.stdout == (
            "3 batches, 0 not taken; 6 spans accepted, 0 rejected, 0 not taken\n"
        )
    assert stored(collector) == 6
    collector.stop()
    store = open_store(f"duckdb:///{tmp_path}/store.duckdb")
    export_otlp(store, tmp_path / "b.jsonl", 0, 2**63 - 1)
    store.close()
    back = map(parse_json, (tmp_path / "b.jsonl").read_bytes().splitlines())
    assert canonical(*back) == canonical(*requests)


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_compressed(collector: Collector, tmp_path: Path, suffix: str) -> None:
    store = f"duckdb:///{tmp_path}/store.duckdb"
    assert replay(write(tmp_path / "a", export_request(otlp_span())), collector.grpc_address)
    collector.stop()
    path = tmp_path / f"b.otlp.jsonl.{suffix}"
    assert main(["export", "--store", store, "--to", str(path)]) == 0
    with Collector("127.0.0.1:0", "127.0.0.1:0", "memory:") as other:
        done = replay(path.rename(tmp_path / "c"), other.grpc_address)
        assert "1 spans accepted" in done.stdout, done.stderr
        assert stored(other) == 1


def test_over_http(collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERTRACE_PROTOCOL", "otlp/http")
    path = write(tmp_path / "a.jsonl", export_request(otlp_span()))
    done = replay(path, f"http://{collector.otlp_http_address}/v1/traces")
    assert (done.returncode, done.stderr) == (0, "")
    assert stored(collector) == 1


def test_what_cannot_be_sent_is_counted(collector: Collector, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", export_request(otlp_span(), otlp_span(trace_id=b"short")))
    with path.open("a") as file:
        file.write('{"resourceMetrics":[]}\n\n{"resourceSpans":3}\n{"resourceSpans":[]}\n')
    done = replay(path, collector.grpc_address)
    assert done.returncode == 1
    assert done.stdout == "4 batches, 2 not taken; 1 spans accepted, 1 rejected, 0 not taken\n"
    assert done.stderr.splitlines() == [
        f"infertrace replay: {path}: batch 2: no spans of OTLP (metrics and logs are not taken)",
        f"infertrace replay: {path}: batch 3: resourceSpans: expected an array",
    ]


def test_no_collector(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", export_request(otlp_span(), otlp_span()))
    done = replay(path, "127.0.0.1:1", "--patience", "0")
    assert done.returncode == 1
    assert done.stdout.endswith("0 spans accepted, 0 rejected, 2 not taken\n")


def test_damaged_files(collector: Collector, tmp_path: Path) -> None:
    line = write(tmp_path / "a", export_request(otlp_span())).read_bytes()
    path = tmp_path / "b"
    path.write_bytes(gzip.compress(line)[:-9])
    done = replay(path, collector.grpc_address)
    assert done.returncode == 1
    assert f"infertrace replay: {path}: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_line_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replayed_files, "_MAX_LINE_BYTES", 100)
    path = write(tmp_path / "a", export_request(otlp_span()))
    with pytest.raises(ValueError, match="line 1: expected at most 100 bytes in a line"):
        list(replayed_files.read_requests(path))
