"""Spans that others have recorded, through our buffer: each is delivered or counted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from backend_recording import KIB, MIB, Recording, assert_closed
from infertrace.buffering.ledger import dropped_by_reason
from infertrace.generated.span_pb2 import Span
from infertrace.limits import MAX_SPAN_BYTES
from infertrace.trace_context import TraceContext
from infertrace.wire.protobuf import delimited


def record(name: str = "theirs", padding_bytes: int = 0) -> bytes:
    span = Span(trace_id=b"t" * 16, span_id=b"s" * 8, operation_name=name)
    if padding_bytes:
        span.tags["padding"] = "x" * padding_bytes
    return delimited(b"\x0a", span.SerializeToString())


def ledger(recording: Recording) -> dict[str, Any]:
    produced, delivered, pending, dropped, _ = recording.recorder.counts()
    found = {
        "produced": produced,
        "delivered": delivered,
        "pending": pending,
        "dropped": dropped_by_reason(dropped),
    }
    assert_closed(found)
    return found


def test_they_travel_with_ours(recording: Recording) -> None:
    recording.start_span("m", "before").end()
    recording.recorder.put_encoded(record())
    recording.start_span("m", "after").end()
    assert ledger(recording)["pending"] == 3
    spans = recording.take_all()
    assert sorted(span.operation_name for span in spans) == ["after", "before", "theirs"]
    assert ledger(recording)["delivered"] == 3
    assert recording.wakes == 1


def test_one_wakes_the_exporter(recording: Recording) -> None:
    recording.recorder.put_encoded(record())
    assert recording.wakes == 1


def test_more_than_there_is_room_for(new_recording: Callable[..., Recording]) -> None:
    recording = new_recording(max_buffer_bytes=64 * KIB, max_batch_bytes=16 * KIB)
    for number in range(100):
        recording.recorder.put_encoded(record(str(number), KIB))
    found = ledger(recording)
    assert found["produced"] == 100
    assert found["dropped"] == {"buffer_full": 100 - found["pending"]}
    assert 50 < found["pending"] < 64
    names = [span.operation_name for span in recording.take_all()]
    assert names == [str(number) for number in range(found["pending"])]


def test_one_that_is_too_large(new_recording: Callable[..., Recording]) -> None:
    recording = new_recording(max_buffer_bytes=64 * MIB, max_batch_bytes=256 * KIB)
    recording.recorder.put_encoded(record(padding_bytes=MAX_SPAN_BYTES))
    recording.recorder.put_encoded(record(padding_bytes=300 * KIB))  # larger than a batch
    assert ledger(recording)["dropped"] == {"oversize": 1}
    assert len(recording.take_all()) == 1


def test_after_the_end_and_switched_off(recording: Recording) -> None:
    recording.recorder.enabled = False
    recording.recorder.put_encoded(record())
    assert ledger(recording)["produced"] == 0
    recording.recorder.enabled = True
    recording.recorder.close()
    recording.recorder.put_encoded(record())
    assert ledger(recording)["dropped"] == {"shutdown": 1}


def test_what_is_no_bytes(recording: Recording) -> None:
    recorder: Any = recording.recorder
    with pytest.raises(TypeError):
        recorder.put_encoded(None)
    assert ledger(recording)["produced"] == 0


def test_many_threads(recording: Recording) -> None:
    def work() -> None:
        for _ in range(500):
            recording.recorder.put_encoded(record())
            recording.start_span("m", "ours").end()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger(recording)["produced"] == 4000
    assert len(recording.take_all()) == 4000


def test_a_span_of_others_is_a_parent(recording: Recording, backend: Any) -> None:
    from infertrace.external_span import StandIn

    for sampled in (True, False):
        stand_in = StandIn(TraceContext(7, 9, sampled))
        before = backend.exchange_current(stand_in)
        try:
            with recording.start_span("m", "outer"):
                recording.start_span("m", "inner").end()
            assert backend.current() is stand_in
            recording.start_span("m", "explicit", parent=stand_in).end()
        finally:
            backend.restore_current(stand_in, before)
        assert backend.current() is None
    inner, outer, explicit = recording.take_all()
    assert outer.trace_id == explicit.trace_id == (7).to_bytes(16, "big")
    assert outer.parent_span_id == explicit.parent_span_id == (9).to_bytes(8, "big")
    assert inner.parent_span_id == outer.span_id
    assert outer.invalid_field_count == explicit.invalid_field_count == 0
