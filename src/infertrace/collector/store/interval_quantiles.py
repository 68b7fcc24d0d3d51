"""Quantiles of the times between tokens, from the merged histograms of spans."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TypeVar

from infertrace.collector.store.metrics import FRACTIONS, Metric
from infertrace.collector.store.store import ModelStatistics, SeriesPoint
from infertrace.collector.store.timestamps import NANOS_PER_MS
from infertrace.wire.protobuf import WireError
from infertrace.wire.token_intervals import LOWEST_BUCKET, MAX_BUCKETS, decode, upper_bound_ns

Key = TypeVar("Key", bound=Hashable)

# Messages of one span each; where more spans are selected, most look like some other.
_INTERVALS = """
    SELECT {key}, token_intervals, count(*) FROM {spans}
    WHERE {condition} AND token_intervals IS NOT NULL GROUP BY 1, 2"""


def intervals_sql(key: str, spans: str, condition: str) -> str:
    """The query of the histograms for each value of an expression, equal ones counted."""
    return _INTERVALS.format(key=key, spans=spans, condition=condition)


def merged_intervals(rows: Iterable[tuple[Key, bytes, int]]) -> dict[Key, list[int]]:
    """The sums of the counts, by the key; the first one is of LOWEST_BUCKET."""
    merged: dict[Key, list[int]] = {}
    for key, message, times in rows:
        try:
            offset, counts = decode(message)
        except WireError:  # a newer infertrace may write what this one cannot read
            continue
        sums = merged.setdefault(key, [0] * MAX_BUCKETS)
        for place, count in enumerate(counts, offset - LOWEST_BUCKET):
            if count and place < MAX_BUCKETS:
                sums[place] += count * times
    return merged


def interval_quantile_ms(sums: Sequence[int], fraction: float) -> float | None:
    """The interval that a share is not longer than; None without any.

    Within a bucket it is interpolated on the logarithmic scale of the buckets.
    """
    total = sum(sums)
    if not total:
        return None
    wanted = fraction * total
    place = next(n for n, until in enumerate(accumulate(sums)) if until and until >= wanted)
    bucket = place + LOWEST_BUCKET
    low_ns, high_ns = upper_bound_ns(bucket - 1), upper_bound_ns(bucket)
    share = (wanted - sum(sums[:place])) / sums[place]
    return float(low_ns * (high_ns / low_ns) ** share / NANOS_PER_MS)


def with_interval_quantiles(
    models: Sequence[ModelStatistics], rows: Iterable[tuple[str, bytes, int]]
) -> list[ModelStatistics]:
    """The statistics with the quantiles of these histograms, by the name of the model."""
    merged = merged_intervals(rows)
    return [
        replace(model, inter_token_latency_ms=quantiles)
        if (quantiles := _quantiles(merged.get(model.model_name, ())))
        else model
        for model in models
    ]


def _quantiles(sums: Sequence[int]) -> list[float]:
    found = [interval_quantile_ms(sums, fraction) for fraction in FRACTIONS.values()]
    return [value for value in found if value is not None]


def with_interval_values(
    points: Sequence[SeriesPoint], rows: Iterable[tuple[int, bytes, int]], metric: Metric
) -> list[SeriesPoint]:
    """The points with the quantile of a metric from these histograms, by their start."""
    merged = merged_intervals(rows)
    return [
        replace(point, value=interval_quantile_ms(merged.get(point.start_ns, ()), metric.fraction))
        for point in points
    ]
