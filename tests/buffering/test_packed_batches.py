"""A buffer that packs gives the same spans as one that encodes, and its ledger closes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend_recording import KIB, Recording
from infertrace import backend as backends
from infertrace.buffering import pure
from infertrace.buffering.batch import Batch, PackedBatch
from infertrace.buffering.ledger import dropped_by_reason
from infertrace.generated import span_pb2
from infertrace.limits import MAX_SPAN_BYTES, MAX_TEXT_BYTES
from infertrace.recording import encoder, packing

LIGHT, HEAVY, FOREIGN, LATE, WRONG = "light", "heavy", "foreign", "late field", "wrong field"
STEPS = st.lists(
    st.tuples(st.sampled_from([LIGHT, HEAVY, FOREIGN, LATE, WRONG]), st.integers(1, 40))
    | st.tuples(st.sampled_from(["take", "encode", "counts", "change"]), st.just(1)),
    max_size=25,
)


@pytest.fixture
def packing_one() -> Recording:
    return new_recording()


def new_recording(**sizes: int) -> Recording:
    recording = Recording(backends.select("pure"), **sizes)
    assert recording.recorder.packing is not None
    recording.recorder.packing.pack(True)
    return recording


def encoded(recording: Recording, batch: Batch) -> Batch:
    if isinstance(batch, PackedBatch):
        packed = batch
        batch = recording.recorder.packing.encode(packed)
        recording.recorder.packing.replace(packed, batch)
    return batch


def names_of(batch: Batch) -> list[str]:
    request = span_pb2.SendSpanBatchRequest.FromString(batch.payload)
    assert len(request.spans) == batch.span_count
    return [span.operation_name for span in request.spans]


def batches_of(recording: Recording) -> Iterator[Batch]:
    while (batch := recording.recorder.take()) is not None:
        yield batch


def end_some(recording: Recording, what: str, count: int, number: int) -> list[str]:
    """Their names; `number` is that of the first."""
    names = [str(number + n) for n in range(count)]
    for name in names:
        span = recording.start_span("m", name)
        if what == HEAVY:
            span.set_tag("key", "text")
        if what == WRONG:
            span.set_batch_size(-1)
        if what == FOREIGN:
            span = recording.start_span("m", name)
            span._ended, span._sample = span._start + 1, None
            recording.recorder.put_encoded(encoder.span(span))
            continue
        span.end()
        if what == LATE:
            span.set_batch_size(1)
    return names


@settings(max_examples=150, deadline=None)
@given(steps=STEPS, max_batch_bytes=st.sampled_from([4 * KIB, 16 * KIB, 256 * KIB]))
def test_any_spans_in_any_order(steps: list[tuple[str, int]], max_batch_bytes: int) -> None:
    recording = new_recording(max_batch_bytes=max_batch_bytes)
    recorder = recording.recorder
    ended: list[str] = []
    taken: list[str] = []
    invalid = delivered = 0
    next_number = 1
    packs = True

    def take() -> None:
        nonlocal delivered, next_number
        batch = recorder.take()
        if batch is None:
            return
        assert batch.first_span_sequence == next_number
        next_number += batch.span_count
        batch = encoded(recording, batch)
        assert len(batch.payload) <= max_batch_bytes
        taken.extend(names_of(batch))
        recorder.settle(batch, batch.span_count, "rejected")
        delivered += batch.span_count

    for what, count in steps:
        if what == "take":
            take()
        elif what == "encode":
            recorder.encode_some()
        elif what == "change":
            packs = not packs
            recorder.packing.pack(packs)
        elif what != "counts":
            ended += end_some(recording, what, count, len(ended))
            invalid += count * (what in (LATE, WRONG))
        produced, has_delivered, pending, dropped, wrong = recorder.counts()
        assert (produced, has_delivered, wrong) == (len(ended), delivered, invalid)
        assert pending == produced - delivered
        assert not any(dropped)
    while recorder.counts()[2]:
        take()
    assert sorted(taken, key=int) == ended
    assert recorder._buffer._held_bytes == recorder._buffer._queued_bytes == 0


def test_spans_of_bounded_size_keep_their_order(packing_one: Recording) -> None:
    names = end_some(packing_one, LIGHT, 5_000, 0)
    found = [names_of(encoded(packing_one, batch)) for batch in batches_of(packing_one)]
    assert [name for batch in found for name in batch] == names
    assert len(found) < 10  # not one for each few spans


def test_the_exporter_is_woken_less_often(packing_one: Recording) -> None:
    packing_one.recorder._awake = True
    end_some(packing_one, LIGHT, 2_000, 0)
    assert packing_one.wakes == 0
    end_some(packing_one, LIGHT, 100, 0)
    assert packing_one.wakes == 1


def test_a_full_buffer_holds_more_when_packed() -> None:
    held = {}
    for packs in (False, True):
        recording = new_recording(max_buffer_bytes=64 * KIB, max_batch_bytes=16 * KIB)
        recording.recorder.packing.pack(packs)
        for _ in range(10_000):
            recording.start_span("gpt-4", batch_size=8).end()
        produced, _, pending, dropped, _ = recording.recorder.counts()
        assert produced == 10_000 == pending + sum(dropped)
        assert dropped_by_reason(dropped) == {"buffer_full": produced - pending}
        held[packs] = pending
        taken = sum(batch.span_count for batch in batches_of(recording))
        assert taken == pending
    assert held[True] > 300
    assert held[True] > held[False]


def test_what_cannot_be_encoded_is_counted_once_it_is_known(packing_one: Recording) -> None:
    recorder = packing_one.recorder
    spans: list[Any] = [packing_one.start_span("m") for _ in range(20)]
    for span in spans:
        span.end()
    spans[7]._status = 7
    (batch,) = batches_of(packing_one)
    assert isinstance(batch, PackedBatch)
    assert batch.span_count == 20
    assert recorder.counts()[:3] == (20, 0, 20)
    batch = encoded(packing_one, batch)
    assert batch.span_count == 19
    assert recorder.counts()[:3] == (20, 0, 19)
    recorder.settle(batch, 19, "rejected")
    produced, delivered, pending, dropped, _ = recorder.counts()
    assert (produced, delivered, pending) == (20, 19, 0)
    assert dropped_by_reason(dropped) == {"invalid": 1}
    assert recorder._buffer._held_bytes == 0


@pytest.mark.parametrize("count", [1, 20])
def test_what_cannot_be_packed_is_encoded(packing_one: Recording, count: int) -> None:
    class Text(str):
        __slots__ = ()

    spans: list[Any] = [packing_one.start_span("m", "name") for _ in range(count)]
    for span in spans:
        span.end()
    spans[-1]._operation = Text("other")
    batches = [encoded(packing_one, batch) for batch in batches_of(packing_one)]
    names = [name for batch in batches for name in names_of(batch)]
    assert names == ["name"] * (count - 1) + ["other"]


def test_an_oversize_span(packing_one: Recording) -> None:
    span = packing_one.start_span("m")
    for key in range(MAX_SPAN_BYTES // MAX_TEXT_BYTES + 1):
        span.set_tag(str(key), "x" * MAX_TEXT_BYTES)
    span.end()
    end_some(packing_one, LIGHT, 20, 0)
    assert dropped_by_reason(packing_one.recorder.counts()[3]) == {"oversize": 1}
    assert sum(batch.span_count for batch in batches_of(packing_one)) == 20


@pytest.mark.parametrize("do", ["close", "discard"])
def test_the_end(packing_one: Recording, do: str) -> None:
    recorder = packing_one.recorder
    end_some(packing_one, LIGHT, 100, 0)
    end_some(packing_one, HEAVY, 10, 0)
    getattr(recorder, do)()
    end_some(packing_one, LIGHT, 100, 0)
    produced, _, pending, dropped, _ = recorder.counts()
    assert (produced, pending) == (210, 110 if do == "close" else 100)
    assert dropped_by_reason(dropped) == {"shutdown": produced - pending}
    assert sum(batch.span_count for batch in batches_of(packing_one)) == pending


def test_a_settled_batch_leaves_alone_what_has_arrived(packing_one: Recording) -> None:
    """To pack a few spans takes the GIL once more than is needed."""
    recorder = packing_one.recorder
    end_some(packing_one, LIGHT, 100, 0)
    batch = recorder.take()
    assert batch is not None
    end_some(packing_one, LIGHT, 300, 100)
    recorder.settle(batch, 100, "rejected")
    assert sum(piece.span_count for piece in recorder._buffer._pieces) < 50
    assert not recorder.packing.pack_crowd()
    assert recorder.counts()[:3] == (400, 100, 300)
    end_some(packing_one, LIGHT, 2_500, 400)
    assert recorder.packing.pack_crowd()
    assert sum(piece.span_count for piece in recorder._buffer._pieces) == 2_800


@pytest.mark.parametrize(
    ("sizes", "service"),
    [
        ({"max_buffer_bytes": 64 * KIB, "max_batch_bytes": 4 * KIB}, "tests"),
        ({"max_buffer_bytes": 256 * KIB, "max_batch_bytes": 64 * KIB}, "s" * 8_000),
        ({}, "tests"),
    ],
)
def test_few_spans_are_packed_in_vain(
    monkeypatch: pytest.MonkeyPatch, sizes: dict[str, int], service: str
) -> None:
    """A full buffer, or small batches, had the same thousands of spans packed over and over."""
    packed: list[int] = []
    pack_light = packing.Packer.pack_light

    def counting(self: Any, spans: list[Any], max_encoded_bytes: int) -> Any:
        packed.append(len(spans))
        return pack_light(self, spans, max_encoded_bytes)

    monkeypatch.setattr(packing.Packer, "pack_light", counting)
    recording = new_recording(**sizes)
    recording.recorder.service_name = service
    for _ in range(100_000):
        recording.start_span("gpt-4", batch_size=8).end()
        if len(recording.recorder._buffer.arrivals) >= 4_000:
            recording.recorder.counts()
            batch = recording.recorder.take()
            assert batch is not None
            recording.recorder.settle(batch, batch.span_count, "rejected")
    produced, delivered, pending, dropped, _ = recording.recorder.counts()
    assert produced == 100_000 == delivered + pending + sum(dropped)
    assert sum(packed) < 3 * produced


def at_step(step: int, act: Callable[[], object], work: Callable[[], object]) -> int:
    """How many bytecodes of packing `work` took, and `act` came in before that one."""
    done = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal done
        if event == "call":
            if frame.f_code.co_filename not in (pure.__file__, packing.__file__):
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        elif event == "opcode":
            if done == step:
                act()
            done += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return done


def test_a_span_from_a_signal_handler_amid_any_step_of_packing() -> None:
    """The interpreter runs handlers between bytecodes; some of them on the thread that packs."""

    def record(step: int) -> int:
        recording = new_recording()
        batches: list[PackedBatch] = []

        def handler() -> None:
            recording.start_span("m", "handler").end()

        def take() -> None:
            batch = recording.recorder.take()
            assert isinstance(batch, PackedBatch)
            batches.append(batch)
            recording.recorder.settle(batch, batch.span_count, "rejected")

        def work() -> None:
            recording.recorder.counts()
            end_some(recording, HEAVY, 2, 10)
            recording.recorder.encode_some()
            end_some(recording, HEAVY, 1, 12)
            take()

        end_some(recording, LIGHT, 10, 0)
        steps = at_step(step, handler, work)
        while recording.recorder.counts()[2]:
            take()
        names = [
            name for batch in batches for name in names_of(recording.recorder.packing.encode(batch))
        ]
        expected = [*map(str, range(13)), *["handler"] * (step < steps)]
        assert sorted(names) == sorted(expected), step
        produced, delivered, _, dropped, _ = recording.recorder.counts()
        assert (produced, delivered, sum(dropped)) == (len(expected), len(expected), 0), step
        return steps

    step = 0
    while step < record(step):
        step += 1
    assert step > 1000
