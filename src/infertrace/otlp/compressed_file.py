"""Files of OTLP, plain or compressed: by their names where they are written, by content where read.

The formats are those of the file exporter of the OpenTelemetry Collector, but for zstd, of which
that one writes frames between lengths; here it is one frame, as `zstd` reads and writes.
"""

from __future__ import annotations

import gzip
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

PLAIN_SUFFIX: Final = ".jsonl"
SUFFIXES: Final = (PLAIN_SUFFIX, ".jsonl.gz", ".jsonl.zst")
_GZIP_MAGIC: Final = b"\x1f\x8b"
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_GZIP_LEVEL: Final = 6


def open_to_write(path: Path) -> BinaryIO:
    """A new file, private to its owner, compressed as its name ends; raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(path, flags, 0o600), "wb")
    name = path.name.removesuffix(PARTIAL_SUFFIX)
    if name.endswith(".gz"):
        return cast(BinaryIO, _Owning(gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0), file))
    if name.endswith(".zst"):
        return cast(BinaryIO, _Owning(_zstd().ZstdFile(file, "wb"), file))
    return file


PARTIAL_SUFFIX: Final = ".partial"
"""Of a file that is still being written; it does not count for how it is compressed."""


def open_to_read(path: Path) -> BinaryIO:
    """The content, decompressed; raises OSError, and ModuleNotFoundError where zstd is missing."""
    file = path.open("rb")
    try:
        head = file.peek(4)[:4]
        if head.startswith(_GZIP_MAGIC):
            return cast(BinaryIO, _Owning(gzip.GzipFile(fileobj=file, mode="rb"), file))
        if head == _ZSTD_MAGIC:
            return cast(BinaryIO, _Owning(_zstd().ZstdFile(file, "rb"), file))
    except BaseException:
        file.close()
        raise
    return file


class _Owning:
    """Closes the file below as well, which the compressing ones leave open."""

    def __init__(self, compressed: Any, file: BinaryIO) -> None:
        self._file = file
        self._compressed = compressed
        self.write = compressed.write
        self.read = compressed.read
        self.readline = compressed.readline
        self.peek = getattr(compressed, "peek", None)

    def close(self) -> None:
        try:
            self._compressed.close()
        finally:
            self._file.close()

    def __enter__(self) -> _Owning:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _zstd() -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd
