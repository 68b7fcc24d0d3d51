"""An append-only log of Arrow batches: what is acknowledged and not in the database yet.

An entry is a header (how many bytes follow, their CRC-32), then a JSON text, and then the columns
of its rows that hold a value, as a message of Arrow IPC for each of their batches. The text
names these columns, so that an infertrace with a later schema can read the entry. Columns that are
the same for all spans of a request are in the text, as runs of equal values. Entries are numbered;
a file is named after its first entry, and is deleted when all of its entries are in the database.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from isal import igzip_lib as _igzip_lib  # noqa: F401  isal_zlib loads it unseen by PyInstaller
from isal import isal_zlib  # its CRC-32 takes a tenth of zlib's time

from infertrace.collector.store.columns import COLUMNS
from infertrace.collector.store.span_rows import SCHEMA, absent, byte_count
from infertrace.collector.store.store import StoreError

MAX_FILE_BYTES = 64 * 1024 * 1024  # then the next one is begun

_HEADER = struct.Struct("<II")  # bytes that follow, their CRC-32
_LENGTH = struct.Struct("<I")
_UNREADABLE = (pa.ArrowException, LookupError, OSError, TypeError, ValueError)

_IN_RUNS = tuple(column.name for column in COLUMNS if not column.wire)

# Before entries named their columns, they had the indices of these at that time.
_UNNAMED_COLUMNS = """
    trace_id span_id parent_span_id service_name operation_name start_time duration_nanos status
    status_message model_name model_version batch_size input_tokens output_tokens framework
    sequence_length cache_hit_rate pipeline_stage queue_depth queue_wait_time_ms batch_fill_ratio
    time_to_first_token_ms inter_token_latency_ms gpu_utilization_percent gpu_memory_used_bytes
    gpu_memory_total_bytes gpu_device_id cpu_utilization_percent memory_heap_bytes sample_age_ms
    gpu_power_watts gpu_temperature_celsius tags attributes events links invalid_field_count"""
_UNNAMED_ACCOUNT = """
    producer_id first_seen last_seen service_name produced stored rejected duplicates dropped
    received finished"""


@dataclass(frozen=True)
class Entry:
    """Batches of rows that were committed together, with what else the commit has to write.

    There is at least one batch, which may have no rows. `accounts` are those that it changed, as
    JSON types by the names of their columns. `resources` are the attributes, by their ids, of
    resources that the database may not have yet.
    """

    number: int
    batches: Sequence[pa.RecordBatch]
    accounts: list[dict[str, Any]]
    resources: dict[str, str] = field(default_factory=dict)

    @property
    def row_count(self) -> int:
        return sum(map(len, self.batches))

    @cached_property
    def byte_count(self) -> int:
        """Roughly what it takes in memory."""
        return sum(map(byte_count, self.batches)) + sum(map(len, self.resources.values()))


class Journal:
    """The journal beside the database at `path`. One thread at a time may use it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._size = 0
        # No glob: the name of a database may hold characters that are special in patterns.
        found = (re.fullmatch(r"\.([1-9][0-9]*)", name) for name in _endings(path, ".journal"))
        self._firsts: list[int] = sorted(int(match[1]) for match in found if match)

    def read(self) -> Iterator[Entry]:
        """All entries in order.

        An entry that a kill left half written was never acknowledged: its file ends before it.
        Raises StoreError for a whole entry that this infertrace cannot read.
        """
        for first in self._firsts:
            name = self._name(first)
            with name.open("rb") as file:
                while (body := _read_body(file)) is not None:
                    try:
                        entry = _entry(body)
                    except _UNREADABLE as error:
                        raise StoreError(
                            f"cannot read an entry of {name}, which a newer infertrace may have "
                            f"written: {error!r}"
                        ) from error
                    yield entry

    def append(self, entry: Entry) -> None:
        """Make an entry durable; raises StoreError, and then the entry is not in the journal."""
        parts = _parts(entry)
        size = sum(map(len, parts))
        try:
            file = self._open(entry.number)
            together = os.sysconf("SC_IOV_MAX")
            written = sum(
                os.writev(file, parts[first : first + together])
                for first in range(0, len(parts), together)
            )
            if written != size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fdatasync(file)
        except OSError as error:
            # Whatever state the file is in, nothing more is appended to it.
            self._end_file(self._size)
            raise StoreError(f"cannot write the journal of {self._path}: {error}") from error
        self._size += size

    def truncate_through(self, number: int) -> None:
        """Delete files whose entries all have numbers up to `number`."""
        while len(self._firsts) > 1 and self._firsts[1] <= number + 1:
            self._name(self._firsts.pop(0)).unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete all files."""
        self.close()
        while self._firsts:
            self._name(self._firsts.pop()).unlink(missing_ok=True)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _name(self, first: int) -> Path:
        return self._path.with_name(f"{self._path.name}.journal.{first}")

    def _open(self, number: int) -> int:
        if self._size >= MAX_FILE_BYTES:
            self._end_file(None)
        if self._file is None:
            # A file that was not read may hold acknowledged entries, so it is never overwritten.
            fresh = os.O_TRUNC if number in self._firsts else os.O_EXCL
            flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND | fresh
            self._file = os.open(self._name(number), flags | getattr(os, "O_BINARY", 0), 0o600)
            self._size = 0
            if number not in self._firsts:
                self._firsts.append(number)
            _sync_directory(self._path.parent)
        return self._file

    def _end_file(self, keep_bytes: int | None) -> None:
        if self._file is None:
            return
        if keep_bytes is not None:
            with suppress(OSError):
                os.ftruncate(self._file, keep_bytes)
        self.close()
        self._size = 0


def _parts(entry: Entry) -> list[Any]:
    names = entry.batches[0].schema.names
    present = [
        name
        for name, *columns in zip(names, *(rows.columns for rows in entry.batches), strict=True)
        if name not in _IN_RUNS and any(it.null_count < len(it) for it in columns)
    ]
    described = {
        "number": entry.number,
        "columns": present,
        "runs": {name: _runs([rows.column(name) for rows in entry.batches]) for name in _IN_RUNS},
        "accounts": entry.accounts,
        "resources": entry.resources,
    }
    text = json.dumps(described, separators=(",", ":")).encode()
    parts = [_LENGTH.pack(len(text)), text, *_messages(entry.batches, present)]
    checksum = 0
    for part in parts:
        checksum = isal_zlib.crc32(part, checksum)
    return [_HEADER.pack(sum(map(len, parts)), checksum), *parts]


class _Pieces(io.RawIOBase):
    """A file that keeps what is written to it as it is given: Arrow's buffers, without a copy."""

    def __init__(self) -> None:
        self.pieces: list[Any] = []

    def writable(self) -> bool:
        return True

    def write(self, piece: Any) -> int:
        self.pieces.append(piece)
        return len(piece)


