"""What a decoder of OTLP offers, compiled or pure; `backend.part` chooses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from infertrace import backend
from infertrace.collector.ingest.decoded_spans import DecodedSpans
from infertrace.collector.ingest.otlp.translator import SpanReader


class ExportDecoder(SpanReader, Protocol):
    """Collects the decoded spans; raises RequestError also for too many events and links."""

    def take(self) -> DecodedSpans:
        """Those that were added; to be called once, as the last."""


class ExportDecoding(Protocol):
    """A module that offers this decodes."""

    NAME: str

    @property
    def ExportDecoder(self) -> Callable[[bytes, int, int], ExportDecoder]:  # noqa: N802
        """Takes the request, the most spans it may have, and the most events and links in all."""


def _native() -> ExportDecoding:
    import infertrace.collector.ingest.otlp.native_export_decoder as native

    return native


def _pure() -> ExportDecoding:
    import infertrace.collector.ingest.otlp.pure_export_decoder as pure

    return pure


def choose_export_decoding(name: str | None = None) -> ExportDecoding:
    """On the backend of that name, `native` or `pure`, or on the selected one."""
    return backend.part(_native, _pure, ("NAME", "ExportDecoder"), name)
