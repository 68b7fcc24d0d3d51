"""The one place that chooses a store, by its URL."""

from __future__ import annotations

from infertrace.storing.duckdb_store import DuckDBStore
from infertrace.storing.store import Store

ALLOWED_URLS = "duckdb:///PATH (duckdb:////PATH for an absolute path) or memory:"


def open_store(url: str) -> Store:
    """Open the store at `url`, creating it if it does not exist.

    `duckdb:///spans.duckdb` is a path relative to the working directory,
    `duckdb:////var/lib/spans.duckdb` an absolute one; `memory:` forgets everything when it closes.
    Raises ValueError for another URL and StoreError when the store cannot be opened.
    """
    scheme, separator, rest = url.partition(":")
    if scheme == "memory" and separator and not rest.strip("/"):
        return DuckDBStore(None)
    if scheme == "duckdb" and rest.startswith("///") and len(rest) > len("///"):
        return DuckDBStore(rest[len("///") :])
    if scheme in ("postgresql", "postgres"):
        raise ValueError(f"store: {scheme}:// is not supported yet; expected {ALLOWED_URLS}")
    raise ValueError(f"store: expected {ALLOWED_URLS}, got {url!r}")
