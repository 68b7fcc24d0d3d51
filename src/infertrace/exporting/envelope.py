"""The encoded `SendSpanBatchRequest` in which every batch leaves the exporter.

A transport sends it as it is, keeps it in a file, or hands it to the sender process, where a
`Wire` turns it into what the collector takes. Written by hand, so that a traced process need not
load protobuf, which lets fields be appended: the producer's follow the spans. Source of the
numbers: proto/span.proto; of the format: Protocol Buffers, "Encoding".
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

from infertrace.recording.encoder import attribute_entries
from infertrace.resources.resource import describe_resource
from infertrace.wire.protobuf import delimited, read_varint, varint

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from infertrace.configuration import Settings

Request = tuple[bytes, ...]
"""The parts of an envelope, one after the other: to join them would be to copy the spans."""

_SPAN_TAG = 0x0A


class Producer(NamedTuple):
    """Who sends a batch, and what its ledger says at this moment."""

    producer_id: bytes
    batch_sequence: int
    """The number of the batch among its producer's."""
    produced: int
    dropped: Mapping[Any, int]
    """By reason; only reasons that occurred."""
    resource: bytes
    """As `encode_resource` gives it."""


def encode(spans: bytes, first_span_sequence: int, producer: Producer) -> Request:
    """The envelope of encoded spans, the first of which has that number."""
    return spans, _encode_producer(producer, first_span_sequence) + producer.resource


def goodbye(producer: Producer) -> Request:
    """An envelope without spans: this producer sends nothing more, and its ledger is complete."""
    return (_encode_producer(producer) + b"\x40\x01" + producer.resource,)


def encode_producer_id(producer_id: bytes) -> bytes:
    """The field that says whose batch it is."""
    return delimited(b"\x12", producer_id)


def encode_resource(settings: Settings) -> bytes:
    """The field that holds what the spans of this process have in common."""
    return delimited(b"\x3a", attribute_entries(b"\x0a", describe_resource(settings)))


def count_spans(envelope: bytes) -> int:
    """How many spans an envelope begins with; of bytes that are none, any number."""
    count = position = 0
    with contextlib.suppress(ValueError):  # it ends within a size
        while position < len(envelope) and envelope[position] == _SPAN_TAG:
            size, position = read_varint(envelope, position + 1)
            position += size
            count += 1
    return count


def _encode_producer(producer: Producer, first_span_sequence: int = 0) -> bytes:
    out = encode_producer_id(producer.producer_id) + b"\x18" + varint(producer.batch_sequence)
    if first_span_sequence:
        out += b"\x20" + varint(first_span_sequence)
    out += b"\x28" + varint(producer.produced)
    for reason, count in producer.dropped.items():
        out += delimited(b"\x32", delimited(b"\x0a", reason.encode()) + b"\x10" + varint(count))
    return out
