"""What is different between two sets of spans, as far as chance does not explain it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

from infertrace.collector.store.exponential_buckets import quantile
from infertrace.collector.store.measures import Measure

_Z = 2.576  # 99 % of a normal distribution lie within 2.576 deviations
_KOLMOGOROV = 1.628  # the same of the largest difference of two cumulated shares
MIN_SELECTED = 5  # fewer say nothing, whatever the intervals say


@dataclass
class Counts:
    """How often each value is on either side, and how many spans there are in all."""

    selected: dict[Any, int]
    baseline: dict[Any, int]
    selected_total: int = 0
    baseline_total: int = 0

    @classmethod
    def of(cls, rows: Iterable[tuple[Any, bool, int]], shown: Callable[[Any], Any]) -> Counts:
        """Of values, whether they are selected, and counts; None is no value."""
        counts = cls({}, {})
        for value, is_selected, count in rows:
            if value is not None:
                counts.add(shown(value), is_selected, count)
            if is_selected:
                counts.selected_total += count
            else:
                counts.baseline_total += count
        return counts

    def add(self, value: Any, is_selected: bool, count: int) -> None:
        side = self.selected if is_selected else self.baseline
        side[value] = side.get(value, 0) + count


def scalar_text(value: Any) -> str | None:
    """A value as a filter of the API takes it; None for one that has parts."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, uuid.UUID):
        return value.hex
    return repr(value) if isinstance(value, int | float) else None


def compared_dimension(name: str, counts: Counts, limit: int) -> dict[str, Any] | None:
    """The values whose shares differ, at most `limit`, the largest difference first; or None."""
    all_selected, all_baseline = counts.selected_total, counts.baseline_total
    if all_selected < MIN_SELECTED or not all_baseline:
        return None
    values = []
    for value in counts.selected.keys() | counts.baseline.keys():
        chosen, rest = counts.selected.get(value, 0), counts.baseline.get(value, 0)
        if is_difference(chosen, all_selected, rest, all_baseline):
            values.append(
                {
                    "value": value,
                    "selected": chosen,
                    "baseline": rest,
                    "selected_share": chosen / all_selected,
                    "baseline_share": rest / all_baseline,
                    "difference": chosen / all_selected - rest / all_baseline,
                }
            )
    if not values:
        return None
    values.sort(key=lambda each: (-abs(each["difference"]), str(each["value"])))
    return {
        "dimension": name,
        "difference": abs(values[0]["difference"]),
        "value_count": len(counts.selected.keys() | counts.baseline.keys()),
        "truncated": len(values) > limit,
        "values": values[:limit],
    }


def is_difference(chosen: int, all_chosen: int, rest: int, all_rest: int) -> bool:
    """Whether an interval of 99 % for the difference of two shares leaves out 0.

    Source: Newcombe, "Interval estimation for the difference between independent proportions",
    Statistics in Medicine 17 (1998), method 10.
    """
    one, other = chosen / all_chosen, rest / all_rest
    low_one, high_one = _wilson(chosen, all_chosen)
    low_other, high_other = _wilson(rest, all_rest)
    difference = one - other
    low = difference - sqrt((one - low_one) ** 2 + (high_other - other) ** 2)
    high = difference + sqrt((high_one - one) ** 2 + (other - low_other) ** 2)
    return low > 0 or high < 0


def _wilson(count: int, total: int) -> tuple[float, float]:
    share = count / total
    middle = share + _Z * _Z / (2 * total)
    spread = _Z * sqrt(share * (1 - share) / total + _Z * _Z / (4 * total * total))
    size = 1 + _Z * _Z / total
    return (middle - spread) / size, (middle + spread) / size


def compared_measure(measure: Measure, counts: Counts) -> dict[str, Any] | None:
    """The histograms of both sides, if their cumulated shares differ; or None."""
    chosen, rest = sum(counts.selected.values()), sum(counts.baseline.values())
    if chosen < MIN_SELECTED or not rest:
        return None
    difference = _largest_difference(counts.selected, chosen, counts.baseline, rest)
    if difference <= _KOLMOGOROV * sqrt((chosen + rest) / (chosen * rest)):
        return None

    def side(histogram: Mapping[int, int], total: int) -> dict[str, Any]:
        median = quantile(histogram, 0.5)
        return {
            "total": total,
            "p50": None if median is None else median / measure.per_unit,
            "cells": sorted(histogram.items()),
        }

    return {
        "measure": measure.name,
        "unit": measure.unit,
        "per_unit": measure.per_unit,
        "difference": difference,
        "selected": side(counts.selected, chosen),
        "baseline": side(counts.baseline, rest),
    }


def _largest_difference(
    one: Mapping[int, int], all_one: int, other: Mapping[int, int], all_other: int
) -> float:
    largest = below_one = below_other = 0.0
    for bucket in sorted(one.keys() | other.keys()):
        below_one += one.get(bucket, 0) / all_one
        below_other += other.get(bucket, 0) / all_other
        largest = max(largest, abs(below_one - below_other))
    return largest
