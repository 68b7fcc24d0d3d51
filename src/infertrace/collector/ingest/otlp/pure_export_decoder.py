"""The decoder of OTLP in Python: the translator's spans, as our own decoder reads them."""

from __future__ import annotations

from typing import Final

from infertrace.collector.ingest import pure_decoder
from infertrace.collector.ingest.decoded_spans import DecodedSpans
from infertrace.collector.ingest.otlp.pure_translator import Translator

NAME: Final = "pure"


class ExportDecoder:
    """Collects the decoded spans of one request."""

    def __init__(self, raw: bytes, max_spans: int, max_nested: int) -> None:
        self._translator = Translator(max_spans)
        self._limits = max_spans, max_nested
        self.add = self._translator.add

    def take(self) -> DecodedSpans:
        """Those that were added; to be called once, as the last."""
        return pure_decoder.decode(self._translator.take(), *self._limits)
