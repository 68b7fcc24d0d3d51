"""How the table of spans lies in PostgreSQL: what its two forms share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import psycopg
import pyarrow as pa
import pyarrow.compute as pc

from infertrace.collector.store.columns import COLUMNS
from infertrace.collector.store.retention import Retention

NANOS_PER_DAY = 86_400_000_000_000
PAST_DAYS, FUTURE_DAYS = 400, 2  # days with a table of their own; others share one

_SQL_TYPES = {
    "uuid": "uuid",
    "span_id": "bigint",
    "text": "text",
    "time": "bigint",
    "duration": "bigint",
    "int32": "integer",
    "int64": "bigint",
    "float32": "real",
    "float64": "double precision",
    "json": "text",
}
NAMES = ", ".join(column.name for column in COLUMNS)
# Names and texts are compared by their bytes.
COLUMNS_SQL = ", ".join(
    f"{column.name} {_SQL_TYPES[column.kind]}{' NOT NULL' if column.required else ''}"
    for column in COLUMNS
).replace(" text", ' text COLLATE "C"')

Connection = psycopg.Connection[Any]
Target = tuple[str, str]
"""A table that takes rows, and the condition in SQL on those that it takes."""


class SpanTable(Protocol):
    """The table of spans; its methods run in the transaction of the connection they are given."""

    source: str
    """What to select spans from."""

    def describe(self) -> str:
        """What it is, in a few words."""

    def create(self, connection: Connection) -> None:
        """Make it, empty."""

    def add_columns(self, connection: Connection, columns: Sequence[str]) -> None:
        """Add columns, each as its name and its type, to a table from before them."""

    def targets(self, connection: Connection, rows: pa.RecordBatch) -> Sequence[Target]:
        """The tables that these rows go to, which are there then."""

    def forget(self) -> None:
        """What was made in a transaction may be gone with it."""

    def retain(self, connection: Connection, retention: Retention) -> int:
        """Delete the oldest spans beyond an age or a size; returns how many."""


def days_of(rows: pa.RecordBatch) -> list[int]:
    """The days on which these rows start, since 1970, in order."""
    return sorted(pc.unique(pc.divide(rows.column("start_time"), NANOS_PER_DAY)).to_pylist())
