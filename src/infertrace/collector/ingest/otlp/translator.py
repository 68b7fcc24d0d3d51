"""What a translator of OTLP's spans offers, compiled or pure; `backend.part` chooses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from infertrace import backend


class Translator(Protocol):
    """Collects the translated spans of one request."""

    def add(
        self, raw: bytes, start: int, end: int, head: bytes, tail: bytes, scope_name: str
    ) -> int:
        """Translate the spans of the ScopeSpans that lies from `start` to `end`; their number.

        `head` and `tail` are fields of ours that each of them gets, those of its resource and of
        its scope. Raises WireError where the bytes between the spans are no protobuf, and
        RequestError for too many spans.
        """

    def take(self) -> bytes:
        """The spans, as the field `spans` of a SendSpanBatchRequest."""


class Translation(Protocol):
    """A module that offers this translates."""

    NAME: str

    @property
    def Translator(self) -> Callable[[int], Translator]:  # noqa: N802
        """For at most that many spans."""


def _native() -> Translation:
    import infertrace.collector.ingest.otlp.native_translator as native

    return native


def _pure() -> Translation:
    import infertrace.collector.ingest.otlp.pure_translator as pure

    return pure


def new_translator(max_spans: int, name: str | None = None) -> Translator:
    """On the backend of that name, `native` or `pure`, or on the selected one."""
    return backend.part(_native, _pure, ("NAME", "Translator"), name).Translator(max_spans)
