"""An envelope whose spans the sender is to encode.

The body of its frame is a head, the packed spans, and what follows the spans in an envelope. Spans
that are packed may be read only by the user who packed them: an agent, which serves several, reads
none.
"""

from __future__ import annotations

import struct

from infertrace.exporting.answer import CannotEncode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from infertrace.exporting.envelope import Request

# The dialect of the packed spans, padded; their size.
_HEAD: Final = struct.Struct("=64sQ")


class PackedRequest:
    """What a delivery sends of a packed batch."""

    __slots__ = ("packed", "rest")

    def __init__(self, packed: bytes, rest: bytes) -> None:
        """packed: as `recording/packing.py` has it. rest: what follows the spans."""
        self.packed = packed
        self.rest = rest

    def body(self) -> tuple[bytes, ...]:
        """The body of a frame, in parts."""
        return _HEAD.pack(_dialect(), len(self.packed)), self.packed, self.rest


def read(body: bytes, span_count: int) -> Request:
    """The envelope, encoded, of the body of a frame; raises CannotEncode."""
    from infertrace.recording import packing

    if len(body) < _HEAD.size:
        raise CannotEncode("a frame that was cut short")
    dialect, size = _HEAD.unpack_from(body)
    if dialect != _dialect():
        raise CannotEncode("the spans were packed by another version of infertrace or of Python")
    end = _HEAD.size + size
    if end > len(body):
        raise CannotEncode("a frame that was cut short")
    try:
        encoded = packing.encode(body[_HEAD.size : end])
    except ValueError as error:
        raise CannotEncode(str(error)) from None
    if encoded.span_count != span_count:
        raise CannotEncode(f"expected {span_count} spans, got {encoded.span_count}")
    return encoded.payload, body[end:]


def _dialect() -> bytes:
    from infertrace.recording import packing  # not at the top: the compiled backend packs nothing

    return packing.DIALECT.ljust(64, b"\0")[:64]
