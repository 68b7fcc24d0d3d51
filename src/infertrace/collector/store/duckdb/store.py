"""The store in a DuckDB file, with its journal beside it, or in memory."""

from __future__ import annotations

from pathlib import Path

from infertrace.collector.store.duckdb.database import DuckDBDatabase
from infertrace.collector.store.journaled.journal import Journal
from infertrace.collector.store.journaled.journaled_store import JournaledStore
from infertrace.collector.store.store import DEFAULT_QUERY_TIMEOUT_S, StoreError


def open_duckdb(
    path: str | None, query_timeout_s: float = DEFAULT_QUERY_TIMEOUT_S
) -> JournaledStore:
    """Open the file at `path`, or a database in memory when that is None; raises StoreError."""
    if path is None:
        return JournaledStore(DuckDBDatabase(None, query_timeout_s), None)
    # DuckDB takes the beginning of a relative name for something else where it can: "~", an
    # extension and a colon, ":memory:".
    absolute = Path(path).absolute()
    for special in "?\0":  # DuckDB would name its log by what comes before it
        if special in str(absolute):
            reason = f"DuckDB takes no path with {special!r}"
            raise StoreError(f"cannot use {str(absolute)!r}: {reason}")
    database = DuckDBDatabase(str(absolute), query_timeout_s)
    try:
        return JournaledStore(database, Journal(absolute))
    except (OSError, StoreError) as error:
        database.close()
        raise StoreError(f"cannot use {path}: {error}") from error
