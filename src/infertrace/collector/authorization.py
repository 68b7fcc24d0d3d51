"""The token that clients need for a collector that listens beyond this machine."""

from __future__ import annotations

import hmac
from pathlib import Path

MIN_TOKEN_CHARACTERS = 16


class BearerToken:
    """A secret; it is compared in constant time and shown nowhere."""

    def __init__(self, secret: str) -> None:
        if len(secret) < MIN_TOKEN_CHARACTERS or not secret.isascii() or not secret.isprintable():
            raise ValueError(
                f"token: expected at least {MIN_TOKEN_CHARACTERS} printable ASCII characters"
            )
        self._expected = f"Bearer {secret}".encode()

    def permits(self, authorization: str | bytes | None) -> bool:
        """Whether the value of an `authorization` header or metadata entry is the right one."""
        given = authorization or b""
        if isinstance(given, str):
            given = given.encode("utf-8", "replace")
        return hmac.compare_digest(given, self._expected)


def read_token(path: Path) -> BearerToken:
    """The token in a file, less white space around it; raises OSError and ValueError."""
    return BearerToken(path.read_text(encoding="utf-8").strip())
