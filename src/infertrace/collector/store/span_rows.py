"""Parsed spans as the rows of a store, column by column."""

from __future__ import annotations

import json
import sys
import uuid
from array import array
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from math import isfinite
from operator import attrgetter
from typing import Any

import pyarrow as pa

from infertrace.collector.store.columns import COLUMNS, Column
from infertrace.collector.store.kinds import KINDS
from infertrace.collector.store.timestamps import format_rfc3339
from infertrace.generated.span_pb2 import AttributeValue, Span
from infertrace.wire import token_intervals

BYTES_KEY = "$bytes"
"""The one key of an object that stands for bytes, which JSON cannot hold; its value is base64."""

_DEFAULT_STATUS = "OK"
_SHARED_ROWS = 2**18  # as many as a request or a transaction has at most, with few exceptions

SCHEMA = pa.schema([(column.name, KINDS[column.kind].arrow) for column in COLUMNS])
"""The Arrow types of `COLUMNS`."""

DECODED_COLUMNS = tuple(column for column in COLUMNS if column.wire)
DECODED_SCHEMA = pa.schema([SCHEMA.field(column.name) for column in DECODED_COLUMNS])
"""The columns from the span itself; the last columns come from its request."""


def span_rows(spans: Sequence[Span]) -> pa.RecordBatch:
    """The rows of valid spans, in their order, with the columns of `DECODED_COLUMNS`."""
    messages: dict[str, Sequence[Any]] = {"": spans}
    for part in ("inference", "resources"):
        if any(span.HasField(part) for span in spans):
            messages[part] = list(map(attrgetter(part), spans))
    arrays = []
    for column in DECODED_COLUMNS:
        part, _, field = column.wire.rpartition(".")
        if part in messages:
            arrays.append(_array(column, field, messages[part]))
        else:
            arrays.append(absent(KINDS[column.kind].arrow, len(spans)))
    return pa.RecordBatch.from_arrays(arrays, schema=DECODED_SCHEMA)


def with_origin(
    rows: pa.RecordBatch, producer_id: uuid.UUID | None, resource_id: uuid.UUID | None
) -> pa.RecordBatch:
    """Decoded rows with all columns of `COLUMNS`: the ids of their producer and resource added."""
    origin = [_repeated(value, len(rows)) for value in (producer_id, resource_id)]
    return pa.RecordBatch.from_arrays([*rows.columns, *origin], schema=SCHEMA)


