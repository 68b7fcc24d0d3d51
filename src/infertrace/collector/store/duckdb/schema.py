"""The tables in DuckDB, and how those of an older infertrace are brought up to date."""

from __future__ import annotations

import duckdb

from infertrace.collector.store.duckdb.span_table import (
    column_names,
    create_span_table,
    define_view,
)
from infertrace.collector.store.store import StoreError

SCHEMA_VERSION = 3
"""Counts changes of the tables other than further columns, which need no version."""

# The number of the last entry of the journal that the tables hold.
_APPLIED = (
    "CREATE TABLE applied (number BIGINT NOT NULL)",
    "INSERT INTO applied (number) VALUES (0)",
)
# Each has a default: DuckDB adds no column that is NOT NULL, and an older infertrace gives none.
_LATER_PRODUCER_TYPES = {
    "numbered": "BOOLEAN DEFAULT true",
    "rejected_reasons": "VARCHAR DEFAULT '{}'",
}
_RESOURCES = "CREATE TABLE resources (resource_id UUID NOT NULL, attributes VARCHAR NOT NULL)"
_CREATE = (
    "CREATE TABLE schema_version (version INTEGER)",
    f"INSERT INTO schema_version (version) VALUES ({SCHEMA_VERSION})",
    *_APPLIED,
    _RESOURCES,
    f"""CREATE TABLE producers (
        producer_id BLOB NOT NULL, first_seen BIGINT NOT NULL, last_seen BIGINT NOT NULL,
        service_name VARCHAR NOT NULL, produced UHUGEINT NOT NULL, stored UHUGEINT NOT NULL,
        rejected UHUGEINT NOT NULL, duplicates UHUGEINT NOT NULL, dropped VARCHAR NOT NULL,
        received VARCHAR NOT NULL, finished BOOLEAN NOT NULL,
        {", ".join(map(" ".join, _LATER_PRODUCER_TYPES.items()))})""",
)
_MIGRATIONS = {1: _APPLIED, 2: (_RESOURCES,)}  # from that version to the next one


def ensure_schema(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the tables in a new database, or bring older ones up to date; all or nothing.

    Raises StoreError for the schema of a newer infertrace, which is left as it is.
    """
    tables = {name for (name,) in connection.execute("SHOW TABLES").fetchall()}
    connection.begin()
    if tables:
        _migrate(connection, tables)
    else:
        for statement in _CREATE:
            connection.execute(statement)
        create_span_table(connection)
    connection.commit()


def _migrate(connection: duckdb.DuckDBPyConnection, tables: set[str]) -> None:
    if "schema_version" not in tables:
        raise StoreError("it is a DuckDB database, but not a store of infertrace")
    version = connection.execute("SELECT max(version) FROM schema_version").fetchall()[0][0]
    if version not in (*_MIGRATIONS, SCHEMA_VERSION):
        raise StoreError(
            f"its schema has version {version}, and this infertrace knows version "
            f"{SCHEMA_VERSION}; use the infertrace that wrote it, or a newer one"
        )
    for step in range(version, SCHEMA_VERSION):
        for statement in _MIGRATIONS[step]:
            connection.execute(statement)
    if version != SCHEMA_VERSION:
        connection.execute("UPDATE schema_version SET version = ?", [SCHEMA_VERSION])
    define_view(connection)
    for name in _LATER_PRODUCER_TYPES.keys() - column_names(connection, "producers"):
        connection.execute(f"ALTER TABLE producers ADD COLUMN {name} {_LATER_PRODUCER_TYPES[name]}")
