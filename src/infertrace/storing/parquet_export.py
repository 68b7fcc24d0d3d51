"""Stored spans as Parquet files that other engines read as they stand.

Hive partitions by day (of the start, UTC) and model. Ids are hexadecimal text, as in the answers
of the query API; `start_time` has microseconds, which every engine can read, and
`start_time_unix_nano` the whole time. `resource` has the attributes of the resource, as JSON. The
other columns are those of the store.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from infertrace.storing.columns import COLUMNS
from infertrace.storing.store import Store

MAX_PARTITIONS = 100_000  # in one batch of rows
MAX_OPEN_FILES = 256

_PARTITIONS = pa.schema([("day", pa.string()), ("model", pa.string())])


def export_parquet(store: Store, to: Path, since: int, until: int) -> int:
    """Write the spans that started at `since` or later and before `until`; returns how many.

    Times are nanoseconds since 1970. Files of an earlier export to the same folder stay as they
    are where nothing new goes into their partition; raises OSError.
    """
    counted = [0]
    resources = _Resources(store)

    def batches() -> Iterator[pa.RecordBatch]:
        for rows in store.rows(since, until):
            counted[0] += len(rows)
            yield _flat(rows, resources.of(rows))

    written = batches()
    first = next(written, None)
    if first is None:
        return 0

    def all_batches() -> Iterator[pa.RecordBatch]:
        yield first
        yield from written

    ds.write_dataset(
        all_batches(),
        to,
        schema=first.schema,
        format="parquet",
        partitioning=ds.partitioning(_PARTITIONS, flavor="hive"),
        existing_data_behavior="delete_matching",
        max_partitions=MAX_PARTITIONS,
        max_open_files=MAX_OPEN_FILES,
        file_options=ds.ParquetFileFormat().make_write_options(compression="zstd"),
    )
    return counted[0]


class _Resources:
    """The attributes of the resources in an export, each asked for once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[uuid.UUID, str | None] = {}

    def of(self, rows: pa.RecordBatch) -> pa.Array:
        """For each row, as the text of a JSON object."""
        ids = rows.column("resource_id").to_pylist()
        asked = {key for key in ids if key is not None and key not in self._known}
        if asked:
            self._known.update(dict.fromkeys(asked))
            self._known.update(self._store.resources(asked))
        return pa.array([None if key is None else self._known[key] for key in ids], pa.string())


def _flat(rows: pa.RecordBatch, resources: pa.Array) -> pa.RecordBatch:
    columns: dict[str, Any] = {}
    for column in COLUMNS:
        values = rows.column(column.name)
        if column.kind == "uuid":
            ids = (None if v is None else v.hex() for v in values.storage.to_pylist())
            values = pa.array(ids, pa.string())
        elif column.kind == "span_id":
            hexadecimal = (None if v is None else f"{v:016x}" for v in values.to_pylist())
            values = pa.array(hexadecimal, pa.string())
        columns[column.name] = values
    columns["resource"] = resources
    start = columns["start_time"]
    moment = pc.divide(start, 1_000).cast(pa.timestamp("us", "UTC"))
    columns["start_time_unix_nano"] = start
    columns["start_time"] = moment
    columns["day"] = pc.strftime(moment, format="%Y-%m-%d")
    columns["model"] = columns["model_name"]
    return pa.RecordBatch.from_pydict(columns)
