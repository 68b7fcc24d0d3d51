"""The table of spans in PostgreSQL: what its two forms share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import psycopg
import pyarrow as pa
import pyarrow.compute as pc

from infertrace.collector.store.columns import COLUMNS, Column
from infertrace.collector.store.kinds import KINDS
from infertrace.collector.store.store import Retention

NANOS_PER_DAY = 86_400_000_000_000
PAST_DAYS, FUTURE_DAYS = 400, 2  # days with their own table; others share one

NAMES = ", ".join(column.sql_name for column in COLUMNS)


def column_sql(column: Column) -> str:
    """The definition of a column."""
    return (
        f"{column.sql_name} {KINDS[column.kind].postgres}{' NOT NULL' if column.required else ''}"
    )


COLUMNS_SQL = ", ".join(map(column_sql, COLUMNS))

Connection = psycopg.Connection[Any]
Target = tuple[str, str]
"""A table to insert into, and the condition in SQL on the rows that go there."""


class SpanTable(Protocol):
    """The table of spans; its methods run in the current transaction of their connection."""

    source: str
    """What to select spans from."""

    def describe(self) -> str:
        """Its form, in a few words."""

    def create(self, connection: Connection) -> None:
        """Create the table."""

    def add_columns(self, connection: Connection, columns: Sequence[Column]) -> None:
        """Add columns that `source` does not have."""

    def targets(self, connection: Connection, rows: pa.RecordBatch) -> Sequence[Target]:
        """Target tables for these rows; creates missing ones."""

    def invalidate(self) -> None:
        """Forget which tables exist: a transaction that made some was rolled back."""

    def retain(self, connection: Connection, retention: Retention) -> int:
        """Delete the oldest spans beyond an age or a size; returns how many."""


def days_of(rows: pa.RecordBatch) -> list[int]:
    """The days on which these rows start, since 1970, in order."""
    return sorted(pc.unique(pc.divide(rows.column("start_time"), NANOS_PER_DAY)).to_pylist())


def present_columns(connection: Connection, relation: str) -> list[str]:
    """The names of the columns of a table or a view, in their order there."""
    rows = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass "
        "AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        [relation],
    ).fetchall()
    return [name for (name,) in rows]
