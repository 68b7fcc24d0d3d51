"""Slices of a time, for a sample: PostgreSQL reads all rows of a time to choose some of them.

What there is many of, such as the steps of an engine in an hour, has enough rows in a few slices.
"""

from __future__ import annotations

SLICES = 12
_SHARE = 30  # a slice is 1/30 of its part of the time


def slices_sql(since_ns: int, until_ns: int) -> str:
    """The condition that a span starts in a slice, in SQL; they lie evenly in the time."""
    part_ns = (until_ns - since_ns) // SLICES
    length_ns = max(1, part_ns // _SHARE)
    ends = [until_ns - number * part_ns for number in range(SLICES)]
    slices = [f"start_time >= {end - length_ns:d} AND start_time < {end:d}" for end in ends]
    return f"(({') OR ('.join(slices)}))"
