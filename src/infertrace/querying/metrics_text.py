"""The counters of a collector in the text format of Prometheus.

https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

from collections.abc import Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_METRICS = {
    "requests": ("requests_total", "counter", "gRPC requests received."),
    "requests_refused": ("requests_refused_total", "counter", "gRPC requests answered by error."),
    "spans_accepted": ("spans_accepted_total", "counter", "Valid spans made durable."),
    "spans_rejected": ("spans_rejected_total", "counter", "Invalid spans left out."),
    "spans_duplicate": ("spans_duplicate_total", "counter", "Accepted spans stored before."),
    "commits": ("commits_total", "counter", "Transactions committed."),
    "commit_failures": ("commit_failures_total", "counter", "Transactions that failed."),
    "pending_bytes": ("pending_bytes", "gauge", "Bytes of requests waiting for their commit."),
}


def metrics_text(counters: Mapping[str, int]) -> str:
    """All counters, each with its help and its type."""
    lines = []
    for key, (suffix, kind, description) in _METRICS.items():
        name = f"infertrace_collector_{suffix}"
        lines += [
            f"# HELP {name} {description}",
            f"# TYPE {name} {kind}",
            f"{name} {counters[key]}",
        ]
    return "\n".join(lines) + "\n"
