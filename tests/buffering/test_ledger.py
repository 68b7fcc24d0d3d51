"""The buffer is bounded and the ledger closes, whatever the threads do."""

from __future__ import annotations

import contextvars
import gc
import random
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from backend_recording import KIB, MIB, Recording, available_backends
from infertrace import backend as backends
from infertrace.buffering.batch import Batch, halves
from infertrace.buffering.ledger import DROP_REASONS
from infertrace.buffering.pure import SpanBuffer
from infertrace.generated import span_pb2


def assert_identity(recorder: Any) -> None:
    produced, delivered, pending, dropped, _ = recorder.counts()
    assert produced == delivered + pending + sum(dropped)


def dropped(recorder: Any, reason: str) -> int:
    return int(recorder.counts()[3][DROP_REASONS.index(reason)])


def test_overflow_drops_the_newest_and_counts_it(new_recording: Callable[..., Recording]) -> None:
    recording = new_recording(max_buffer_bytes=64 * KIB, max_batch_bytes=16 * KIB)
    total = 2_000
    for number in range(total):
        recording.start_span("m", str(number)).end()
    lost = dropped(recording.recorder, "buffer_full")
    assert 0 < lost < total
    assert_identity(recording.recorder)
    kept = [span.operation_name for span in recording.take_all()]
    assert kept == [str(number) for number in range(total - lost)]
    # The buffer has room again.
    recording.start_span("m", "after").end()
    assert recording.take_one().operation_name == "after"
    assert_identity(recording.recorder)


@pytest.mark.parametrize("exporter_has_turns", [True, False])
@pytest.mark.parametrize("batch_kib", [4, 64])
def test_what_waits_fills_the_buffer_with_encoded_bytes(
    new_recording: Callable[..., Recording], batch_kib: int, exporter_has_turns: bool
) -> None:
    """Both backends hold the same number of spans, also where the machine is too busy to export."""
    recording = new_recording(max_buffer_bytes=MIB, max_batch_bytes=batch_kib * KIB)
    recorder = recording.recorder
    total = 0
    while not dropped(recorder, "buffer_full"):
        recording.start_span("m", f"{total:06}", tags={"k": "v"}).end()
        total += 1
        if total % 100 == 0:
            assert_identity(recorder)
            while exporter_has_turns and recorder.encode_some():
                assert_identity(recorder)
    held = recorder.counts()[2]
    names: list[str] = []
    size = 0
    while (batch := recorder.take()) is not None:
        assert len(batch.payload) <= batch_kib * KIB
        assert batch.first_span_sequence == len(names) + 1
        size += len(batch.payload)
        spans = span_pb2.SendSpanBatchRequest.FromString(batch.payload).spans
        names += [span.operation_name for span in spans]
        recorder.settle(batch, batch.span_count, "rejected")
    assert size > 0.99 * MIB
    assert names == [f"{number:06}" for number in range(held)]
    assert_identity(recorder)


@pytest.mark.parametrize("threads", [1, 8, 64])
def test_overflow_under_threads(new_recording: Callable[..., Recording], threads: int) -> None:
    recording = new_recording(max_buffer_bytes=256 * KIB, max_batch_bytes=64 * KIB)
    each = 8_000 // threads
    done = threading.Event()
    delivered = []

    def export() -> None:
        while not done.is_set():
            delivered.extend(recording.take_all())
            while recording.recorder.encode_some():
                pass

    def work(_: int) -> None:
        for _ in range(each):
            with recording.start_span("m"):
                pass

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # many more interleavings
    try:
        exporter = threading.Thread(target=export)
        exporter.start()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(threads)))
        done.set()
        exporter.join()
    finally:
        sys.setswitchinterval(interval)
    delivered.extend(recording.take_all())
    produced, counted, pending, lost, _ = recording.recorder.counts()
    assert produced == each * threads
    assert pending == 0
    assert counted == len(delivered)
    assert len({span.span_id for span in delivered}) == len(delivered)
    assert produced == counted + sum(lost)


