"""Handing over batches and samples while the exporter's thread is without the GIL."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

import infertrace
from backend_recording import KIB, Recording
from grpc_receiver import Receiver
from infertrace import backend as backends
from infertrace.buffering.ledger import DROP_REASONS
from infertrace.exporting import envelope, link
from infertrace.exporting.answer import Answer, Refused
from infertrace.exporting.delivery import Delivery
from infertrace.generated import span_pb2
from traced_program import sender_of, wait_until

PRODUCER_ID = bytes(range(16))
PRODUCER = envelope.encode_producer_id(PRODUCER_ID)
SPANS = 50
PATIENCE_S = 30
FOREVER_S = 1e9

wants_a_native_tracer = pytest.mark.skipif(
    backends.selected.NAME != "native", reason="the tracers of this process are pure"
)


@pytest.fixture
def recording() -> Recording:
    pytest.importorskip("infertrace.recording.native")
    return Recording(backends.select("native"), max_buffer_bytes=256 * KIB)


class Looping:
    """A recorder with a thread in its loop, and the test in place of the sender process."""

    def __init__(self, recording: Recording) -> None:
        self.recorder = recording.recorder
        self.start_span = recording.start_span
        self.ours, self.sender = socket.socketpair()
        self.sender.settimeout(PATIENCE_S)
        self._pool = ThreadPoolExecutor(1)
        self.is_last_time = False

    def run_loop(
        self,
        *,
        interval_s: float = FOREVER_S,
        stay_s: float = FOREVER_S,
        batches: int = 0,
        again: bool = False,
    ) -> Future[Any]:
        """again: enter the loop anew where it returns because no span has ended for a while.

        On a busy machine the thread of the test may not get to its next span in time.
        """

        def run() -> Any:
            sequence = batches
            while True:
                result = self.recorder.run_delivery_loop(
                    self.ours.fileno(),
                    PRODUCER,
                    b"",
                    sequence,
                    head=link.ANSWER_HEAD_BYTES,
                    size_at=link.ANSWER_SIZE_AT,
                    timeout_s=PATIENCE_S,
                    interval_s=interval_s,
                    stay_s=stay_s,
                )
                if not again or self.is_last_time or result[1:] != (None, None):
                    return result
                sequence = result[0]

        running = self._pool.submit(run)
        time.sleep(0.01)  # the most likely order, but any is right
        return running

    def interrupt(self) -> None:
        self.is_last_time = True
        self.recorder.interrupt()

    def record(self, spans: int = 1) -> None:
        for _ in range(spans):
            self.start_span("m").end()

    def receive(self) -> span_pb2.SendSpanBatchRequest:
        received = link.receive(self.sender)
        assert received is not None
        request = span_pb2.SendSpanBatchRequest.FromString(received.body)
        assert received.span_count == len(request.spans)
        assert received.timeout_s == PATIENCE_S
        return request

    def answer(self, outcome: int | Refused) -> bytes:
        """outcome: how many spans are accepted, or the refusal."""
        raw = link.pack_answer(Answer(outcome, 0, "") if isinstance(outcome, int) else outcome)
        self.sender.sendall(raw)
        return raw

    def deliver_what_comes(self, done: threading.Event) -> int:
        delivered = 0
        self.sender.settimeout(0.05)
        while not done.is_set():
            with contextlib.suppress(TimeoutError):
                spans = len(self.receive().spans)
                delivered += spans
                self.answer(spans)
        return delivered

    def close(self) -> None:
        self.interrupt()
        self.ours.close()
        self.sender.close()
        self._pool.shutdown()


@pytest.fixture
def looping(recording: Recording) -> Iterator[Looping]:
    made = Looping(recording)
    yield made
    made.close()


def assert_ledger(recorder: Any, **expected: int) -> None:
    produced, delivered, pending, dropped, _ = recorder.counts()
    assert produced == delivered + pending + sum(dropped)
    found = {
        "delivered": delivered,
        "pending": pending,
        **dict(zip(DROP_REASONS, dropped, strict=True)),
    }
    assert {name: found[name] for name in expected} == expected


def test_batches_at_each_interval(looping: Looping) -> None:
    running = looping.run_loop(interval_s=0.02, batches=7, again=True)
    first_span = 1
    for batch in range(8, 11):
        while not (request := next_request(looping)).spans:
            pass
        assert request.producer_id == PRODUCER_ID
        assert request.batch_sequence == batch
        assert request.first_span_sequence == first_span
        assert request.produced_count >= first_span + len(request.spans) - 1
        first_span += len(request.spans)
        looping.answer(len(request.spans))
    looping.interrupt()
    assert running.result(PATIENCE_S) == (10, None, None)
    assert_ledger(looping.recorder, delivered=first_span - 1)


def test_a_batch_says_how_many_were_dropped(looping: Looping) -> None:
    while not (dropped := looping.recorder.counts()[3])[DROP_REASONS.index("buffer_full")]:
        looping.record(SPANS)
    looping.run_loop(interval_s=0.02, again=True)
    assert select.select([looping.sender], [], [], PATIENCE_S)[0]
    looping.sender.settimeout(None)  # the request is larger than what comes at once
    request = looping.receive()
    told = {reason: count for reason, count in zip(DROP_REASONS, dropped, strict=True) if count}
    assert dict(request.dropped_counts) == told
    assert request.produced_count == looping.recorder.counts()[0]


def next_request(looping: Looping) -> span_pb2.SendSpanBatchRequest:
    """The next request, of a program that goes on recording until it comes."""
    looping.sender.settimeout(0.0005)
    while True:
        looping.record()
        with contextlib.suppress(TimeoutError):
            looping.sender.recv(1, socket.MSG_PEEK)
            looping.sender.settimeout(PATIENCE_S)
            return looping.receive()


def test_a_full_batch_waits_for_no_interval(recording: Recording) -> None:
    small = Looping(Recording(backends.select("native"), max_batch_bytes=1 * KIB))
    try:
        small.run_loop(again=True)
        small.record(SPANS)
        spans = small.receive().spans
        assert 1 < len(spans) < SPANS
        small.answer(len(spans))
        assert len(next_request(small).spans) > 1
        small.answer(Refused("no"))
    finally:
        small.close()


@pytest.mark.parametrize("outcome", [SPANS - 1, 0, Refused("no")], ids=str)
def test_what_is_not_accepted_comes_back(looping: Looping, outcome: int | Refused) -> None:
    running = looping.run_loop(interval_s=0.01, again=True)
    spans = next_request(looping).spans
    accepted = min(outcome, len(spans) - 1) if isinstance(outcome, int) else 0
    raw = looping.answer(outcome if isinstance(outcome, Refused) else accepted)
    sequence, batch, answer = running.result(PATIENCE_S)
    assert (sequence, batch.span_count, batch.first_span_sequence) == (1, len(spans), 1)
    assert answer == raw
    assert_ledger(looping.recorder, delivered=0)
    looping.recorder.settle(batch, accepted, "rejected")
    assert_ledger(looping.recorder, delivered=accepted, rejected=len(spans) - accepted)


def test_a_sender_that_ends_while_idle(looping: Looping) -> None:
    running = looping.run_loop()
    looping.sender.close()
    sequence, batch, answer = running.result(PATIENCE_S)
    assert (sequence, batch) == (0, None)
    assert isinstance(answer, OSError)


def test_a_sender_that_ends_with_a_batch_in_flight(looping: Looping) -> None:
    running = looping.run_loop(interval_s=0.01, again=True)
    spans = next_request(looping).spans
    looping.sender.close()
    _, batch, answer = running.result(PATIENCE_S)
    assert batch.span_count == len(spans)
    assert isinstance(answer, OSError)
    assert_ledger(looping.recorder, delivered=0)


def test_an_interruption_is_not_lost(looping: Looping) -> None:
    looping.interrupt()
    assert looping.run_loop().result(PATIENCE_S) == (0, None, None)
    running = looping.run_loop()
    looping.interrupt()
    assert running.result(PATIENCE_S) == (0, None, None)


def test_a_silent_program_gets_its_thread_back(looping: Looping) -> None:
    looping.record(SPANS)
    # No span ends that could hand them over, so the thread takes the GIL and returns.
    assert looping.run_loop(interval_s=0.01).result(PATIENCE_S) == (0, None, None)
    batch = looping.recorder.take()
    assert batch.span_count == SPANS


def test_it_stays_no_longer_than_it_should(looping: Looping) -> None:
    assert looping.run_loop(stay_s=0.01).result(PATIENCE_S) == (0, None, None)


@pytest.mark.parametrize("answered", [True, False])
def test_what_is_discarded_in_flight_is_counted_once(looping: Looping, answered: bool) -> None:
    running = looping.run_loop(interval_s=0.01, again=True)
    sent = len(next_request(looping).spans)
    produced = looping.recorder.counts()[0]
    looping.recorder.close()
    looping.recorder.discard()
    assert_ledger(looping.recorder, pending=0, shutdown=produced)
    if answered:
        looping.answer(sent)
        looping.interrupt()
    else:
        looping.is_last_time = True
        looping.sender.close()
    assert running.result(PATIENCE_S) == (1, None, None)
    assert_ledger(looping.recorder, pending=0, delivered=0, shutdown=produced)


@pytest.mark.parametrize("threads", [1, 8])
def test_the_ledger_is_exact_under_threads(recording: Recording, threads: int) -> None:
    looping = Looping(
        Recording(backends.select("native"), max_buffer_bytes=64 * KIB, max_batch_bytes=4 * KIB)
    )
    done = threading.Event()
    each = 16_000 // threads
    try:
        with ThreadPoolExecutor(threads + 1) as pool:
            delivering = pool.submit(looping.deliver_what_comes, done)
            running = looping.run_loop(interval_s=0.001)
            for recorded in [pool.submit(looping.record, each) for _ in range(threads)]:
                recorded.result()
            time.sleep(0.1)
            looping.interrupt()
            _, batch, _ = running.result(PATIENCE_S)
            done.set()
            delivered = delivering.result()
        produced, counted, pending, dropped, _ = looping.recorder.counts()
        assert produced == each * threads == counted + pending + sum(dropped)
        assert counted == delivered > 0
        assert pending == (batch.span_count if batch else 0) + sum(
            taken.span_count for taken in iter(looping.recorder.take, None)
        )
    finally:
        looping.close()


def test_the_wall_clock_is_followed(looping: Looping) -> None:
    hour_ns = 3_600 * 10**9
    looping.recorder.anchor -= hour_ns
    looping.run_loop(interval_s=0.01, again=True)
    before = time.time_ns()
    first = next_request(looping)
    looping.answer(len(first.spans))
    second = next_request(looping)
    looping.answer(Refused("no"))
    assert first.spans[0].start_time_unix_nano < before - hour_ns / 2
    assert second.spans[-1].start_time_unix_nano >= before


def test_the_process_is_sampled(recording: Recording) -> None:
    recorder = recording.recorder
    with ThreadPoolExecutor(1) as pool:
        sampling = pool.submit(recorder.sample_process, 0.01, FOREVER_S)
        deadline = time.monotonic() + PATIENCE_S
        while recorder.sample is None and time.monotonic() < deadline:
            time.sleep(0.001)
        recorder.stop_sampling()
        assert sampling.result(PATIENCE_S) is True
        assert recorder.sample_process(0.01, FOREVER_S) is True  # at once: it is stopped
        recorder.stop_sampling(False)
        assert recorder.sample_process(0.01, 0.02) is True
    recording.start_span("m").end()
    resources = recording.take_one().resources
    assert 0 <= resources.cpu_utilization_percent <= 100 * threading.active_count() + 100
    assert resources.memory_heap_bytes > 1_000_000
    assert resources.sample_age_ms >= 0
    recorder.sample = None
    recording.start_span("m").end()
    assert not recording.take_one().HasField("resources")


@wants_a_native_tracer
def test_the_exporter_needs_no_gil(
    recording: Recording, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracer: Any = infertrace.Tracer(receiver.endpoint, export_interval_s=0.02)
    taken: list[Any] = []
    take: Callable[..., Any] = Delivery.take

    def note_and_take(*given: Any) -> Any:
        taken.append(given)
        return take(*given)

    monkeypatch.setattr(Delivery, "take", note_and_take)
    try:
        # Five requests in a row. On a busy machine the loop may return in between, by design,
        # where this thread ends no span for 20 ms.
        first = len(receiver.requests)
        deadline = time.monotonic() + PATIENCE_S
        while len(receiver.requests) < first + 5 and time.monotonic() < deadline:
            tracer.start_span("m").end()
            time.sleep(0.0002)
            if taken:
                taken.clear()
                first = len(receiver.requests)
        assert len(receiver.requests) >= first + 5
        assert tracer.flush(PATIENCE_S)
        assert len(receiver.spans) == tracer.stats()["produced"]
        assert tracer.stats()["delivered"] == tracer.stats()["produced"]
    finally:
        tracer.shutdown()


@wants_a_native_tracer
def test_a_sender_that_dies_while_idle_is_let_go(recording: Recording, receiver: Receiver) -> None:
    tracer: Any = infertrace.Tracer(receiver.endpoint, export_interval_s=0.05)
    try:
        for spans in (1, 2):
            tracer.start_span("m").end()
            assert tracer.flush(PATIENCE_S)
            assert tracer.stats()["delivered"] == spans
            os.kill(sender_of(tracer), signal.SIGKILL)
            # A thread that served a socket without a peer would never return.
            wait_until(lambda: tracer._exporter.sender_pid is None)
    finally:
        tracer.shutdown()
