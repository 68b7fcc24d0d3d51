"""The schema in PostgreSQL, and the one place that chooses how the table of spans lies there."""

from __future__ import annotations

import logging

import psycopg

from infertrace.storing.day_partitions import DayPartitions
from infertrace.storing.hypertable import Hypertable
from infertrace.storing.span_table import Connection, SpanTable
from infertrace.storing.store import StoreError

SCHEMA_VERSION = 1

_log = logging.getLogger(__name__)

# Collectors that start together make the schema one after another; the number is arbitrary.
_SCHEMA_LOCK = 0x696E6665
_CREATE = (
    f"CREATE TABLE infertrace_schema (version integer NOT NULL); "
    f"INSERT INTO infertrace_schema VALUES ({SCHEMA_VERSION})",
    """CREATE TABLE producers (
        producer_id bytea PRIMARY KEY, first_seen bigint NOT NULL, last_seen bigint NOT NULL,
        service_name text NOT NULL, produced numeric NOT NULL, stored numeric NOT NULL,
        rejected numeric NOT NULL, duplicates numeric NOT NULL, dropped text NOT NULL,
        received text NOT NULL, finished boolean NOT NULL)""",
)
_EXTENSION = "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'"
_OFFERED = """
    SELECT FROM pg_available_extensions WHERE name = 'timescaledb'
    AND current_setting('shared_preload_libraries') ~ '\\mtimescaledb\\M'"""


def ensure_schema(connection: Connection) -> SpanTable:
    """Make the schema in a new database, or see that it is one that we know; then commit."""
    connection.execute("SELECT pg_advisory_xact_lock(%s)", [_SCHEMA_LOCK])
    (known,) = connection.execute("SELECT to_regclass('infertrace_schema') IS NOT NULL").fetchall()[
        0
    ]
    if known:
        (version,) = connection.execute("SELECT max(version) FROM infertrace_schema").fetchall()[0]
        if version != SCHEMA_VERSION:
            raise StoreError(
                f"the schema has version {version}, and this infertrace knows version "
                f"{SCHEMA_VERSION}; use the infertrace that wrote it, or a newer one"
            )
        table = _found(connection)
    else:
        table = _offered(connection)
        for statement in _CREATE:
            connection.execute(statement)
        table.create(connection)
    connection.commit()
    _log.info("the table of spans: %s", table.describe())
    return table


def _found(connection: Connection) -> SpanTable:
    """As it was made: a server that has the extension since then keeps the partitions."""
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
