"""Parsed spans as the rows of a store, column by column."""

from __future__ import annotations

import json
import sys
import uuid
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite
from operator import attrgetter
from typing import Any

import pyarrow as pa

from infertrace.collector.store.columns import COLUMNS, Column
from infertrace.collector.store.kinds import KINDS
from infertrace.collector.store.timestamps import format_rfc3339
from infertrace.generated.span_pb2 import AttributeValue, Span

_DEFAULT_STATUS = "OK"

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
            arrays.append(pa.nulls(len(spans), type=KINDS[column.kind].arrow))
    return pa.RecordBatch.from_arrays(arrays, schema=DECODED_SCHEMA)


def with_origin(
    rows: pa.RecordBatch, producer_id: uuid.UUID | None, resource_id: uuid.UUID | None
) -> pa.RecordBatch:
    """Decoded rows with all columns of `COLUMNS`: the ids of their producer and resource added."""
    origin = [_repeated(value, len(rows)) for value in (producer_id, resource_id)]
    return pa.RecordBatch.from_arrays([*rows.columns, *origin], schema=SCHEMA)


def merged_rows(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Batches as one; there is at least one of them."""
    table = pa.Table.from_batches(batches).combine_chunks()
    return table.to_batches()[0] if len(table) else batches[0]


def _repeated(value: uuid.UUID | None, count: int) -> pa.Array:
    if value is None:
        return pa.nulls(count, pa.uuid())
    storage = pa.repeat(pa.scalar(value.bytes, pa.binary(16)), count)
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


def _scalar(value: AttributeValue) -> str | bool | int | float | None:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    scalar: str | bool | int | float = getattr(value, kind)
    if isinstance(scalar, float) and not isfinite(scalar):
        # As in the JSON mapping of protobuf: "NaN", "Infinity", "-Infinity".
        return "NaN" if scalar != scalar else "Infinity" if scalar > 0 else "-Infinity"
    return scalar


def _attributes(attributes: Mapping[str, AttributeValue]) -> dict[str, object]:
    return {key: _scalar(attributes[key]) for key in sorted(attributes)}


def attributes_json(attributes: Mapping[str, AttributeValue]) -> str:
    """Attributes as the text of a JSON object, whose keys are in order."""
    return _text(_attributes(attributes))


def _with_attributes(fields: dict[str, object], attributes: Any) -> dict[str, object]:
    return {**fields, "attributes": _attributes(attributes)} if attributes else fields


_JSON_FIELDS: dict[str, Callable[[Any], str]] = {
    "tags": lambda tags: _text(dict(sorted(tags.items()))),
    "attributes": attributes_json,
    "events": lambda events: _text(
        [
            _with_attributes(
                {"time": format_rfc3339(event.time_unix_nano), "name": event.name},
                event.attributes,
            )
            for event in events
        ]
    ),
    "links": lambda links: _text(
        [
            _with_attributes(
                {"trace_id": link.trace_id.hex(), "span_id": link.span_id.hex()}, link.attributes
            )
            for link in links
        ]
    ),
}
