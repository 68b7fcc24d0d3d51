"""The bearer token of a request: fixed, or from a file that is read again when it is rotated."""

from __future__ import annotations

import os
from pathlib import Path

from infertrace.exporting.answer import Retryable


class BearerToken:
    """Source of the header: RFC 6750, section 2.1."""

    def __init__(self, token: str | None, file: str | None) -> None:
        self._token = token
        self._file = file
        self._version: tuple[int, ...] = ()

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The metadata of the next request; raises Retryable if the file cannot be read."""
        if self._file is not None:
            try:
                self._read(self._file)
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else "not ASCII"
                raise Retryable(f"cannot read the token file {self._file}: {reason}") from None
        return (("authorization", f"Bearer {self._token}"),) if self._token else ()

    def has_changed(self) -> bool:
        """Whether the file holds a token other than the last one sent."""
        before = self._token
        try:
            self.metadata()
        except Retryable:
            return False
        return self._token != before

    def _read(self, file: str) -> None:
        state = os.stat(file)  # noqa: PTH116 - faster, and done for each request
        version = (state.st_ino, state.st_size, state.st_mtime_ns)
        if version != self._version:
            self._token = Path(file).read_text("ascii").strip()
            self._version = version
