"""The table of spans in DuckDB: it has a column from the first value on that is stored there.

DuckDB pays for each column of each row, also where it is NULL, and most spans have values for a
third of the columns. The view `all_spans` has all of them: what the table lacks is NULL there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import duckdb
import pyarrow as pa

from infertrace.collector.store.columns import COLUMNS, Column
from infertrace.collector.store.kinds import KINDS
from infertrace.collector.store.missing_columns import missing_columns

_COLUMNS_OF = "SELECT column_name FROM duckdb_columns() WHERE table_name = ?"


def create_span_table(connection: duckdb.DuckDBPyConnection) -> None:
    """Make an empty table, and its view."""
    required = [column for column in COLUMNS if column.required]
    connection.execute(f"CREATE TABLE spans ({', '.join(map(_definition, required))})")
    define_view(connection)


def define_view(connection: duckdb.DuckDBPyConnection) -> None:
    """Have the view show what the table has now.

    Raises StoreError where the table has no column for a value that each span has.
    """
    missing = missing_columns(column_names(connection, "spans"))
    shown = [_null(column) if column in missing else column.sql_name for column in COLUMNS]
    connection.execute(f"CREATE OR REPLACE VIEW all_spans AS SELECT {', '.join(shown)} FROM spans")


def add_columns(connection: duckdb.DuckDBPyConnection, names: Collection[str]) -> None:
    """Give the table these columns of `COLUMNS`, and the view their values."""
    for column in COLUMNS:
        if column.name in names and not column.required:
            connection.execute(f"ALTER TABLE spans ADD COLUMN IF NOT EXISTS {_definition(column)}")
    define_view(connection)


def insert(
    connection: duckdb.DuckDBPyConnection,
    batches: Sequence[pa.RecordBatch],
    names: Collection[str],
) -> None:
    """Append rows with the columns of `COLUMNS`, of which only these have values."""
    rows = pa.Table.from_batches([batch.select(list(names)) for batch in batches])
    connection.register("incoming", rows)
    try:
        connection.execute("INSERT INTO spans BY NAME SELECT * FROM incoming")
    finally:
        connection.unregister("incoming")


def names_with_values(batches: Sequence[pa.RecordBatch]) -> list[str]:
    """The columns of these rows that a span must have, or has a value for."""
    return [
        column.name
        for index, column in enumerate(COLUMNS)
        if column.required or any(rows.column(index).null_count < rows.num_rows for rows in batches)
    ]


def column_names(connection: duckdb.DuckDBPyConnection, table: str) -> set[str]:
    """The names of a table's columns."""
    return {name for (name,) in connection.execute(_COLUMNS_OF, [table]).fetchall()}


def _definition(column: Column) -> str:
    definition = f"{column.sql_name} {KINDS[column.kind].duckdb}"
    if column.kind == "json":
        # These texts are most of a row. To try each of its compressions on them, as DuckDB does
        # otherwise, takes an insert longer, and what it finds takes more room.
        definition += " USING COMPRESSION zstd"
    return f"{definition} NOT NULL" if column.required else definition


def _null(column: Column) -> str:
    return f"NULL::{KINDS[column.kind].duckdb} AS {column.sql_name}"