def _messages(batches: Sequence[pa.RecordBatch], names: Sequence[str]) -> list[Any]:
    """These columns of batches as messages of Arrow IPC, in pieces."""
    chosen = [rows.select(names) for rows in batches]
    file = _Pieces()
    with pa.ipc.new_stream(pa.PythonFile(file, mode="w"), chosen[0].schema) as stream:
        stream.write_batch(chosen[0][:0])  # the first batch brings the schema, which is known
        begun = len(file.pieces)
        for rows in chosen:
            stream.write_batch(rows)
        return file.pieces[begun:]


def _read_body(file: Any) -> bytes | None:
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    size, checksum = _HEADER.unpack(header)
    body: bytes = file.read(size)
    if len(body) < size or size < _LENGTH.size or isal_zlib.crc32(body) != checksum:
        return None
    return body


def _entry(body: bytes) -> Entry:
    (length,) = _LENGTH.unpack_from(body)
    end = _LENGTH.size + length
    described = json.loads(body[_LENGTH.size : end])
    if isinstance(described, list):
        described = _named(*described)
    runs = {SCHEMA.field(name).name: _of_runs(it) for name, it in described["runs"].items()}
    return Entry(
        described["number"],
        _batches(pa.BufferReader(body[end:]), described["columns"], runs),
        described["accounts"],
        described["resources"],
    )


def _batches(
    file: pa.BufferReader, names: Sequence[str], in_runs: dict[str, pa.Array]
) -> list[pa.RecordBatch]:
    """The batches of an entry; `in_runs` are the columns that are not in the file.

    Raises KeyError for a column that is unknown, and ValueError where the rows are not as many as
    those of the columns in runs.
    """
    schema = pa.schema([SCHEMA.field(name) for name in names])
    batches: list[pa.RecordBatch] = []
    count = 0
    while file.tell() < file.size():
        found = pa.ipc.read_record_batch(pa.ipc.read_message(file), schema)
        present = dict(zip(schema.names, found.columns, strict=True))
        present |= {name: column[count : count + len(found)] for name, column in in_runs.items()}
        columns = [
            present[column.name] if column.name in present else absent(column.type, len(found))
            for column in SCHEMA
        ]
        batches.append(pa.RecordBatch.from_arrays(columns, schema=SCHEMA))
        count += len(found)
    if not batches or any(len(column) != count for column in in_runs.values()):
        raise ValueError(f"{count} rows in {len(batches)} batches")
    return batches


def _runs(columns: Sequence[pa.Array]) -> list[list[Any]]:
    """Columns of ids, one after the other, as runs of equal ones: where each ends, and the id."""
    runs: list[list[Any]] = []
    start = 0
    for column in columns:
        encoded = pc.run_end_encode(column.storage)
        for end, value in zip(
            encoded.run_ends.to_pylist(), encoded.values.to_pylist(), strict=True
        ):
            runs.append([start + end, None if value is None else value.hex()])
        start += len(column)
    return runs


def _of_runs(runs: list[list[Any]]) -> pa.Array:
    values = [None if value is None else bytes.fromhex(value) for _, value in runs]
    encoded = pa.RunEndEncodedArray.from_arrays(
        pa.array([end for end, _ in runs], pa.int32()), pa.array(values, pa.binary(16))
    )
    return pa.ExtensionArray.from_storage(pa.uuid(), pc.run_end_decode(encoded))


def _named(number: int, places: list[int], accounts: list[list[Any]]) -> dict[str, Any]:
    """The text of an entry from before columns were named, in the form of today."""
    columns, of_account = _UNNAMED_COLUMNS.split(), _UNNAMED_ACCOUNT.split()
    return {
        "number": number,
        "columns": [columns[place] for place in places],
        "runs": {},
        "accounts": [dict(zip(of_account, account, strict=True)) for account in accounts],
        "resources": {},
    }


def _endings(path: Path, suffix: str) -> Iterator[str]:
    """The rest of the names of files beside `path` that begin with its name and `suffix`."""
    start = path.name + suffix
    for found in path.parent.iterdir():
        if found.name.startswith(start):
            yield found.name[len(start) :]


def _sync_directory(path: Path) -> None:
    """Make the name of a new file durable."""
    if os.name != "posix":
        return
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
