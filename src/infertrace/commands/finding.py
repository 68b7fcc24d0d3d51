"""The result of one check of `infertrace doctor`."""

from __future__ import annotations

from typing import NamedTuple

OK, NOTE, PROBLEM = "ok", "note", "problem"


class Finding(NamedTuple):
    """The result of one check."""

    check: str
    state: str
    """`ok`, `note` (works, but know this) or `problem` (spans do not arrive)"""
    detail: str
