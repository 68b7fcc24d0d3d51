"""What a decoder offers, compiled or pure; `backend.part` chooses."""

from __future__ import annotations

from typing import Protocol

from infertrace import backend
from infertrace.collector.ingest.decoded_spans import DecodedSpans


class Decoder(Protocol):
    """A module that offers this is a decoder."""

    NAME: str

    def decode(
        self, raw: bytes, max_spans: int | None = None, max_nested: int | None = None
    ) -> DecodedSpans:
        """Decode the spans of a request; raises RequestError where all of it is refused.

        It may have `max_spans` spans, and `max_nested` events and links in all of them; without
        these, what `wire_fields` says.
        """


def _native() -> Decoder:
    import infertrace.collector.ingest.native_decoder as native

    return native


def _pure() -> Decoder:
    import infertrace.collector.ingest.pure_decoder as pure

    return pure


def select(name: str | None = None) -> Decoder:
    """The decoder of that name, `native` or `pure`, or of the backend. Raises ImportError."""
    return backend.part(_native, _pure, ("NAME", "decode"), name)


selected: Decoder = select()
