"""What a collector answered to a batch, and the errors that stand for no such answer."""

from __future__ import annotations

from infertrace.named_tuple import NamedTuple


class Answer(NamedTuple):
    """What the collector said of a batch."""

    accepted_count: int
    rejected_count: int
    rejection_reason: str
    """Why the first of the rejected was; of a batch that was accepted whole, a warning."""


class SendError(Exception):
    """A batch did not get through; the message is for people and holds no credentials."""


class Retryable(SendError):
    """Worth another try."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        """What the collector asked for, when it did."""


class Disconnected(Retryable):
    """Worth another try, on another connection: this one is of no more use."""


class Overloaded(Retryable):
    """Worth another try; the collector has no room now, and did not say when it will."""


class Stumbled(Retryable):
    """Worth another try; the collector failed, perhaps over something in this request."""


class SpeaksOtlp(Retryable):
    """Worth another try in OTLP: the other end does not know our protocol, and takes that."""


class CannotEncode(SendError):
    """Packed spans that nobody there can, or may, encode: worth another try once they are."""


class TooLarge(SendError):
    """Worth another try in smaller parts."""


class Refused(SendError):
    """Never going to be accepted."""
