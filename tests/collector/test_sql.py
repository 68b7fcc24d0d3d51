"""SQL over the embedded store: what it answers, and all that it refuses."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from collector_client import Client, NewSpan, OpenClient
from infertrace.collector.server import Collector

COUNT = "SELECT count(*) AS spans, sum(output_tokens) AS tokens FROM all_spans"


@pytest.fixture(params=["memory", "duckdb"])
def embedded(
    request: pytest.FixtureRequest, new_store_url: Any, open_client: OpenClient, new_span: NewSpan
) -> Any:
    """A client whose spans are all in the database."""
    with Collector("127.0.0.1:0", "127.0.0.1:0", new_store_url(request.param)) as collector:
        client = open_client(collector.grpc_address, collector.http_address)
        client.send(*(new_span(model=f"m{n % 2}", tags={"n": str(n)}) for n in range(10)))
        while client.get("/sql", query="SELECT count(*) FROM all_spans")["rows"] != [[10]]:
            pass  # the journal is moved into the database within half a second
        yield client


def test_every_format_has_the_rows(embedded: Client) -> None:
    query = "SELECT model_name, count(*) AS n FROM all_spans GROUP BY 1 ORDER BY 1"
    answer = embedded.get("/sql", query=query)
    assert [column["name"] for column in answer["columns"]] == ["model_name", "n"]
    assert answer["rows"] == [["m0", 5], ["m1", 5]]

    def content(form: str) -> bytes:
        return embedded.http.get("/sql", params={"query": query, "format": form}).content

    assert content("csv") == b'"model_name","n"\n"m0",5\n"m1",5\n'
    expected = {"model_name": ["m0", "m1"], "n": [5, 5]}
    assert pq.read_table(io.BytesIO(content("parquet"))).to_pydict() == expected
    assert pa.ipc.open_stream(content("arrow")).read_all().to_pydict() == expected


def test_rows_are_limited(embedded: Client) -> None:
    answer = embedded.http.get("/sql", params={"query": "FROM all_spans", "limit": 3})
    assert len(answer.json()["rows"]) == 3
    assert answer.headers["X-Truncated"] == "true"
    answer = embedded.http.get("/sql", params={"query": "FROM all_spans", "limit": 10})
    assert answer.headers["X-Truncated"] == "false"
    endless = "SELECT i FROM range(100000000000) AS numbers(i)"
    assert embedded.get("/sql", query=endless, limit=2)["rows"] == [[0], [1]]


def test_values_of_every_kind(embedded: Client) -> None:
    query = (
        "SELECT 1.5::DECIMAL(4, 2) AS a, 'x'::BLOB AS a, [1, 2] AS l, {'k': 'nan'::DOUBLE} AS s, "
        "NULL AS n, TIMESTAMP '2026-01-31 12:00:00' AS t, sum(i) AS h FROM range(3) AS r(i)"
    )
    answer = embedded.get("/sql", query=query)
    assert len({column["name"] for column in answer["columns"]}) == 7
    assert answer["rows"] == [[1.5, "eA==", [1, 2], {"k": None}, None, "2026-01-31T12:00:00", 3]]
    for form in ("csv", "parquet", "arrow"):
        answer = embedded.http.get("/sql", params={"query": query, "format": form})
        assert answer.status_code == 200, (form, answer.text)


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM spans",
        "INSERT INTO applied VALUES (1)",
        "DROP VIEW all_spans",
        "SELECT 1; DROP VIEW all_spans",
        "CREATE TABLE t AS SELECT 1",
        "WITH gone AS (DELETE FROM spans RETURNING 1) SELECT * FROM gone",
        "COPY spans TO '/tmp/spans.csv'",
        "ATTACH '/tmp/other.duckdb'",
        "SET memory_limit = '100GB'",
        "PRAGMA disable_checkpoint_on_shutdown",
        "CHECKPOINT",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM read_parquet('http://127.0.0.1:1/x')",
        "SELECT * FROM query('DELETE FROM spans RETURNING 1')",
        "SELECT nonsense",
        "not SQL at all",
        "\x00",
    ],
)
def test_nothing_but_reading(embedded: Client, query: str) -> None:
    status, error = embedded.error("/sql", query=query)
    assert status == 400
    assert error.startswith("query: ")
    assert embedded.get("/sql", query=COUNT)["rows"][0][0] == 10
    embedded.send()  # the writer goes on


def test_a_slow_query_is_interrupted(
    open_client: OpenClient,
) -> None:
    with Collector("127.0.0.1:0", "127.0.0.1:0", "memory:", query_timeout_s=0.5) as collector:
        client = open_client(collector.grpc_address, collector.http_address)
        slow = "SELECT count(*) FROM range(10000000) a(i), range(10000000) b(j) WHERE i * j % 7 = 3"
        status, error = client.error("/sql", query=slow)
        assert status == 504
        assert "took longer than 0.5 s" in error


def test_postgresql_is_asked_by_its_own_clients(
    new_store_url: Any, open_client: OpenClient
) -> None:
    with Collector("127.0.0.1:0", "127.0.0.1:0", new_store_url("postgresql")) as collector:
        client = open_client(collector.grpc_address, collector.http_address)
        status, error = client.error("/sql", query="SELECT 1")
        assert status == 400
        assert "psql" in error


def infertrace(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "infertrace", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command(embedded: Client, tmp_path: Path) -> None:
    host, port = embedded.http_address
    at = ("--http", f"{host}:{port}")
    query = "SELECT model_name, count(*) AS n FROM all_spans GROUP BY 1 ORDER BY 1"
    done = infertrace("sql", query, *at)
    assert done.stdout == "model_name  n\n----------  -\nm0          5\nm1          5\n"
    done = infertrace("sql", "SELECT chr(27) || '[31m' AS x", *at, "--limit", "1")
    assert "\x1b" not in done.stdout
    file = tmp_path / "rows.parquet"
    done = infertrace("sql", query, *at, "--format", "parquet", "--output", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert pq.read_table(file).num_rows == 2
    done = infertrace("sql", "FROM all_spans", *at, "--format", "csv", "--limit", "4")
    assert len(done.stdout.splitlines()) == 5
    assert "there are more rows" in done.stderr
    done = infertrace("sql", "DROP TABLE spans", *at)
    assert done.returncode == 1
    assert done.stderr == "infertrace: query: expected one SELECT\n"
    assert infertrace("sql", query, "--http", "127.0.0.1:9").returncode == 1
