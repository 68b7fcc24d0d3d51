"""How long the requests of each model took, counted as they are stored, for Prometheus.

The bounds are powers of two of a nanosecond, so they are bounds of our own buckets as well.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from infertrace.collector.store.measures import MEASURES
from infertrace.collector.store.row_filter import matching_positions
from infertrace.collector.store.span_filter import SpanFilter
from infertrace.collector.store.timestamps import NANOS_PER_SECOND

MAX_MODELS = 50  # each makes a hundred series
OTHER_MODELS = "(other models)"
LOWEST_EXPONENT, HIGHEST_EXPONENT = 17, 40  # 131 microseconds to 18 minutes
_EXPONENTS = range(LOWEST_EXPONENT, HIGHEST_EXPONENT + 1)
_HISTOGRAMS = {
    "duration_ms": ("infertrace_request_duration_seconds", "From arrival to the last token."),
    "time_to_first_token_ms": (
        "infertrace_request_time_to_first_token_seconds",
        "From arrival to the first token.",
    ),
    "inter_token_latency_ms": (
        "infertrace_request_inter_token_latency_seconds",
        "Mean time between two tokens of a request.",
    ),
    "queue_wait_time_ms": ("infertrace_request_queue_wait_seconds", "Wait before work began."),
}
_REQUESTS = SpanFilter(is_request=True)


@dataclass
class _Histogram:
    counts: dict[int, int] = field(default_factory=dict)
    """By the exponent of the upper bound in nanoseconds; HIGHEST_EXPONENT + 1 is beyond all."""
    sum_s: float = 0.0

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulated, by the upper bounds in seconds."""
        found, total = [], 0
        for exponent in _EXPONENTS:
            total += self.counts.get(exponent, 0)
            found.append((repr(2**exponent / NANOS_PER_SECOND), float(total)))
        return [*found, ("+Inf", float(sum(self.counts.values())))]


class ModelHistograms:
    """Counts requests from when the collector started; of MAX_MODELS models, the others as one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._models: set[str] = set()
        self._requests: dict[tuple[str, str], int] = {}
        self._histograms: dict[tuple[str, str], _Histogram] = {}

    def add(self, batches: Sequence[pa.RecordBatch]) -> None:
        """Count the requests among rows that are stored now."""
        if not batches:
            return
        table = pa.Table.from_batches(batches)
        requests = table.take(matching_positions(table, _REQUESTS, None))
        if not len(requests):
            return
        statuses = requests.group_by(["model_name", "status"]).aggregate([([], "count_all")])
        sums = {name: _sums(requests, name) for name in _HISTOGRAMS}
        with self._lock:
            for row in statuses.to_pylist():
                key = self._label(row["model_name"]), row["status"]
                self._requests[key] = self._requests.get(key, 0) + row["count_all"]
            for name, rows in sums.items():
                for row in rows:
                    key = self._label(row["model"]), name
                    histogram = self._histograms.setdefault(key, _Histogram())
                    exponent = int(row["exponent"])
                    counts = histogram.counts
                    counts[exponent] = counts.get(exponent, 0) + row["count_all"]
                    histogram.sum_s += row["seconds_sum"]

    def _label(self, model: str) -> str:
        if model not in self._models and len(self._models) < MAX_MODELS:
            self._models.add(model)
        return model if model in self._models else OTHER_MODELS

    def metrics(self) -> Iterator[Metric]:
        """A counter of requests by status, and a histogram of each time that requests say."""
        requests = CounterMetricFamily(
            "infertrace_requests", "Requests that ended.", labels=["model", "status"]
        )
        families = {
            name: HistogramMetricFamily(metric, description, labels=["model"])
            for name, (metric, description) in _HISTOGRAMS.items()
        }
        with self._lock:
            for labels, count in self._requests.items():
                requests.add_metric(labels, count)
            for (model, name), histogram in self._histograms.items():
                families[name].add_metric([model], histogram.buckets(), histogram.sum_s)
        yield requests
        yield from families.values()


def _sums(requests: pa.Table, name: str) -> list[dict[str, Any]]:
    """Of each model and exponent, the count and the sum of the values, in seconds."""
    measure = MEASURES[name]
    first, *others = (requests.column(column) for column in measure.columns)
    value = pc.cast(pc.coalesce(first, *others), pa.float64(), safe=False)
    nanos = pc.multiply(value, float(measure.per_unit // measure.stored_per_unit))
    exponent = pc.ceil(pc.log2(pc.max_element_wise(nanos, 1.0, skip_nulls=False)))
    limited = pc.min_element_wise(
        pc.max_element_wise(exponent, float(LOWEST_EXPONENT), skip_nulls=False),
        float(HIGHEST_EXPONENT + 1),
        skip_nulls=False,
    )
    columns = {
        "model": requests.column("model_name"),
        "exponent": limited,
        "seconds": pc.divide(nanos, float(NANOS_PER_SECOND)),
    }
    present = pa.table(columns).filter(pc.is_valid(value))
    grouped = present.group_by(["model", "exponent"])
    found: list[dict[str, Any]] = grouped.aggregate(
        [([], "count_all"), ("seconds", "sum")]
    ).to_pylist()
    return found
