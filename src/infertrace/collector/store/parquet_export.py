"""Exports stored spans as Parquet files, which other engines read directly.

Hive partitions by day (of the start, UTC) and model; `partition_names.py` has the names of their
folders. Ids are hexadecimal text, as in the answers of the query API; `start_time` has
microseconds, which every engine can read, and `start_time_unix_nano` the whole time. `resource` has
the attributes of the resource, as JSON. The other columns are those of the store.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow.fs import LocalFileSystem

from infertrace.collector.store.columns import COLUMNS
from infertrace.collector.store.partition_names import NULL_NAME, partition_name
from infertrace.collector.store.private_files import private_files
from infertrace.collector.store.store import SpanSource

MAX_OPEN_FILES = 256
SUFFIX = ".parquet"


def export_parquet(store: SpanSource, to: Path, since_ns: int, until_ns: int) -> int:
    """Write the spans that started at `since_ns` or later and before `until_ns`; returns how many.

    Times are nanoseconds since 1970. Files of an earlier export to the same folder stay as they
    are where nothing new goes into their partition; raises OSError. Files and folders are private
    to their owner.
    """
    count = 0
    resources = _Resources(store)
    partitions = _Partitions(to)
    with private_files():
        try:
            for rows in store.rows(since_ns, until_ns):
                count += len(rows)
                partitions.write(_flat(rows, resources.of(rows)))
        finally:
            partitions.close()
    return count


class _Partitions:
    """The files of an export, at most MAX_OPEN_FILES of them open."""

    def __init__(self, to: Path) -> None:
        self._to = to
        self._parts: dict[Path, int] = {}  # how many files each folder has
        self._open: dict[Path, pq.ParquetWriter] = {}  # the least recently used first

    def write(self, rows: pa.Table) -> None:
        """Write each row to the file of its partition."""
        groups = pa.table({name: rows.column(name) for name in ("day", "model_name")})
        groups = groups.append_column("place", pa.array(range(len(rows)), pa.int64()))
        groups = groups.group_by(["day", "model_name"]).aggregate([("place", "list")])
        columns = (groups.column(name) for name in ("day", "model_name", "place_list"))
        for day, model, places in zip(*columns, strict=True):
            name = NULL_NAME if model.as_py() is None else partition_name(model.as_py())
            folder = self._to / f"day={day.as_py()}" / f"model={name}"
            self._writer(folder, rows).write_table(rows.take(places.values).drop_columns("day"))

    def _writer(self, folder: Path, rows: pa.Table) -> pq.ParquetWriter:
        writer = self._open.pop(folder, None)
        if writer is None:
            if folder not in self._parts:
                folder.mkdir(parents=True, exist_ok=True)
                for earlier in folder.iterdir():
                    if earlier.suffix == SUFFIX:
                        earlier.unlink()
            if len(self._open) >= MAX_OPEN_FILES:
                self._open.pop(next(iter(self._open))).close()
            number = self._parts.get(folder, 0)
            self._parts[folder] = number + 1
            schema = rows.drop_columns("day").schema
            writer = pq.ParquetWriter(
                str(folder.absolute() / f"part-{number}{SUFFIX}"),
                schema,
                compression="zstd",
                filesystem=LocalFileSystem(),  # otherwise pyarrow takes some paths for URLs
            )
        self._open[folder] = writer
        return writer

    def close(self) -> None:
        """Finish all files."""
        for writer in self._open.values():
            writer.close()
        self._open.clear()


class _Resources:
    """The attributes of the resources in an export, each read once."""

    def __init__(self, store: SpanSource) -> None:
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


def _flat(rows: pa.RecordBatch, resources: pa.Array) -> pa.Table:
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
    return pa.table(columns)
