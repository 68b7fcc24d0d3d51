"""One row for each (trace id, span id): the first that arrived, however often it is sent."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from collector_client import Client, NewSpan, OpenClient
from infertrace.collector.server import Collector
from infertrace.generated.span_pb2 import SendSpanBatchRequest, Span


def same_ids(span: Span, **fields: Any) -> Span:
    other = Span()
    other.CopyFrom(span)
    other.MergeFrom(Span(**fields))
    return other


def test_within_a_batch(client: Client, new_span: NewSpan) -> None:
    span = new_span(operation_name="first")
    answer = client.send(span, same_ids(span, operation_name="second"), new_span(), span)
    assert (answer.accepted_count, answer.rejected_count) == (4, 0)
    stored = client.get("/spans")
    assert [s["operation_name"] for s in stored] == ["inference", "first"]


def test_across_batches_with_another_payload(client: Client, new_span: NewSpan) -> None:
    span = new_span(operation_name="first")
    client.send(span)
    later = span.start_time_unix_nano + 60_000_000_000
    for conflict in (
        same_ids(span),
        same_ids(span, operation_name="second"),
        same_ids(span, start_time_unix_nano=later, duration_nanos=1),
    ):
        assert client.send(conflict, new_span()).accepted_count == 2
    stored = client.get("/spans")
    assert len(stored) == 4
    assert [s["operation_name"] for s in stored if s["span_id"] == span.span_id.hex()] == ["first"]


def test_half_of_the_pair_is_no_duplicate(client: Client, new_span: NewSpan) -> None:
    span = new_span()
    sibling = same_ids(span, span_id=b"another1")
    stranger = same_ids(span, trace_id=b"another trace 16")
    client.send(span)
    client.send(sibling, stranger)
    assert len(client.get("/spans")) == 3


def test_across_concurrent_requests(client: Client, new_span: NewSpan) -> None:
    requests = [SendSpanBatchRequest(spans=[new_span() for _ in range(20)]) for _ in range(10)]
    calls = [client.stub.SendSpanBatch.future(r, timeout=60) for r in requests * 5]
    assert all(call.result().accepted_count == 20 for call in calls)
    assert len(client.get("/spans", limit=1000)) == 200


def test_across_a_restart(file_url: str, open_client: OpenClient, new_span: NewSpan) -> None:
    spans = [new_span() for _ in range(5)]
    for first in (0, 2):
        with Collector("127.0.0.1:0", "127.0.0.1:0", file_url) as collector:
            client = open_client(collector.grpc_address, collector.http_address)
            fields = {"producer_id": b"p" * 16, "produced_count": 5}
            answer = client.send(*spans[first : first + 3], first_span_sequence=first + 1, **fields)
            assert answer.accepted_count == 3
    with Collector("127.0.0.1:0", "127.0.0.1:0", file_url) as collector:
        client = open_client(collector.grpc_address, collector.http_address)
        assert len(client.get("/spans")) == 5
        (account,) = client.get("/ledger")["producers"]
        assert (account["stored"], account["duplicates"], account["pending"]) == (5, 1, 0)


def test_the_metrics_count_them(client: Client, new_span: NewSpan) -> None:
    span = new_span()
    client.send(span, span)
    client.send(span, new_span(status="LATE"))
    answer = client.http.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    found = {
        sample.name: sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    names = ("spans_accepted_total", "spans_duplicate_total", "spans_rejected_total")
    assert [found[f"infertrace_collector_{name}"] for name in names] == [3, 2, 1]
    assert found["infertrace_collector_requests_total"] == 2
    assert found["infertrace_collector_pending_bytes"] == 0
    assert found["process_open_fds"] > 0
