"""The flat columns cover the wire, and nothing else."""

from __future__ import annotations

from google.protobuf.message import Message

from infertrace.collector.store.columns import COLUMNS
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
