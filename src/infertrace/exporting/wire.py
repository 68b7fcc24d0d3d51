"""The protocol that a collector speaks: what it takes, and how its answers read."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from infertrace.exporting.answer import Answer
    from infertrace.exporting.envelope import Request


class Encoded(NamedTuple):
    """An envelope in the words of a protocol."""

    body: bytes | None
    """What to send; None where there is nothing to send."""
    span_count: int
    """How many spans that are."""
    rejected_count: int = 0
    """Spans of the envelope that no collector can take."""
    rejection_reason: str = ""
    """Why the first of them cannot be sent."""


class Wire(Protocol):
    """One protocol. Used where requests are sent, so mostly in the sender process; chosen in
    `choice.py`."""

    @property
    def grpc_method(self) -> str:
        """The method to call, `/PACKAGE.SERVICE/METHOD`."""

    def encode(self, request: Request, span_count: int) -> Encoded:
        """What to send for this envelope with that many spans.

        Nothing for what this protocol has no words for, such as the goodbye of a producer.
        """

    def read(self, reply: bytes, encoded: Encoded) -> Answer:
        """What the collector says of all spans of the envelope; Refused if that is no answer."""
