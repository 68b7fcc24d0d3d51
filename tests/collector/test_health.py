"""Health follows the store: it fails with it and recovers with it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import duckdb
import pytest

from collector_client import Client, NewSpan, OpenClient
from infertrace.collector.server import Collector
from infertrace.collector.store.duckdb import queries
from infertrace.collector.store.duckdb.database import DuckDBDatabase
from infertrace.collector.store.journaled import applier
from postgresql_cluster import PARTITIONS, Cluster

PATIENCE_S = 60


def wait_for(client: Client, status: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while client.http.get("/health").status_code != status:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_database_that_cannot_be_written(
    file_url: str, open_client: OpenClient, new_span: NewSpan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applier, "RETRY_DELAY_S", 0.01)
    broken = threading.Event()
    broken.set()
    insert = DuckDBDatabase._insert

    def fail(self: DuckDBDatabase, *given: Any) -> None:
        if broken.is_set():
            raise duckdb.IOException("no space left on /secret")
        insert(self, *given)

    monkeypatch.setattr(DuckDBDatabase, "_insert", fail)
    with Collector("127.0.0.1:0", "127.0.0.1:0", file_url) as collector:
        client = open_client(collector.grpc_address, collector.http_address)
        assert client.get("/health") == {"status": "ok"}
        assert client.send(new_span()).accepted_count == 1  # the journal has it
        wait_for(client, 503)
        assert client.error("/health") == (503, "the store cannot answer")
        assert len(client.get("/spans")) == 1
        broken.clear()
        wait_for(client, 200)


def test_a_server_that_goes_away(
    cluster_of: Callable[[str], Cluster], open_client: OpenClient, new_span: NewSpan
) -> None:
    postgresql = cluster_of(PARTITIONS)
    url = postgresql.new_database()
    with Collector("127.0.0.1:0", "127.0.0.1:0", url) as collector:
        client = open_client(collector.grpc_address, collector.http_address)
        client.send(new_span())
        assert client.get("/health") == {"status": "ok"}
        postgresql.stop()
        try:
            wait_for(client, 503)
        finally:
            postgresql.start()
        wait_for(client, 200)
        assert client.send(new_span()).accepted_count == 1
        assert len(client.get("/spans")) == 2


@pytest.mark.parametrize("where", ["duckdb", "memory"])
def test_a_query_that_takes_too_long(
    where: str,
    new_store_url: Callable[[str], str],
    open_client: OpenClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is interrupted, the answer says so, and the next one is answered."""
    endless = "SELECT count(*) FROM range(1_000_000_000_000) WHERE sin(range) > 2 AND ? < ? + ?"
    with monkeypatch.context() as then:
        then.setattr(queries, "_MODELS", endless)
        with Collector(
            "127.0.0.1:0", "127.0.0.1:0", new_store_url(where), query_timeout_s=0.2
        ) as collector:
            client = open_client(collector.grpc_address, collector.http_address)
            expected = (
                "the query took longer than 0.2 s; ask for less time, or raise --query-timeout"
            )
            assert client.error("/models") == (504, expected)
            assert client.error("/models") == (504, expected)
            assert client.get("/spans") == []
