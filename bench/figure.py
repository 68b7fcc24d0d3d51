"""Draws the cost of a span, for the README, from the answer of span_cost."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.environment import REPOSITORY

TARGET = REPOSITORY / "docs" / "figures" / "span-cost.svg"
# Mid tones, since the background is transparent and a page may be light or dark.
INK, OWN, FLOOR, RIVAL = "#6e7781", "#2f81f7", "#8b949e", "#d9822b"
ROOM_FOR_LABELS = 25  # the axis is this much longer than the longest bar
INCHES_WIDE, INCHES_PER_BAR = 8.4, 0.36


@contextmanager
def style() -> Iterator[Any]:
    """pyplot, set up so that all figures look alike."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    rc = {
        "svg.fonttype": "none",
        "svg.hashsalt": "infertrace",  # the same figures give the same file
        "font.family": "sans-serif",
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
    }
    with pyplot.rc_context(rc):
        yield pyplot


def draw(result: dict[str, Any]) -> Path:
    """Write the figure; returns its path."""
    rows = result["data"]["rows"]
    costs = {name: statistics.median(row["seconds"]) * 1e6 for name, row in rows.items()}
    times_floor = {name: statistics.median(row["times_floor"]) for name, row in rows.items()}
    names = sorted(costs, key=lambda name: costs[name])
    with style() as pyplot:
        figure, axes = pyplot.subplots(figsize=(INCHES_WIDE, 1.1 + INCHES_PER_BAR * len(names)))
        axes.barh(names, [costs[name] for name in names], color=[_colour(name) for name in names])
        for position, name in enumerate(names):
            label = f"{_rounded(costs[name])} µs   {_rounded(times_floor[name])} x floor"
            axes.annotate(
                label,
                (costs[name], position),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
            )
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.set_xlim(min(costs.values()) / 3, max(costs.values()) * ROOM_FOR_LABELS)
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.set_xlabel("microseconds per recorded span, on the thread that records (log scale)")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        figure.tight_layout()
        TARGET.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(TARGET, transparent=True, metadata={"Date": None})
        pyplot.close(figure)
    return TARGET


def _colour(name: str) -> str:
    if name.startswith("infertrace"):
        return OWN
    return FLOOR if name.startswith(("floor", "empty")) else RIVAL


def _rounded(number: float) -> str:
    """Three significant digits, no exponent."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
