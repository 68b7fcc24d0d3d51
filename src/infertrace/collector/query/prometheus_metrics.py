"""The counters of a collector, and metrics of its process, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from infertrace.collector.background_thread import BackgroundThread
from infertrace.collector.counters import Counters
from infertrace.collector.forwarding.forward_account import REASONS
from infertrace.collector.forwarding.forwarder import Forwarder
from infertrace.collector.query.model_histograms import ModelHistograms

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_COUNTERS = {
    "requests": "Requests received, of all protocols that bring spans.",
    "requests_refused": "Those answered by error.",
    "spans_accepted": "Valid spans made durable.",
    "spans_rejected": "Invalid spans left out.",
    "spans_duplicate": "Accepted spans stored before.",
    "commits": "Transactions committed.",
    "commit_failures": "Transactions that failed.",
}
_GAUGES = {"pending_bytes": "Bytes of requests waiting for their commit."}


class PrometheusMetrics(Collector):
    """No label is taken from a span, but for models, where `histograms` limits how many."""

    def __init__(
        self,
        counters: Counters,
        threads: Sequence[BackgroundThread],
        forwarders: Sequence[Forwarder] = (),
        histograms: ModelHistograms | None = None,
    ) -> None:
        self._histograms = histograms
        self._counters = counters
        self._forwarders = forwarders
        self._threads = threads
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """All metrics in the text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        found = self._counters.snapshot()
        for key, description in _COUNTERS.items():
            yield CounterMetricFamily(f"infertrace_collector_{key}", description, value=found[key])
        for key, description in _GAUGES.items():
            yield GaugeMetricFamily(f"infertrace_collector_{key}", description, value=found[key])
        restarts = CounterMetricFamily(
            "infertrace_collector_thread_restarts",
            "Threads replaced after an unforeseen error.",
            labels=["thread"],
        )
        failing = GaugeMetricFamily(
            "infertrace_collector_thread_failing",
            "1 while such a thread has not done its work again.",
            labels=["thread"],
        )
        for state in [thread.state for thread in self._threads]:
            restarts.add_metric([state.name], state.restarts)
            failing.add_metric([state.name], float(state.error is not None))
        yield restarts
        yield failing
        if self._forwarders:
            yield from self._forwards()
        if self._histograms is not None:
            yield from self._histograms.metrics()

    def _forwards(self) -> Iterator[Metric]:
        start = "infertrace_collector_forward"
        received, delivered = (
            CounterMetricFamily(f"{start}_{word}", f"Spans {text}.", labels=["target"])
            for word, text in (("received", "to forward"), ("delivered", "forwarded"))
        )
        pending = GaugeMetricFamily(
            f"{start}_pending", "Spans waiting to be forwarded.", labels=["target"]
        )
        dropped = CounterMetricFamily(
            f"{start}_dropped", "Spans not forwarded.", labels=["target", "reason"]
        )
        for forwarder in self._forwarders:
            counts = forwarder.account.counts()
            received.add_metric([forwarder.name], counts.received)
            delivered.add_metric([forwarder.name], counts.delivered)
            pending.add_metric([forwarder.name], counts.pending)
            for reason in REASONS:
                dropped.add_metric([forwarder.name, reason], counts.dropped.get(reason, 0))
        yield from (received, delivered, pending, dropped)
