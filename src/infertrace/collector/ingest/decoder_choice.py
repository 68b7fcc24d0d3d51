"""The one place that chooses between the compiled and the pure decoder."""

from __future__ import annotations

from typing import Any, Protocol

from infertrace import backend
from infertrace.collector.ingest.decoded_spans import DecodedSpans


class Decoder(Protocol):
    """A module that offers this is a decoder."""

    NAME: str

    def decode(self, raw: bytes) -> DecodedSpans:
        """Decode the spans of a request; raises RequestError where all of it is refused."""


def select(name: str) -> Decoder:
    """The decoder of that name: `native` or `pure`. Raises ImportError."""
    module: Any
    if name == "native":
        import infertrace.collector.ingest.native_decoder as module
    else:
        import infertrace.collector.ingest.pure_decoder as module
    return module  # type: ignore[no-any-return]


# Both extensions are built together, so one variable, INFERTRACE_BACKEND, chooses for both.
selected: Decoder = select(backend.selected.NAME)
