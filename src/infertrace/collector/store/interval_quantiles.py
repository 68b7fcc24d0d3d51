"""Quantiles of the times between tokens, from the merged histograms of spans."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from infertrace.collector.store.exponential_buckets import quantile
from infertrace.collector.store.interval_sums import selected
from infertrace.collector.store.metrics import FRACTIONS, Metric
from infertrace.collector.store.store import ModelStatistics, SeriesPoint
from infertrace.collector.store.timestamps import NANOS_PER_MS
from infertrace.wire.token_intervals import LOWEST_BUCKET

_INTERVALS = """
    SELECT {key}, array_agg(token_intervals) FROM {spans}
    WHERE {condition} AND token_intervals IS NOT NULL GROUP BY 1"""


def intervals_sql(key: str, spans: str, condition: str) -> str:
    """The query of the histograms for each value of an expression."""
    return _INTERVALS.format(key=key, spans=spans, condition=condition)


def interval_quantile_ms(sums: Sequence[int], fraction: float) -> float | None:
    """The interval that a share is not longer than; None without any."""
    found = quantile(dict(enumerate(sums, LOWEST_BUCKET)), fraction)
    return None if found is None else found / NANOS_PER_MS


def with_interval_quantiles(
    models: Sequence[ModelStatistics], rows: Iterable[tuple[str, list[bytes]]]
) -> list[ModelStatistics]:
    """The statistics with the quantiles of these histograms, by the name of the model."""
    merged = {key: selected.interval_sums(messages) for key, messages in rows}
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
    points: Sequence[SeriesPoint], rows: Iterable[tuple[int, list[bytes]]], metric: Metric
) -> list[SeriesPoint]:
    """The points with the quantile of a metric from these histograms, by their start."""
    merged = {key: selected.interval_sums(messages) for key, messages in rows}
    return [
        replace(point, value=interval_quantile_ms(merged.get(point.start_ns, ()), metric.fraction))
        for point in points
    ]
