"""Tables."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def median_and_spread(values: Sequence[float], scale: float = 1.0, digits: int = 3) -> list[str]:
    """Two cells: the median of the rounds, and the least and the greatest of them."""
    low, middle, high = min(values), statistics.median(values), max(values)
    shown = [f"{value * scale:,.{digits}f}" for value in (middle, low, high)]
    return [shown[0], f"{shown[1]} to {shown[2]}"]


def verdict_table(verdicts: Iterable[dict[str, Any]]) -> str:
    rows = []
    for verdict in verdicts:
        measured, spread = median_and_spread(verdict["rounds"], digits=2 if _coarse(verdict) else 3)
        rows.append(
            [
                verdict["what"],
                verdict["budget"],
                f"{measured} {verdict['unit']}",
                spread,
                f"{verdict['room']:+.0%}",
                "hold" if verdict["holds"] else "**miss**",
            ]
        )
    return table(["", "budget", "measured", "rounds", "room", ""], rows)


def _coarse(verdict: dict[str, Any]) -> bool:
    return abs(float(verdict["measured"])) >= 1
