"""The schema in PostgreSQL, and the one place that chooses the form of the table of spans."""

from __future__ import annotations

import logging

import psycopg

from infertrace.collector.store.missing_columns import missing_columns
from infertrace.collector.store.postgres.day_partitions import DayPartitions
from infertrace.collector.store.postgres.hypertable import Hypertable
from infertrace.collector.store.postgres.span_table import (
    Connection,
    SpanTable,
    present_columns,
)
from infertrace.collector.store.store import StoreError

SCHEMA_VERSION = 2
"""Counts changes of the tables other than further columns, which need no version."""

_log = logging.getLogger(__name__)

# Collectors that start together make the schema one after another; the number is arbitrary.
_SCHEMA_LOCK = 0x696E6665
_RESOURCES = """CREATE TABLE IF NOT EXISTS resources (
    resource_id uuid PRIMARY KEY, attributes text COLLATE "C" NOT NULL)"""
_CREATE = (
    f"CREATE TABLE infertrace_schema (version integer NOT NULL); "
    f"INSERT INTO infertrace_schema (version) VALUES ({SCHEMA_VERSION})",
    _RESOURCES,
    """CREATE TABLE producers (
        producer_id bytea PRIMARY KEY, first_seen bigint NOT NULL, last_seen bigint NOT NULL,
        service_name text NOT NULL, produced numeric NOT NULL, stored numeric NOT NULL,
        rejected numeric NOT NULL, duplicates numeric NOT NULL, dropped text NOT NULL,
        received text NOT NULL, finished boolean NOT NULL)""",
)
# Older collectors, which may run at the same time, leave these columns at their defaults.
_LATER_PRODUCER_TYPES = {
    "numbered": "boolean NOT NULL DEFAULT true",
    "rejected_reasons": "text NOT NULL DEFAULT '{}'",
}


# The statements from that version to the next one. Older collectors may run at that time.
_MIGRATIONS = {1: (_RESOURCES,)}
_EXTENSION = "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'"
_OFFERED = """
    SELECT FROM pg_available_extensions WHERE name = 'timescaledb'
    AND current_setting('shared_preload_libraries') ~ '\\mtimescaledb\\M'"""


def ensure_schema(connection: Connection) -> SpanTable:
    """Make the schema in a new database, or bring an older one up to date; then commit.

    Raises StoreError for the schema of a newer infertrace, which is left as it is.
    """
    connection.execute("SELECT pg_advisory_xact_lock(%s)", [_SCHEMA_LOCK])
    (known,) = connection.execute("SELECT to_regclass('infertrace_schema') IS NOT NULL").fetchall()[
        0
    ]
    if known:
        (version,) = connection.execute("SELECT max(version) FROM infertrace_schema").fetchall()[0]
        if version not in (*_MIGRATIONS, SCHEMA_VERSION):
            raise StoreError(
                f"the schema has version {version}, and this infertrace knows version "
                f"{SCHEMA_VERSION}; use the infertrace that wrote it, or a newer one"
            )
        table = _found(connection)
        _migrate(connection, table, version)
    else:
        table = _offered(connection)
        for statement in _CREATE:
            connection.execute(statement)
        table.create(connection)
    _add_producer_columns(connection)
    connection.commit()
    _log.info("the table of spans: %s", table.describe())
    return table


def _migrate(connection: Connection, table: SpanTable, version: int) -> None:
    """All steps or none: they share the transaction, and its lock, of `ensure_schema`."""
    for step in range(version, SCHEMA_VERSION):
        for statement in _MIGRATIONS[step]:
            connection.execute(statement)
        connection.execute("UPDATE infertrace_schema SET version = %s", [step + 1])
        _log.info("the schema has version %d now", step + 1)
    missing = missing_columns(present_columns(connection, table.source))
    if missing:
        table.add_columns(connection, missing)
        names = ", ".join(column.name for column in missing)
        _log.info("the table of spans has the columns %s now", names)


def _add_producer_columns(connection: Connection) -> None:
    # Asked first, as the statement would lock the table against those that write even if it
    # has nothing to add.
    for name in _LATER_PRODUCER_TYPES.keys() - present_columns(connection, "producers"):
        connection.execute(f"ALTER TABLE producers ADD COLUMN {name} {_LATER_PRODUCER_TYPES[name]}")


def _found(connection: Connection) -> SpanTable:
    """The form that the table has: partitions stay, even if the server got the extension since."""
    ((kind,),) = connection.execute(
        "SELECT relkind::text FROM pg_class WHERE oid = 'spans'::regclass"
    ).fetchall()
    return DayPartitions() if kind == "p" else Hypertable(_version(connection) or "unknown")


def _offered(connection: Connection) -> SpanTable:
    version = _version(connection)
    if version is None and connection.execute(_OFFERED).fetchall():
        try:
            with connection.transaction():
                connection.execute("CREATE EXTENSION timescaledb")
        except psycopg.Error as error:
            _log.warning(
                "TimescaleDB is there, but CREATE EXTENSION fails, so spans go to partitions: %s",
                str(error).partition("\n")[0],
            )
        version = _version(connection)
    return DayPartitions() if version is None else Hypertable(version)


def _version(connection: Connection) -> str | None:
    found = connection.execute(_EXTENSION).fetchall()
    return found[0][0] if found else None
