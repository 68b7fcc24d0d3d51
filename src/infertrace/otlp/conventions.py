"""The conventions that `conventions=` may name: what our fields are called in OTLP."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from infertrace.generated.otlp_attributes import CONVENTIONS

DEFAULT: Final = CONVENTIONS[:1]


def bits(names: Iterable[str]) -> int:
    """The conventions of these names, as a translator takes them; raises ValueError."""
    found = 0
    for name in names:
        if name not in CONVENTIONS:
            raise ValueError(f"expected some of {', '.join(CONVENTIONS)}, got {name!r}")
        found |= 1 << CONVENTIONS.index(name)
    return found
