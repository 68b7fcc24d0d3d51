"""The protocol that a collector speaks: what it takes, and how its answers read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from infertrace.exporting.answer import Answer
    from infertrace.exporting.envelope import Request


class Wire(Protocol):
    """One protocol. Used where gRPC is, so mostly in the sender process; chosen in `choice.py`."""

    @property
    def grpc_method(self) -> str:
        """The method to call, `/PACKAGE.SERVICE/METHOD`."""

    def encode(self, request: Request) -> tuple[bytes, ...] | None:
        """What to send for this envelope, in parts.

        None for what this protocol has no words for, such as the goodbye of a producer.
        """

    def read(self, reply: bytes, span_count: int) -> Answer:
        """What the collector says of that many spans; raises Refused if that is no answer."""
