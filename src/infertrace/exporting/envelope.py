"""The encoded `SendSpanBatchRequest` in which every batch leaves the exporter.

A transport sends it as it is, keeps it in a file, or hands it to the sender process, where a
`Wire` turns it into what the collector takes. Written by hand, so that a traced process need not
load protobuf, which lets fields be appended: the producer's follow the spans. Source of the
numbers: proto/span.proto; of the format: Protocol Buffers, "Encoding".
"""

from __future__ import annotations

import contextlib

from infertrace.named_tuple import NamedTuple
from infertrace.recording.encoder import attribute_entries
from infertrace.resources.resource import describe_resource
from infertrace.wire.protobuf import delimited, read_varint, varint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from infertrace.configuration import Settings

Request = tuple[bytes, ...]
"""The parts of an envelope, one after the other: to join them would be to copy the spans."""

_SPAN_TAG = 0x0A
_PRODUCER_TAG, _FIRST_SPAN_TAG, _FINAL_TAG = 0x12, 0x20, 0x40


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
    return spans, rest(first_span_sequence, producer)


def rest(first_span_sequence: int, producer: Producer) -> bytes:
    """What follows the spans in such an envelope."""
    return _encode_producer(producer, first_span_sequence) + producer.resource


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


class Sent(NamedTuple):
    """Whose envelope it is, and which spans are in it."""

    producer_id: bytes
    first_span_sequence: int
    is_final: bool
    """Whether it is the goodbye."""


def read_sender(envelope: bytes, likely_id: bytes = b"") -> Sent | None:
    """What follows the spans of an envelope that `encode` or `goodbye` made; None for another.

    likely_id: the producer's id; where it is that, the spans need not be read.
    """
    position = envelope.rfind(encode_producer_id(likely_id)) if likely_id else -1
    if position < 0:
        position = _end_of_spans(envelope)
    producer_id, numbers = b"", dict.fromkeys((_FIRST_SPAN_TAG, _FINAL_TAG), 0)
    try:
        while position < len(envelope):
            tag = envelope[position]
            value, position = read_varint(envelope, position + 1)
            if tag & 7 == 2:
                if tag == _PRODUCER_TAG:
                    producer_id = envelope[position : position + value]
                position += value
            else:
                numbers[tag] = value
    except ValueError:
        return None
    if not producer_id:
        return None
    return Sent(producer_id, numbers[_FIRST_SPAN_TAG], bool(numbers[_FINAL_TAG]))


def _end_of_spans(envelope: bytes) -> int:
    position = 0
    with contextlib.suppress(ValueError):
        while position < len(envelope) and envelope[position] == _SPAN_TAG:
            size, start = read_varint(envelope, position + 1)
            position = start + size
    return position


def _encode_producer(producer: Producer, first_span_sequence: int = 0) -> bytes:
    out = encode_producer_id(producer.producer_id) + b"\x18" + varint(producer.batch_sequence)
    if first_span_sequence:
        out += b"\x20" + varint(first_span_sequence)
    out += b"\x28" + varint(producer.produced)
    for reason, count in producer.dropped.items():
        out += delimited(b"\x32", delimited(b"\x0a", reason.encode()) + b"\x10" + varint(count))
    return out
