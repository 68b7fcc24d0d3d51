"""Text from a peer or from a system, made fit for one line of a log."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final


_MAX_CHARACTERS: Final = 500


def one_line(text: str) -> str:
    """The text, at most 500 characters of it, with all that does not print as escapes.

    A peer's text may hold line breaks, which forge log lines, and escape sequences of terminals.
    """
    shown = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text[:_MAX_CHARACTERS]
    )
    return shown if len(text) <= _MAX_CHARACTERS else f"{shown}..."