def with_origins(
    rows: pa.RecordBatch, origins: Sequence[tuple[uuid.UUID, uuid.UUID | None, int]]
) -> pa.RecordBatch:
    """The same for rows of several origins: producer, resource, and how many rows they have."""
    if len(origins) == 1:
        return with_origin(rows, *origins[0][:2])
    if not origins:
        return with_origin(rows, None, None)
    producers = pa.concat_arrays([_repeated(producer, count) for producer, _, count in origins])
    resources = pa.concat_arrays([_repeated(resource, count) for _, resource, count in origins])
    columns = [*rows.columns, producers, resources]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def merged_rows(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Batches as one; there is at least one of them, and all have the same columns."""
    if len(batches) == 1:
        return batches[0]
    columns = map(_merged, zip(*(batch.columns for batch in batches), strict=True))
    return pa.RecordBatch.from_arrays(list(columns), schema=batches[0].schema)


def _merged(parts: Sequence[pa.Array]) -> pa.Array:
    if all(part.null_count == len(part) for part in parts):  # as most columns are
        return absent(parts[0].type, sum(map(len, parts)))
    return pa.concat_arrays(parts)


def absent(kind: pa.DataType, count: int) -> pa.Array:
    """A column without a value; those of one type share their memory."""
    return _absent(kind)[:count] if count <= _SHARED_ROWS else pa.nulls(count, kind)


@lru_cache
def _absent(kind: pa.DataType) -> pa.Array:
    return pa.nulls(_SHARED_ROWS, kind)


def byte_count(rows: pa.RecordBatch) -> int:
    """Roughly what rows take in memory: their columns without a value share theirs with others'."""
    return sum(column.nbytes for column in rows.columns if column.null_count < len(column))


def _repeated(value: uuid.UUID | None, count: int) -> pa.Array:
    if value is None:
        return absent(pa.uuid(), count)
    values = pa.py_buffer(value.bytes * count)  # pa.repeat appends one value after the other
    storage = pa.Array.from_buffers(pa.binary(16), count, [None, values])
    return pa.ExtensionArray.from_storage(pa.uuid(), storage)


def _array(column: Column, field: str, messages: Sequence[Any]) -> pa.Array:
    if column.kind == "uuid":
        ids = pa.array([getattr(message, field) for message in messages], type=pa.binary(16))
        return pa.ExtensionArray.from_storage(pa.uuid(), ids)
    if column.kind == "span_id":
        return _span_ids([getattr(message, field) for message in messages], column.required)
    return pa.array(_values(column, field, messages), type=KINDS[column.kind].arrow)


def _span_ids(ids: Sequence[bytes], required: bool) -> pa.Array:
    if not required:
        return pa.array([int.from_bytes(i, "big") or None for i in ids], type=pa.uint64())
    numbers = array("Q", b"".join(ids))
    if sys.byteorder == "little":
        numbers.byteswap()
    return pa.Array.from_buffers(pa.uint64(), len(ids), [None, pa.py_buffer(numbers)])


def _values(column: Column, field: str, messages: Sequence[Any]) -> Iterable[object]:
    if column.kind == "json":
        to_json = _JSON_FIELDS[field]
        return [to_json(value) if value else None for value in map(attrgetter(field), messages)]
    if column.kind == "intervals":
        return [
            token_intervals.encode(it.offset, it.counts) if message.HasField(field) else None
            for message, it in ((message, getattr(message, field)) for message in messages)
        ]
    if column.name == "status":
        return [message.status or _DEFAULT_STATUS for message in messages]
    if column.required:
        return map(attrgetter(field), messages)
    if not messages or not messages[0].DESCRIPTOR.fields_by_name[field].has_presence:
        return [getattr(message, field) or None for message in messages]
    present: list[Any] = [
        getattr(message, field) if message.HasField(field) else None for message in messages
    ]
    if column.kind in ("float32", "float64"):
        # JSON has no NaN and no infinity, and neither is a measured value.
        return [value if value is not None and isfinite(value) else None for value in present]
    return present


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _value(value: AttributeValue) -> object:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "bytes_value":
        return {BYTES_KEY: b64encode(value.bytes_value).decode()}
    if kind == "array_value":
        return [_value(member) for member in value.array_value.values]
    if kind == "key_value_list":
        members = {member.key: member.value for member in value.key_value_list.values}
        return _escaped({key: _value(members[key]) for key in sorted(members)})
    scalar: str | bool | int | float = getattr(value, kind)
    if isinstance(scalar, float) and not isfinite(scalar):
        # As in the JSON mapping of protobuf: "NaN", "Infinity", "-Infinity".
        return "NaN" if scalar != scalar else "Infinity" if scalar > 0 else "-Infinity"
    return scalar


def _escaped(members: dict[str, object]) -> dict[str, object]:
    """A map with the one key of bytes would read as bytes, so it gets another "$"; so does that."""
    only = next(iter(members)) if len(members) == 1 else ""
    if only.endswith(BYTES_KEY) and not only.removesuffix(BYTES_KEY).strip("$"):
        return {f"${only}": members[only]}
    return members


def _attributes(attributes: Mapping[str, AttributeValue]) -> dict[str, object]:
    return {key: _value(attributes[key]) for key in sorted(attributes)}


def attributes_json(attributes: Mapping[str, AttributeValue]) -> str:
    """Attributes as the text of a JSON object, whose keys are in order."""
    return _text(_attributes(attributes))


def _event(event: Any) -> dict[str, object]:
    shown = {"time": format_rfc3339(event.time_unix_nano), "name": event.name}
    return {**shown, **_rest(event)}


def _link(link: Any) -> dict[str, object]:
    shown: dict[str, object] = {"trace_id": link.trace_id.hex(), "span_id": link.span_id.hex()}
    if link.trace_state:
        shown["trace_state"] = link.trace_state
    if link.flags:
        shown["flags"] = link.flags
    return {**shown, **_rest(link)}


def _rest(part: Any) -> dict[str, object]:
    """What an event and a link end with."""
    rest: dict[str, object] = {}
    if part.attributes:
        rest["attributes"] = _attributes(part.attributes)
    if part.dropped_attributes_count:
        rest["dropped_attributes_count"] = part.dropped_attributes_count
    return rest


_JSON_FIELDS: dict[str, Callable[[Any], str]] = {
    "tags": lambda tags: _text(dict(sorted(tags.items()))),
    "attributes": attributes_json,
    "scope_attributes": attributes_json,
    "events": lambda events: _text(list(map(_event, events))),
    "links": lambda links: _text(list(map(_link, links))),
}


def without(rows: pa.RecordBatch, positions: set[int]) -> pa.RecordBatch:
    """The rows but for those at some positions."""
    if not positions:
        return rows
    kept = [position for position in range(len(rows)) if position not in positions]
    return rows.take(pa.array(kept, type=pa.int64()))