def test_a_span_larger_than_allowed(recording: Any) -> None:
    with recording.start_span("m", "huge") as span:
        for number in range(128):
            span.set_attribute(f"k{number}", "x" * 32_768)
    recording.start_span("m", "small").end()
    assert dropped(recording.recorder, "oversize") == 1
    assert recording.take_one().operation_name == "small"
    assert_identity(recording.recorder)


@pytest.mark.parametrize("attributes", [31, 32, 33])
def test_both_backends_draw_the_same_line_at_one_mebibyte(recording: Any, attributes: int) -> None:
    with recording.start_span("m") as span:
        for number in range(attributes):
            span.set_attribute(f"k{number:02}", "x" * 32_768)
    spans = recording.take_all()
    assert len(spans) == (1 if attributes < 32 else 0)
    assert dropped(recording.recorder, "oversize") == 1 - len(spans)


def test_batches_are_bounded_and_numbered(new_recording: Callable[..., Recording]) -> None:
    recording = new_recording(max_batch_bytes=16 * KIB)
    for _ in range(1_000):
        recording.start_span("m").end()
    expected = 1
    while (batch := recording.recorder.take()) is not None:
        assert len(batch.payload) <= 16 * KIB
        assert batch.first_span_sequence == expected
        expected += batch.span_count
        recording.recorder.settle(batch, batch.span_count, "rejected")
    assert expected == 1_001


def test_a_full_batch_wakes_the_exporter(new_recording: Callable[..., Recording]) -> None:
    recording = new_recording(max_batch_bytes=16 * KIB)
    recording.start_span("m").end()
    assert recording.wakes == 1
    recording.start_span("m").end()
    assert recording.wakes == 1
    for _ in range(500):
        recording.start_span("m").end()
    assert recording.wakes > 1


def test_a_wake_that_fails_is_tried_again(backend: Any) -> None:
    attempts = []

    def wake() -> None:
        attempts.append(1)
        if len(attempts) == 1:
            raise RuntimeError("can't start new thread")

    recorder = backend.Recorder(max_buffer_bytes=MIB, max_batch_bytes=64 * KIB, wake=wake)
    for _ in range(3):
        recorder.start_span("m").end()
    assert len(attempts) == 2


def test_after_close_spans_are_counted_as_shutdown(recording: Any) -> None:
    recording.start_span("m", "before").end()
    recording.recorder.close()
    recording.start_span("m", "after").end()
    assert dropped(recording.recorder, "shutdown") == 1
    assert recording.take_one().operation_name == "before"
    assert_identity(recording.recorder)


def test_what_is_discarded_is_counted_as_shutdown(recording: Any) -> None:
    for _ in range(3):
        recording.start_span("m").end()
    recording.recorder.discard()
    assert dropped(recording.recorder, "shutdown") == 3
    assert recording.take_all() == []
    assert_identity(recording.recorder)


def test_recording_from_a_signal_handler(recording: Any) -> None:
    handled = []

    def handler(*_: Any) -> None:
        with recording.start_span("m", "handler"):
            handled.append(1)

    previous = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
    total = 0
    try:
        while len(handled) < 200:
            with recording.start_span("m"):
                total += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    produced, _, pending, lost, _ = recording.recorder.counts()
    assert produced == total + len(handled)
    assert produced == pending + sum(lost)
    assert len(recording.take_all()) == pending


def test_recording_from_a_finalizer(recording: Any) -> None:
    finalized = []

    class Emitter:
        def __init__(self) -> None:
            self.cycle = self

        def __del__(self) -> None:
            recording.start_span("m", "finalizer").end()
            finalized.append(1)

    threshold = gc.get_threshold()
    gc.set_threshold(7)
    try:
        for _ in range(500):
            Emitter()
            with recording.start_span("m", tags={"a": "b"}) as span:
                span.add_event("e", {"k": 1})
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    assert len(finalized) == 500
    assert len(recording.take_all()) == 1_000
    assert_identity(recording.recorder)


