"""Chooses how to read a memory that another process left, by its first bytes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from infertrace.buffering import left_memory
from infertrace.buffering.left_spans import DamagedSpansError
from infertrace.buffering.spool_file import MAGIC
from infertrace.buffering.spool_reader import SpoolReader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from infertrace.buffering.left_spans import LeftSpans

_MAGIC_BYTES: Final = 8
_READERS: Final[Mapping[bytes, Callable[[int, str], LeftSpans]]] = {
    MAGIC: SpoolReader,
    left_memory.MAGIC: left_memory.LeftMemory,
}


def read_memory(descriptor: int, name: str) -> LeftSpans:
    """The spans in a memory; takes the descriptor over.

    Raises DamagedSpansError, and OSError; then the descriptor is closed.
    """
    try:
        reader = _READERS.get(os.pread(descriptor, _MAGIC_BYTES, 0))
        if reader is None:
            raise DamagedSpansError(f"{name}: no memory with spans")
        return reader(descriptor, name)
    except BaseException:
        os.close(descriptor)
        raise
