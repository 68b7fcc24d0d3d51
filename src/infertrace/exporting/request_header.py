"""The fields of `SendSpanBatchRequest` that follow its spans; protobuf lets them be appended.

Written by hand, so that a traced process need not load protobuf. Source of the numbers:
proto/span.proto; of the format: Protocol Buffers, "Encoding".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from infertrace.recording.encoder import attribute_entries
from infertrace.resources.resource import describe_resource
from infertrace.wire.protobuf import delimited, varint

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from infertrace.configuration import Settings


def producer(producer_id: bytes) -> bytes:
    """Whose batch it is."""
    return delimited(b"\x12", producer_id)


def counters(
    producer_id: bytes,
    batch_sequence: int,
    first_span_sequence: int,
    produced: int,
    dropped: Mapping[Any, int],
    *,
    final: bool,
) -> bytes:
    """The place of a batch among its producer's, and the producer's ledger."""
    out = producer(producer_id) + b"\x18" + varint(batch_sequence)
    if first_span_sequence:
        out += b"\x20" + varint(first_span_sequence)
    out += b"\x28" + varint(produced)
    for reason, count in dropped.items():
        out += delimited(b"\x32", delimited(b"\x0a", reason.encode()) + b"\x10" + varint(count))
    return out + b"\x40\x01" if final else out


def resource(settings: Settings) -> bytes:
    """What the spans of this process have in common."""
    return delimited(b"\x3a", attribute_entries(b"\x0a", describe_resource(settings)))