@pytest.mark.parametrize("seed", range(40))
def test_finalizers_amid_copied_contexts(
    new_recording: Callable[..., Recording], seed: int
) -> None:
    """The GC may run between any two steps, also inside a variable's set().

    Before CPython 3.12 that set() itself crashes if any finalizer sets a variable in the middle
    of it; the compiled backend runs no GC in its own.
    """
    recording = new_recording(max_buffer_bytes=MIB, max_batch_bytes=16 * KIB)
    sound = sys.version_info >= (3, 12)
    native = recording.recorder.__class__.__module__.endswith("native")
    chance = random.Random(seed)
    variables: list[contextvars.ContextVar[int]] = [
        contextvars.ContextVar(f"other {number}") for number in range(3)
    ]
    contexts: list[contextvars.Context] = []

    class Emitter:
        def __init__(self) -> None:
            self.cycle = self

        def __del__(self) -> None:
            if not (sound or native):
                recording.start_span("m", "finalizer").end()
            elif chance.random() < 0.6 or not native:
                with recording.start_span("m", "finalizer", tags={"x": "y"}) as span:
                    span.add_event("e")
            else:
                recording.take_all()

    def work() -> None:
        for number in range(300):
            Emitter()
            with recording.start_span("m", tags={"a": "b"}) as span:
                span.add_event("e", {"k": 1})
                if chance.random() < 0.2:
                    contexts.append(contextvars.copy_context())
                if sound and chance.random() < 0.2:
                    variables[number % 3].set(number)
                with recording.start_span("inner"):
                    pass
            if chance.random() < 0.1:
                contexts.clear()

    threshold = gc.get_threshold()
    gc.set_threshold(chance.randint(1, 9))
    try:
        contextvars.Context().run(work)
    finally:
        gc.set_threshold(*threshold)
    assert_identity(recording.recorder)
    recording.take_all()
    assert_identity(recording.recorder)


def test_counters_level_after_many_spans(recording: Any) -> None:
    """Recording leaks nothing: memory blocks and reference counts stay level."""

    def work(times: int) -> None:
        for _ in range(times):
            with recording.start_span("m", tags={"a": "b"}) as span:
                span.set_tokens(1, 2)
                span.add_event("e")
        recording.take_all()

    work(2_000)
    gc.collect()
    blocks, references = sys.getallocatedblocks(), sys.getrefcount(recording.recorder)
    for _ in range(5):
        work(2_000)
    gc.collect()
    more_blocks = sys.getallocatedblocks() - blocks
    more_references = sys.getrefcount(recording.recorder) - references
    assert more_references == 0
    assert more_blocks < 500  # of 10,000 spans


@pytest.mark.parametrize("ask", ["counts", "close", "take"])
def test_arrivals_without_end_hold_nobody_up(ask: str) -> None:
    """Threads that record faster than one counts kept it counting for ever."""
    buffer: Any = SpanBuffer(lambda span: b"x", max_buffer_bytes=MIB, max_batch_bytes=64 * KIB)

    def arrive() -> None:
        buffer.arrivals.append(arrive)
        buffer.arrivals.append(1)

    arrive()
    getattr(buffer, ask)()
    assert buffer.counts()[4] > 0


@pytest.mark.parametrize("by", ["the thread itself", "another one"])
def test_counts_in_the_middle_of_a_step(by: str) -> None:
    """Counts are consistent even so; a finalizer or a signal handler may read them anywhere."""
    seen = []

    class Interrupting:
        _invalid = 0
        _heavy = True

        def _size(self) -> int:
            if by == "the thread itself":
                seen.append(buffer.counts())
            else:
                asking = threading.Thread(target=lambda: seen.append(buffer.counts()))
                asking.start()
                asking.join()
            return 800

    buffer: Any = SpanBuffer(lambda span: b"x", max_buffer_bytes=MIB, max_batch_bytes=64 * KIB)
    for _ in range(3):
        buffer.put(Interrupting())
    assert [(produced, pending) for produced, _, pending, _, _ in seen] == [(0, 0), (1, 1), (2, 2)]
    assert buffer.counts()[:3] == (3, 0, 3)


