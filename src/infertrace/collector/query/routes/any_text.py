"""Names in a path: with slashes, and with the line breaks that the convertor `path` leaves out."""

from __future__ import annotations

from starlette.convertors import Convertor, register_url_convertor


class _AnyText(Convertor[str]):
    regex = "(?s:.+)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


def register_any_text() -> None:
    """Let a route have `{name:text}`."""
    register_url_convertor("text", _AnyText())
