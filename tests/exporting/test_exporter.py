"""Delivery over real gRPC: batches, retries, refusals, deadlines, forks, the way out."""

from __future__ import annotations

import os
import threading
from typing import Any

from backend_recording import KIB
from grpc_receiver import Receiver
from lasting_address import lasting_address


def test_spans_arrive(tracer: Any, receiver: Receiver) -> None:
    for number in range(10):
        tracer.start_span("m", batch_size=number).end()
    assert tracer.flush()
    assert [span.inference.batch_size for span in receiver.spans] == list(range(10))
    stats = tracer.stats()
    assert stats == {
        "produced": 10,
        "delivered": 10,
        "pending": 0,
        "handed_over": 0,
        "dropped": {},
        "invalid_fields": 0,
        "thread_failures": 0,
    }


def test_spans_leave_without_a_flush(tracer: Any, receiver: Receiver) -> None:
    tracer.start_span("m").end()
    with receiver.received:
        assert receiver.received.wait_for(lambda: receiver.requests, timeout=30)


def test_each_batch_states_the_ledger_and_the_resource(new_tracer: Any, receiver: Receiver) -> None:
    tracer = new_tracer(
        receiver.endpoint,
        max_batch_bytes=4 * KIB,
        resource_attributes={"deployment.environment": "test"},
        headers={"X-Team": "inference"},
    )
    for _ in range(200):
        tracer.start_span("m").end()
    assert tracer.flush()
    assert tracer.shutdown()
    *batches, last = receiver.requests
    assert len({request.producer_id for request in receiver.requests}) == 1
    assert len(last.producer_id) == 16
    assert [r.batch_sequence for r in receiver.requests] == list(range(1, len(batches) + 2))
    following = 1
    for batch in batches:
        assert batch.first_span_sequence == following
        following += len(batch.spans)
        assert not batch.final
    assert last.final
    assert not last.spans
    assert last.produced_count == 200
    resource = last.resource.attributes
    assert resource["service.name"].string_value == "tests"
    assert resource["deployment.environment"].string_value == "test"
    assert resource["process.pid"].int_value == os.getpid()
    assert receiver.metadata[0]["x-team"] == "inference"


def test_after_shutdown_spans_are_counted(tracer: Any) -> None:
    assert tracer.shutdown()
    assert tracer.shutdown()
    with tracer.start_span("m") as span:
        span.set_batch_size(1)
    assert tracer.stats()["dropped"] == {"shutdown": 1}


def test_flush_from_many_threads(tracer: Any, receiver: Receiver) -> None:
    results = []

    def work() -> None:
        for _ in range(20):
            tracer.start_span("m").end()
        results.append(tracer.flush(30))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 8
    assert len(receiver.spans) == 160


def test_flush_does_not_wait_for_what_ends_meanwhile(tracer: Any, receiver: Receiver) -> None:
    """With a span that ends in each request something is always pending."""
    enough = 500

    def answer(request: Any, context: Any) -> Any:
        if len(receiver.requests) < enough:
            tracer.start_span("m", "meanwhile").end()
        return receiver.accept(request, context)

    receiver.answer = answer
    tracer.start_span("m", "before").end()
    assert tracer.flush(60)
    assert receiver.spans[0].operation_name == "before"
    assert len(receiver.requests) < enough


def test_configure_moves_pending_spans_to_the_new_endpoint(
    new_tracer: Any, receiver: Receiver
) -> None:
    tracer = new_tracer(lasting_address())
    tracer.start_span("m").end()
    assert not tracer.flush(0.2)
    assert tracer.configure(endpoint=receiver.endpoint, service_name="renamed") is tracer
    tracer.start_span("m").end()
    assert tracer.flush(30)
    assert [span.service_name for span in receiver.spans][-1] == "renamed"
    assert tracer.stats()["delivered"] == 2