def test_threads_that_record_without_end_fill_no_memory() -> None:
    """One of them counts; the others wait for it where they are faster."""
    recording = Recording(backends.select("pure"))
    recording.recorder.close()
    buffer = recording.recorder._buffer
    crowd: list[int] = []
    stopping = threading.Event()

    def record() -> None:
        while not stopping.is_set():
            with recording.start_span("m") as span:
                span.set_attribute("key", "value")

    threads = [threading.Thread(target=record) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        while recording.recorder.counts()[0] < 200_000:
            crowd.append(len(buffer.arrivals))
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
    assert max(crowd) < 100_000
    assert recording.recorder.counts()[0] == sum(recording.recorder.counts()[3])


@given(st.lists(st.integers(0, 400), min_size=2, max_size=40), st.integers(1, 1000))
@settings(deadline=None)
def test_halves_hold_the_same_spans(sizes: list[int], first: int) -> None:
    spans = [span_pb2.Span(operation_name="x" * size) for size in sizes]
    payload = span_pb2.SendSpanBatchRequest(spans=spans).SerializeToString()
    one, two = halves(Batch(payload, len(spans), first))
    read = span_pb2.SendSpanBatchRequest.FromString
    assert [*read(one.payload).spans, *read(two.payload).spans] == spans
    assert len(read(one.payload).spans) == one.span_count >= 1
    assert len(read(two.payload).spans) == two.span_count >= 1
    assert two.first_span_sequence == first + one.span_count


class BufferModel(RuleBasedStateMachine):
    """The buffer beside a plain list that knows which spans must come out, in which order."""

    backend_name = "pure"

    @initialize()
    def start(self) -> None:
        self.recording = Recording(
            backends.select(self.backend_name),
            max_buffer_bytes=64 * KIB,
            max_batch_bytes=8 * KIB,
        )
        self.recorder = self.recording.recorder
        self.produced = 0
        self.kept: list[str] = []
        self.in_flight: list[Batch] = []
        self.delivered = 0
        self.rejected = 0

    @rule(size=st.integers(1, 20_000), times=st.integers(1, 5))
    def record(self, size: int, times: int) -> None:
        for _ in range(times):
            before = dropped(self.recorder, "buffer_full")
            name = f"{self.produced} " + "x" * size
            self.recording.start_span("m", name).end()
            self.produced += 1
            if dropped(self.recorder, "buffer_full") == before:
                self.kept.append(name)

    @rule()
    def take(self) -> None:
        batch = self.recorder.take()
        if batch is None:
            assert not self.kept
            return
        spans = span_pb2.SendSpanBatchRequest.FromString(batch.payload).spans
        names = [span.operation_name for span in spans]
        assert names == self.kept[: len(names)]
        assert len(names) == batch.span_count
        assert len(names) == 1 or len(batch.payload) <= 8 * KIB
        del self.kept[: len(names)]
        self.in_flight.append(batch)

    @rule()
    def encode_some(self) -> None:
        self.recorder.encode_some()

    @rule()
    def encode_all(self) -> None:
        while self.recorder.encode_some():
            pass

    @rule(pick=st.integers(0, 99), percent=st.integers(0, 100))
    def settle(self, pick: int, percent: int) -> None:
        if self.in_flight:
            batch = self.in_flight.pop(pick % len(self.in_flight))
            delivered = batch.span_count * percent // 100
            self.recorder.settle(batch, delivered, "rejected")
            self.delivered += delivered
            self.rejected += batch.span_count - delivered

    @invariant()
    def ledger_is_closed(self) -> None:
        produced, delivered, pending, lost, _ = self.recorder.counts()
        assert produced == self.produced
        assert delivered == self.delivered
        assert dropped(self.recorder, "rejected") == self.rejected
        assert pending == len(self.kept) + sum(batch.span_count for batch in self.in_flight)
        assert produced == delivered + pending + sum(lost)
        held = sum(len(batch.payload) for batch in self.in_flight) + sum(map(len, self.kept))
        assert held <= 64 * KIB


for _name in available_backends():
    _model: Any = type(f"BufferModel_{_name}", (BufferModel,), {"backend_name": _name})
    _case = _model.TestCase
    _case.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
    globals()[f"TestBuffer_{_name}"] = _case
del _case
