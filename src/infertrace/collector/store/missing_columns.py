"""What the table of spans of an older infertrace lacks: a store adds it when it is opened."""

from __future__ import annotations

from collections.abc import Collection

from infertrace.collector.store.columns import COLUMNS, Column
from infertrace.collector.store.store import StoreError


def missing_columns(present: Collection[str]) -> list[Column]:
    """The columns of `COLUMNS` whose names are not `present`.

    Raises StoreError where one of them is required: the rows that are there have no value for it.
    Columns that only `present` has are those of a newer infertrace, and stay as they are.
    """
    missing = [column for column in COLUMNS if column.name not in present]
    for column in missing:
        if column.required:
            raise StoreError(f"its table of spans has no column {column.name}")
    return missing
