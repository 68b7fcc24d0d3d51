"""Delivery over real gRPC: batches, retries, refusals, deadlines, forks, the way out."""

from __future__ import annotations

import gc
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from backend_recording import KIB, assert_closed
from grpc_receiver import Receiver
from infertrace import backend as backends
from infertrace.generated import span_pb2


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
        "dropped": {},
        "invalid_fields": 0,
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


def test_the_collector_comes_late(
    new_tracer: Any, new_receiver: Callable[..., Receiver], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "infertrace")
    endpoint = f"127.0.0.1:{free_port()}"
    tracer = new_tracer(endpoint)
    for _ in range(100):
        tracer.start_span("m").end()
    assert not tracer.flush(0.5)
    assert tracer.stats()["pending"] == 100
    receiver = new_receiver(endpoint)
    assert tracer.flush(30)
    assert len(receiver.spans) == 100
    assert_closed(tracer.stats())
    lines = [record.message for record in caplog.records if record.name == "infertrace"]
    assert len(lines) == 2, lines  # not one for each failure
    assert "cannot deliver spans" in lines[0]
    assert lines[1].endswith("spans are being delivered")


def test_the_collector_goes_and_comes_back(
    new_tracer: Any, new_receiver: Callable[..., Receiver]
) -> None:
    first = new_receiver()
    tracer = new_tracer(first.endpoint)
    tracer.start_span("m", "before").end()
    assert tracer.flush()
    first.stop()
    for _ in range(50):
        tracer.start_span("m", "during").end()
    assert not tracer.flush(0.3)
    second = new_receiver(first.endpoint)
    assert tracer.flush(30)
    assert len(second.spans) == 50
    stats = tracer.stats()
    assert stats["delivered"] == 51
    assert stats["dropped"] == {}


RETRIED = ["CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"]
REFUSED = [
    code.name for code in grpc.StatusCode if code.name not in (*RETRIED, "OK", "RESOURCE_EXHAUSTED")
]


@pytest.mark.parametrize("name", RETRIED)
def test_codes_that_are_retried(tracer: Any, receiver: Receiver, name: str) -> None:
    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        if len(receiver.requests) < 2:
            context.set_code(grpc.StatusCode[name])
            return span_pb2.SendSpanBatchResponse()
        return receiver.accept(request, context)

    receiver.answer = answer
    tracer.start_span("m").end()
    assert tracer.flush(30)
    assert len(receiver.requests) == 3
    assert len({request.batch_sequence for request in receiver.requests}) == 1
    assert tracer.stats()["delivered"] == 1


@pytest.mark.parametrize("name", REFUSED)
def test_codes_that_are_not_retried(tracer: Any, receiver: Receiver, name: str) -> None:
    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        context.set_code(grpc.StatusCode[name])
        return span_pb2.SendSpanBatchResponse()

    receiver.answer = answer
    tracer.start_span("m").end()
    assert tracer.flush(30)
    assert len(receiver.requests) == 1
    assert tracer.stats()["dropped"] == {"rejected": 1}
    assert_closed(tracer.stats())


def test_a_batch_that_is_too_large_is_split(tracer: Any, receiver: Receiver) -> None:
    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        if len(request.spans) > 3 or any(s.operation_name == "bad" for s in request.spans):
            context.set_code(grpc.StatusCode.RESOURCE_EXHAUSTED)
            return span_pb2.SendSpanBatchResponse()
        return receiver.accept(request, context)

    receiver.answer = answer
    names = [str(number) for number in range(20)]
    names[7] = "bad"
    for name in names:
        tracer.start_span("m", name).end()
    assert tracer.flush(30)
    stats = tracer.stats()
    assert stats["delivered"] == 19
    assert stats["dropped"] == {"rejected": 1}
    for request in receiver.requests:
        first = request.first_span_sequence
        assert [span.operation_name for span in request.spans] == names[
            first - 1 : first - 1 + len(request.spans)
        ]


def test_retry_info_is_honoured(tracer: Any, receiver: Receiver) -> None:
    times = []

    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        times.append(time.monotonic())
        if len(times) == 1:
            context.set_trailing_metadata((("grpc-status-details-bin", retry_info(0.7)),))
            context.set_code(grpc.StatusCode.RESOURCE_EXHAUSTED)
            return span_pb2.SendSpanBatchResponse()
        return receiver.accept(request, context)

    receiver.answer = answer
    tracer.start_span("m").end()
    assert tracer.flush(30)
    assert times[1] - times[0] >= 0.7  # what the collector asked for, not a speed
    assert tracer.stats()["delivered"] == 1


