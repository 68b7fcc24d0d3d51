"""OTLP in JSON as protobuf: the choice between `pure_otlp_json.py` and its compiled twin."""

from __future__ import annotations

from typing import Protocol

from infertrace import backend


class OtlpJson(Protocol):
    """A module that offers this translates OTLP in JSON."""

    NAME: str

    def export_request(self, text: bytes) -> bytes:
        """The bytes of an ExportTraceServiceRequest; raises RequestError."""


def _native() -> OtlpJson:
    import infertrace.collector.ingest.native_otlp_json as native

    return native


def _pure() -> OtlpJson:
    import infertrace.collector.ingest.pure_otlp_json as pure

    return pure


def select(name: str | None = None) -> OtlpJson:
    """The form of that name, `native` or `pure`, or of the backend. Raises ImportError."""
    return backend.part(_native, _pure, ("NAME", "export_request"), name)


selected: OtlpJson = select()
