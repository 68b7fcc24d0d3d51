"""The spans of a request as they were decoded: encoded, for whoever passes them on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from infertrace.collector.ingest.otlp.export_request import ResourceGroup


@dataclass(frozen=True)
class SentSpans:
    """`raw` is a request of our own, or the field `spans` of one, with `span_count` spans.

    `rejected_positions` are the indices of those that are invalid. Of OTLP, `groups` has the
    resources; of our own protocol, `others` has the fields beside the spans.
    """

    raw: bytes
    span_count: int
    rejected_positions: Sequence[int] = ()
    groups: tuple[ResourceGroup, ...] = ()
    others: bytes = b""

    @property
    def valid_count(self) -> int:
        return self.span_count - len(self.rejected_positions)

    @property
    def byte_count(self) -> int:
        return len(self.raw) + len(self.others)


PassOn = Callable[[SentSpans], None]
"""Takes the spans of a request once they are durable. Neither blocks nor raises."""
