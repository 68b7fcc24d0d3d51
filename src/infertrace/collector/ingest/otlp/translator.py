"""What a translator of OTLP's spans offers, compiled or pure; `backend.part` chooses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from infertrace import backend


class SpanReader(Protocol):
    """Reads the spans of one request, scope by scope."""

    def add(
        self,
        raw: bytes,
        start: int,
        end: int,
        head: bytes,
        tail: bytes,
        scope_name: str,
        cut_count: int,
    ) -> int:
        """Read the spans of the ScopeSpans that lies from `start` to `end`; their number.

        `head` and `tail` are fields of ours that each of them gets, those of its resource and of
        its scope; `cut_count` says how many of these are cut or left out. Raises WireError where
        the bytes between the spans are no protobuf, and RequestError for too many spans.
        """


class Translator(SpanReader, Protocol):
    """Collects the translated spans."""

    def take(self) -> bytes:
        """The spans, as the field `spans` of a SendSpanBatchRequest."""


class Translation(Protocol):
    """A module that offers this translates."""

    NAME: str

    @property
    def Translator(self) -> Callable[[int], Translator]:  # noqa: N802
        """For at most that many spans."""

    def find_messages(
        self, raw: bytes, start: int, end: int, number: int, limit: int
    ) -> list[tuple[int, int]]:
        """Where the messages in the fields of that number begin and end, within a message.

        Raises WireError where that is no protobuf, and RequestError beyond the limit.
        """


def _native() -> Translation:
    import infertrace.collector.ingest.otlp.native_translator as native

    return native


def _pure() -> Translation:
    import infertrace.collector.ingest.otlp.pure_translator as pure

    return pure


def choose_translation(name: str | None = None) -> Translation:
    """On the backend of that name, `native` or `pure`, or on the selected one."""
    return backend.part(_native, _pure, ("NAME", "Translator", "find_messages"), name)
