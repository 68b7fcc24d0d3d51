"""The flat columns cover the wire, and nothing else."""

from __future__ import annotations

from typing import get_args

import pyarrow as pa
from google.protobuf.message import Message

from infertrace.collector.store.columns import COLUMNS, Kind
from infertrace.collector.store.kinds import KINDS
from infertrace.generated.span_pb2 import InferenceContext, ResourceMetrics, Span


def test_every_field_of_a_span_has_one_column() -> None:
    nested: dict[str, type[Message]] = {"inference": InferenceContext, "resources": ResourceMetrics}
    paths = {field.name for field in Span.DESCRIPTOR.fields} - set(nested)
    for part, message in nested.items():
        paths |= {f"{part}.{field.name}" for field in message.DESCRIPTOR.fields}
    of_requests = [column.name for column in COLUMNS if not column.wire]
    assert of_requests == ["producer_id", "resource_id"]
    assert sorted(column.wire for column in COLUMNS if column.wire) == sorted(paths)


def test_names_and_keys_are_unique() -> None:
    assert len({column.name for column in COLUMNS}) == len(COLUMNS)
    assert len({column.key for column in COLUMNS}) == len(COLUMNS)


def test_every_kind_has_one_entry() -> None:
    assert set(KINDS) == set(get_args(Kind))
    for kind in KINDS.values():
        varies = kind.arrow in (pa.string(), pa.binary())
        width_bytes = 0 if varies else kind.arrow.bit_width // 8
        assert kind.postgres_bytes == width_bytes
