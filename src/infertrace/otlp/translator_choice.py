"""What a translator offers, compiled or pure; `backend.part` chooses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from infertrace import backend

if TYPE_CHECKING:
    from infertrace.otlp.translated import Translated


class Translator(Protocol):
    """A module that offers this is a translator."""

    NAME: str

    def translate(
        self, envelope: bytes, conventions: int, sdk_name: bytes, sdk_version: bytes
    ) -> Translated:
        """Translate the spans of an envelope (`SendSpanBatchRequest`) into a request of OTLP.

        conventions: the names to use, as bits; `conventions.bits` gives them.
        sdk_name, sdk_version: the scope of spans that name none.
        A span that cannot be read is left out; bytes that are no spans raise nothing.
        """


def _native() -> Translator:
    import infertrace.otlp.native_export_translator as native

    return native


def _pure() -> Translator:
    import infertrace.otlp.pure_export_translator as pure

    return pure


def select(name: str | None = None) -> Translator:
    """The translator of that name, `native` or `pure`, or of the backend. Raises ImportError."""
    return backend.part(_native, _pure, ("NAME", "translate"), name)