def test_a_partial_success_is_counted_and_not_retried(
    tracer: Any, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer = lambda request, context: span_pb2.SendSpanBatchResponse(
        accepted_count=len(request.spans) - 1, rejected_count=1, rejection_reason="odd id"
    )
    for _ in range(3):
        tracer.start_span("m").end()
        assert tracer.flush(30)
    assert len(receiver.requests) == 3
    assert tracer.stats()["dropped"] == {"rejected": 3}
    assert sum("odd id" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize("accepted", [-5, 10**6])
def test_nonsense_in_the_answer_keeps_the_ledger_closed(
    tracer: Any, receiver: Receiver, accepted: int
) -> None:
    receiver.answer = lambda request, context: span_pb2.SendSpanBatchResponse(
        accepted_count=accepted
    )
    tracer.start_span("m").end()
    assert tracer.flush(30)
    assert_closed(tracer.stats())
    assert tracer.stats()["produced"] == 1


@pytest.fixture
def hung() -> Iterator[str]:
    """An endpoint that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_flush_and_shutdown_keep_one_deadline(new_tracer: Any, hung: str) -> None:
    tracer = new_tracer(hung)
    for _ in range(100):
        tracer.start_span("m").end()
    began = time.monotonic()
    assert not tracer.flush(0.5)
    assert not tracer.shutdown(0.5)
    # Not a speed: the gRPC call in flight may wait 10 s, its queue for ever.
    assert time.monotonic() - began < 5
    stats = tracer.stats()
    assert stats["pending"] == 0
    assert stats["dropped"] == {"shutdown": 100}


def test_overflow_while_the_collector_hangs(new_tracer: Any, hung: str) -> None:
    tracer = new_tracer(hung, max_buffer_bytes=64 * KIB, max_batch_bytes=16 * KIB)
    for _ in range(5_000):
        tracer.start_span("m").end()
    stats = tracer.stats()
    assert stats["produced"] == 5_000
    assert stats["dropped"]["buffer_full"] > 0
    assert_closed(stats)
    tracer.shutdown(0)
    assert_closed(tracer.stats())
    assert tracer.stats()["pending"] == 0


def test_after_shutdown_spans_are_counted(tracer: Any) -> None:
    assert tracer.shutdown()
    assert tracer.shutdown()
    with tracer.start_span("m") as span:
        span.set_batch_size(1)
    assert tracer.stats()["dropped"] == {"shutdown": 1}


@pytest.mark.parametrize("seed", range(20))
def test_shutdown_from_a_finalizer(new_tracer: Any, hung: str, seed: int) -> None:
    """The collector of cycles runs it wherever it likes, also amid the buffer's own work."""
    tracer = new_tracer(endpoint=hung, export_interval_s=0.01)
    chance = random.Random(seed)
    results = []

    class Model:
        def __init__(self) -> None:
            self.cycle = self

        def __del__(self) -> None:
            results.append(tracer.shutdown(timeout=0.05))

    threshold = gc.get_threshold()
    gc.collect()
    tracer.start_span("m").end()
    Model()
    gc.set_threshold(chance.randint(2, 40))
    try:
        for _ in range(99):
            with tracer.start_span("m", tags={"a": "b"}) as span:
                span.add_event("e", {"k": 1})
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    stats = tracer.stats()
    assert len(results) == 1
    assert stats["produced"] == stats["dropped"]["shutdown"] == 100
    assert stats["pending"] == 0


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


def test_configure_moves_pending_spans_to_the_new_endpoint(
    new_tracer: Any, receiver: Receiver
) -> None:
    tracer = new_tracer(f"127.0.0.1:{free_port()}")
    tracer.start_span("m").end()
    assert not tracer.flush(0.2)
    assert tracer.configure(endpoint=receiver.endpoint, service_name="renamed") is tracer
    tracer.start_span("m").end()
    assert tracer.flush(30)
    assert [span.service_name for span in receiver.spans][-1] == "renamed"
    assert tracer.stats()["delivered"] == 2


def test_a_child_process_has_a_ledger_and_spans_of_its_own(
    new_tracer: Any, new_receiver: Callable[..., Receiver]
) -> None:
    """Forked before gRPC has connected, as a preloading server forks its workers."""
    endpoint = f"127.0.0.1:{free_port()}"
    tracer = new_tracer(endpoint, export_interval_s=3600)
    tracer._exporter._start = lambda: None  # the parent exports nothing before the fork
    for _ in range(5):
        tracer.start_span("m", "parent").end()
    del tracer._exporter._start
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                tracer.start_span("m", "child").end()
                mine = tracer.stats()
                delivered = tracer.flush(30)
                status = 0 if mine["produced"] == 1 and delivered else 1
            finally:
                os._exit(status)
        children.append(child)
    receiver = new_receiver(endpoint)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert tracer.stats()["pending"] == 5
    assert tracer.flush(30)
    names = sorted(span.operation_name for span in receiver.spans)
    assert names == ["child"] * 3 + ["parent"] * 5
    assert len({request.producer_id for request in receiver.requests if request.spans}) == 4


@pytest.mark.parametrize("how", ["return", "sys.exit(3)", "1/0", "os.kill(os.getpid(), 2)"])
def test_leaving_the_interpreter_delivers(backend: Any, receiver: Receiver, how: str) -> None:
    outcome = run_program(
        backend,
        f"""
        import os, sys
        def main():
            tracer = infertrace.Tracer("{receiver.endpoint}", service_name="exit")
            for _ in range(50):
                with tracer.start_span("m"): pass
            {how}
        main()
        """,
    )
    assert len(receiver.spans) == 50, outcome.stderr
    assert receiver.requests[-1].final


def test_leaving_the_interpreter_is_bounded_and_says_what_is_lost(backend: Any, hung: str) -> None:
    began = time.monotonic()
    outcome = run_program(
        backend,
        f"""
        tracer = infertrace.Tracer("{hung}", exit_timeout_s=0.5)
        for _ in range(50):
            with tracer.start_span("m"): pass
        """,
    )
    assert outcome.returncode == 0
    assert "50 spans were not delivered" in outcome.stderr
    assert time.monotonic() - began < 30


def test_exit_with_a_thread_in_mid_emit(backend: Any, receiver: Receiver) -> None:
    outcome = run_program(
        backend,
        f"""
        import threading, time
        tracer = infertrace.Tracer("{receiver.endpoint}")
        def emit():
            while True:
                with tracer.start_span("m", tags={{"a": "b"}}): pass
                time.sleep(1e-4)
        for _ in range(3):
            threading.Thread(target=emit, daemon=True).start()
        time.sleep(0.3)
        """,
    )
    assert outcome.returncode == 0
    assert "Traceback" not in outcome.stderr
    assert "Fatal" not in outcome.stderr
    last = receiver.requests[-1]
    assert last.final
    # What came after the shutdown began is in its own counter.
    assert last.produced_count == len(receiver.spans) + sum(last.dropped_counts.values())


def test_a_killed_child_does_not_hang_the_parent(new_tracer: Any, receiver: Receiver) -> None:
    tracer = new_tracer(receiver.endpoint)
    tracer.start_span("m").end()
    assert tracer.flush()
    child = os.fork()
    if child == 0:
        tracer.start_span("m").end()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    tracer.start_span("m").end()
    assert tracer.flush(30)
    assert tracer.stats()["delivered"] == 2


def run_program(backend: Any, body: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "import infertrace\n" + textwrap.dedent(body)],
        env={**os.environ, backends.VARIABLE: backend.NAME},
        capture_output=True,
        text=True,
        timeout=120,
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def retry_info(delay_s: float) -> bytes:
    """A google.rpc.Status whose details hold a RetryInfo, made with protobuf's own types."""
    from google.protobuf.any_pb2 import Any as AnyMessage
    from google.protobuf.duration_pb2 import Duration

    duration = Duration(seconds=int(delay_s), nanos=int(delay_s % 1 * 1e9)).SerializeToString()
    detail = AnyMessage(
        type_url="type.googleapis.com/google.rpc.RetryInfo",
        value=b"\x0a" + bytes((len(duration),)) + duration,
    ).SerializeToString()
    return b"\x08\x08\x12\x04slow\x1a" + bytes((len(detail),)) + detail
