"""How a batch reaches a collector, and the one place that chooses the way."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

from infertrace.configuration import Settings


class Answer(NamedTuple):
    """What the collector said of a batch."""

    accepted_count: int
    rejected_count: int
    rejection_reason: str


class SendError(Exception):
    """A batch did not get through; the message is for people and holds no credentials."""


class Retryable(SendError):
    """Worth another try."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        """What the collector asked for, when it did."""


class TooLarge(SendError):
    """Worth another try in smaller parts."""


class Refused(SendError):
    """Never going to be accepted."""


class Transport(Protocol):
    """One connection; used by one thread at a time, but for `close`."""

    def send(self, request: bytes, timeout_s: float) -> Answer:
        """Deliver an encoded SendSpanBatchRequest, or raise one of the errors above."""

    def close(self) -> None:
        """Give up what is in flight; any thread may ask."""


def choose_transport(settings: Settings) -> Callable[[], Transport]:
    """What connects to the endpoint: gRPC, in the clear or over TLS.

    Loads what that takes now, but connects only when it is called.
    """
    from infertrace.exporting.grpc_transport import GrpcTransport

    scheme, separator, address = settings.endpoint.rpartition("://")
    return partial(
        GrpcTransport,
        address.rstrip("/"),
        headers=settings.headers,
        tls=separator != "" and scheme == "https",
    )
