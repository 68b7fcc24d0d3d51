"""Formats Markdown tables."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def median_and_spread(values: Sequence[float], scale: float = 1.0, digits: int = 3) -> list[str]:
    """Two cells: the median of the rounds, and their minimum and maximum."""
    figures = (statistics.median(values), min(values), max(values))
    median, low, high = (f"{value * scale:,.{digits}f}" for value in figures)
    return [median, f"{low} to {high}"]


def with_spread(
    values: Sequence[float], scale: float = 1.0, digits: int = 3, unit: str = ""
) -> str:
    """The same in one cell."""
    median, spread = median_and_spread(values, scale, digits)
    return f"{median}{unit} ({spread})"


def verdict_table(verdicts: Iterable[dict[str, Any]]) -> str:
    rows = []
    for verdict in verdicts:
        digits = 2 if abs(verdict["measured"]) >= 1 else 3
        measured, spread = median_and_spread(verdict["rounds"], digits=digits)
        rows.append(
            [
                verdict["what"],
                verdict["budget"],
                f"{measured} {verdict['unit']}",
                spread,
                f"{verdict['room']:+,.1%}",
                "hold" if verdict["holds"] else "**miss**",
            ]
        )
    return table(["", "budget", "measured", "rounds", "room", ""], rows)
