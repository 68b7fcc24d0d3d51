"""The metrics of a model over time: the one declaration that stores and answers share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Aggregate = Literal["quantile", "interval_quantile", "mean", "rate", "error_share"]
"""`quantile` is interpolated, at `fraction`; `interval_quantile` likewise, in the merged histograms
of a column, and not by SQL. `mean` is of the values that are present. `rate` is
the sum for each second of a step, where a metric without a column counts spans. `error_share` is
the share of spans with status ERROR, 0 to 1."""


@dataclass(frozen=True)
class Metric:
    """An aggregate of one column over the spans of a step, times `scale`."""

    aggregate: Aggregate
    unit: str
    column: str = ""
    fraction: float = 0.0
    scale: float = 1.0


def _latency(fraction: float) -> Metric:
    return Metric("quantile", "milliseconds", "duration_nanos", fraction, 1e-6)


FRACTIONS = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def _quantiles(name: str, column: str) -> dict[str, Metric]:
    return {
        f"{name}_{percentile}_ms": Metric("quantile", "milliseconds", column, fraction)
        for percentile, fraction in FRACTIONS.items()
    }


METRICS = {
    "p50_ms": _latency(0.5),
    "p95_ms": _latency(0.95),
    "p99_ms": _latency(0.99),
    "error_rate": Metric("error_share", "0 to 1"),
    "spans_per_second": Metric("rate", "spans per second"),
    "tokens_per_second": Metric("rate", "output tokens per second", "output_tokens"),
    "time_to_first_token_ms": Metric("mean", "milliseconds", "time_to_first_token_ms"),
    **_quantiles("time_to_first_token", "time_to_first_token_ms"),
    "inter_token_latency_ms": Metric("mean", "milliseconds", "inter_token_latency_ms"),
    **{
        f"inter_token_latency_{percentile}_ms": Metric(
            "interval_quantile", "milliseconds", "token_intervals", fraction
        )
        for percentile, fraction in FRACTIONS.items()
    },
    "queue_wait_time_ms": Metric("mean", "milliseconds", "queue_wait_time_ms"),
    **_quantiles("queue_wait_time", "queue_wait_time_ms"),
    "queue_depth": Metric("mean", "requests", "queue_depth"),
    "batch_size": Metric("mean", "requests", "batch_size"),
    "batch_fill_ratio": Metric("mean", "0 to 1", "batch_fill_ratio"),
    "gpu_utilization_percent": Metric("mean", "0 to 100", "gpu_utilization_percent"),
    "gpu_memory_used_bytes": Metric("mean", "bytes", "gpu_memory_used_bytes"),
    "gpu_power_watts": Metric("mean", "watts", "gpu_power_watts"),
}

EXPRESSIONS = {"queue_wait_time_ms": "coalesce(queue_wait_time_ms, scheduled_after_ms)"}
"""In place of a column: what the server says it waited, else from its start until work began."""

# The tokens of spans that say their kind. Several services may tell of one call there, such as
# client and engine: of those in a trace, the one that tells most counts.
FOREIGN_TOKENS = """
    SELECT model_name, CAST(sum(tokens) AS bigint) FROM (
        SELECT model_name, trace_id, max(tokens) AS tokens FROM (
            SELECT model_name, trace_id, service_name, sum(output_tokens) AS tokens
            FROM {spans} WHERE {condition} AND kind IS NOT NULL AND output_tokens IS NOT NULL
            GROUP BY model_name, trace_id, service_name) AS of_services
        GROUP BY model_name, trace_id) AS of_traces
    GROUP BY model_name"""

# The same for a series: the spans with what each tells of tokens, which is nothing for those of the
# other services. What the condition asks for stands in it twice.
_COUNTED_ONCE = """(
    SELECT start_time, output_tokens FROM {spans}
    WHERE {condition} AND (kind IS NULL OR output_tokens IS NULL)
    UNION ALL
    SELECT start_time, CASE WHEN service_name = told_by THEN output_tokens END FROM (
        SELECT start_time, service_name, output_tokens, first_value(service_name) OVER (
            PARTITION BY trace_id ORDER BY of_service DESC, service_name) AS told_by
        FROM (
            SELECT start_time, trace_id, service_name, output_tokens,
                sum(output_tokens) OVER (PARTITION BY trace_id, service_name) AS of_service
            FROM {spans} WHERE {condition} AND kind IS NOT NULL AND output_tokens IS NOT NULL
        ) AS of_services) AS of_traces) AS counted_once"""

AGGREGATED_COLUMNS = (
    "trace_id",
    "service_name",
    "kind",
    "model_name",
    "operation_name",
    "parent_span_id",
    "flags",
    "start_time",
    "duration_nanos",
    "status",
    "output_tokens",
    "step_index",
    "scheduled_after_ms",
    *sorted({m.column for m in METRICS.values()} - {"", "duration_nanos", "output_tokens"}),
)
"""All columns that statistics read."""


def aggregate_sql(metric: Metric, step_ns: int, quantile: str) -> str:
    """The aggregate in SQL; `quantile` is the dialect's, with {column} and {fraction}."""
    column = EXPRESSIONS.get(metric.column, metric.column)
    if metric.aggregate == "quantile":
        value = quantile.format(column=column, fraction=metric.fraction)
    elif metric.aggregate == "interval_quantile":
        return "CAST(NULL AS DOUBLE PRECISION)"
    elif metric.aggregate == "mean":
        value = f"avg({column})"
    elif metric.aggregate == "rate":
        value = f"{f'sum({column})' if column else 'count(*)'} * 1e9 / {step_ns:d}"
    else:
        value = "avg(CASE WHEN status = 'ERROR' THEN 1.0 ELSE 0.0 END)"
    return f"CAST(({value}) * {metric.scale} AS DOUBLE PRECISION)"


def series_source(
    metric: Metric, spans: str, condition: str, values: list[Any]
) -> tuple[str, str, list[Any]]:
    """From which relation, under which condition and with which values a series is aggregated.

    That is what is given, but for tokens, of which each request counts once.
    """
    if metric.column != "output_tokens":
        return spans, condition, values
    return _COUNTED_ONCE.format(spans=spans, condition=condition), "TRUE", [*values, *values]
