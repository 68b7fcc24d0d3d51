"""Histograms of the requests of each model, as Prometheus reads them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from collector_client import Client, NewSpan, OpenClient
from infertrace.collector.query.model_histograms import MAX_MODELS, OTHER_MODELS
from infertrace.collector.server import Collector
from infertrace.generated.span_pb2 import InferenceContext

MS = 1_000_000
GRAFANA = Path(__file__).parents[2] / "deploy" / "grafana"


@pytest.fixture
def measured(store_url: str, open_client: OpenClient) -> Iterator[Client]:
    with Collector("127.0.0.1:0", "127.0.0.1:0", store_url, has_model_metrics=True) as collector:
        yield open_client(collector.grpc_address, collector.http_address)


def samples(client: Client, name: str, **labels: str) -> dict[Any, float]:
    """The values of a metric by its further label, or by its name where there is none."""
    families = text_string_to_metric_families(client.http.get("/metrics").text)
    found = {}
    for family in families:
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                rest = {key: text for key, text in sample.labels.items() if key not in labels}
                found["".join(rest.values())] = sample.value
    return found


def test_each_request_is_counted_once(measured: Client, new_span: NewSpan) -> None:
    spans = [
        new_span(
            model="m",
            duration_nanos=milliseconds * MS,
            status="ERROR" if milliseconds > 1_000 else "OK",
            inference=InferenceContext(scheduled_after_ms=milliseconds / 2),
        )
        for milliseconds in (1, 10, 100, 2_000)
    ]
    step = new_span(model="m", inference=InferenceContext(step_index=1))
    measured.send(*spans, step)
    measured.send(spans[0], new_span(model="m", parent_span_id=b"p" * 8))
    assert samples(measured, "infertrace_requests_total", model="m") == {"OK": 3, "ERROR": 1}
    name = "infertrace_request_duration_seconds"
    buckets = samples(measured, f"{name}_bucket", model="m")
    for bound, count in buckets.items():
        exact = sum(span.duration_nanos / 1e9 <= float(bound) for span in spans)
        assert count == exact, bound
    assert samples(measured, f"{name}_count", model="m") == {"": 4}
    assert samples(measured, f"{name}_sum", model="m")[""] == pytest.approx(2.111)
    waits = samples(measured, "infertrace_request_queue_wait_seconds_sum", model="m")
    assert waits[""] == pytest.approx(1.0555)
    first = "infertrace_request_time_to_first_token_seconds_count"
    assert samples(measured, first, model="m") == {}


def test_many_models_are_one(measured: Client, new_span: NewSpan) -> None:
    measured.send(*(new_span(model=f"m{number:03}") for number in range(MAX_MODELS + 7)))
    counted = samples(measured, "infertrace_requests_total", status="OK")
    assert len(counted) == MAX_MODELS + 1
    assert counted[OTHER_MODELS] == 7


def test_they_are_off_unless_asked_for(client: Client, new_span: NewSpan) -> None:
    client.send(new_span(model="secret-model", start_time_unix_nano=time.time_ns()))
    assert "secret-model" not in client.http.get("/metrics").text


def test_the_board_and_the_alerts_name_what_there_is(measured: Client, new_span: NewSpan) -> None:
    times = InferenceContext(
        time_to_first_token_ms=5, inter_token_latency_ms=1, queue_wait_time_ms=1
    )
    measured.send(new_span(inference=times))
    told = measured.http.get("/metrics").text
    board = json.loads((GRAFANA / "infertrace.json").read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    rules = (GRAFANA / "alerts.yaml").read_text(encoding="utf-8")
    named = set(re.findall(r"infertrace_\w+", "\n".join([*queries, rules])))
    assert named
    assert not {name for name in named if f"\n{name}" not in told}
