"""The one place that chooses a store, by its URL."""

from __future__ import annotations

from infertrace.collector.store.duckdb.store import open_duckdb
from infertrace.collector.store.store import DEFAULT_QUERY_TIMEOUT_S, Store, StoreError
from infertrace.distribution import missing

ALLOWED_URLS = (
    "duckdb:///PATH (duckdb:////PATH for an absolute path), "
    "postgresql://USER@HOST/DATABASE or memory:"
)


class StoreUrlError(ValueError):
    """The URL names no kind of store."""

    def __init__(self, scheme: str) -> None:
        # What follows the scheme may hold a password.
        self.expected = f"expected {ALLOWED_URLS}, got {scheme[:20]!r}"
        super().__init__(f"store: {self.expected}")


def shown_url(url: str) -> str:
    """The URL of a store without secrets, to print or log."""
    scheme, separator, rest = url.partition("://")
    if scheme not in ("postgresql", "postgres"):
        return url
    place, _, query = rest.partition("?")
    if "@" in query and "@" not in place:
        place = "..."  # the password may hold a question mark, and what follows it an "@"
    return f"{scheme}{separator}{place.rpartition('@')[2]}"


def open_store(url: str, query_timeout_s: float = DEFAULT_QUERY_TIMEOUT_S) -> Store:
    """Open the store at `url`, creating it if it does not exist.

    `duckdb:///spans.duckdb` is a path relative to the working directory,
    `duckdb:////var/lib/spans.duckdb` an absolute one.
    `postgresql://` takes what libpq takes; `memory:` loses everything when it is closed.
    A query that takes longer than `query_timeout_s` seconds raises QueryTimeoutError.
    Raises StoreUrlError for another URL and StoreError when the store cannot be opened.
    """
    scheme, separator, rest = url.partition(":")
    if scheme == "memory" and separator and not rest.strip("/"):
        return open_duckdb(None, query_timeout_s)
    if scheme == "duckdb" and rest.startswith("///") and len(rest) > len("///"):
        return open_duckdb(rest[len("///") :], query_timeout_s)
    if scheme in ("postgresql", "postgres") and rest.startswith("//"):
        try:
            from infertrace.collector.store.postgres.store import PostgresStore
        except ModuleNotFoundError as error:
            if error.name not in ("psycopg", "psycopg_pool"):
                raise
            raise StoreError(missing(error.name, "postgresql")) from error
        return PostgresStore(url, query_timeout_s)
    raise StoreUrlError(scheme)
