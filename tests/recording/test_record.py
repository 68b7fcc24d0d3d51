"""Recording spans that have already finished: one, or a batch from columns."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from array import array
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend_recording import Recording, available_backends
from drawn_fields import set_field
from infertrace import backend as backends
from infertrace.buffering.ledger import DROP_REASONS
from infertrace.generated.field_names import COUNT_FIELDS, MEASURE_FIELDS
from infertrace.limits import MIN_START_UNIX_NS
from infertrace.recording import values

START_NS = 1_700_000_000 * 10**9
COUNTS, MEASURES = COUNT_FIELDS, tuple(MEASURE_FIELDS)


def invalid_spans(recording: Recording) -> int:
    return int(recording.recorder.counts()[3][DROP_REASONS.index("invalid")])


def test_one_finished_span(recording: Any) -> None:
    span = recording.recorder.record(
        "gpt-4",
        "decode",
        start_ns=START_NS,
        duration_ns=5_000_000,
        status="ERROR",
        status_message="out of memory",
        output_tokens=7,
        tags={"a": "b"},
    )
    sent = recording.take_one()
    assert sent.span_id.hex() == span.span_id
    assert not span.is_recording
    assert sent.start_time_unix_nano == START_NS
    assert sent.duration_nanos == 5_000_000
    assert (sent.status, sent.status_message) == ("ERROR", "out of memory")
    assert sent.operation_name == "decode"
    assert sent.inference.output_tokens == 7
    assert dict(sent.tags) == {"a": "b"}


def test_a_finished_span_is_a_child_of_the_current_one(recording: Any) -> None:
    with recording.start_span("m", "step") as step:
        one = recording.recorder.record("m", start_ns=START_NS, duration_ns=1)
        recording.recorder.record_batch(
            "m", start_ns=np.array([START_NS]), duration_ns=np.array([1])
        )
        recording.recorder.record("m", start_ns=START_NS, duration_ns=1, parent=one)
    spans = recording.take_all()
    assert [span.parent_span_id.hex() for span in spans] == [step.span_id] * 2 + [one.span_id, ""]


@pytest.mark.parametrize(
    "times",
    [
        (0, 1),
        (-1, 1),
        (time.perf_counter_ns(), 1),
        (MIN_START_UNIX_NS - 1, 1),
        (START_NS, -1),
        (2**63, 1),
        (2**63 - 1, 1),
        ("x", 1),
        (START_NS, 1.5),
        (None, 1),
    ],
)
def test_a_span_with_wrong_times_is_counted(recording: Any, times: Any) -> None:
    recording.recorder.record("m", start_ns=times[0], duration_ns=times[1], batch_size=-1)
    assert recording.take_all() == []
    assert invalid_spans(recording) == 1
    produced, delivered, pending, dropped, invalid_fields = recording.recorder.counts()
    assert produced == delivered + pending + sum(dropped) == 1
    assert invalid_fields == 1


@pytest.mark.parametrize("wrong", [{"model_name": 7}, {"operation_name": ""}, {"parent": "x"}])
def test_what_is_wrong_for_all_rows_counts_for_each(recording: Any, wrong: Any) -> None:
    recording.recorder.record_batch(start_ns=OK, duration_ns=OK * 0, **wrong)
    assert [span.invalid_field_count for span in recording.take_all()] == [1, 1]
    assert recording.recorder.counts()[4] == 2


class Incomparable(type):
    def __eq__(cls, other: object) -> bool:
        raise ValueError

    __hash__ = type.__hash__


def test_values_that_cannot_be_compared(recording: Any) -> None:
    odd = Incomparable("Odd", (), {})()
    recording.recorder.record("m", start_ns=START_NS, duration_ns=1, status=np.array([1, 2]))
    recording.recorder.record("m", start_ns=START_NS, duration_ns=1, status=odd, parent=odd)
    with recording.start_span("m", parent=odd, links=[odd]) as span:
        span.add_link(odd)
        span.set_status(odd)
    assert [one.invalid_field_count for one in recording.take_all()] == [1, 2, 4]


class Name(str):
    """Not a plain `str`, so that Python code validates it."""

    __slots__ = ()


def test_an_exception_amid_a_batch_leaves_the_sample_rate(
    recording: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python code, which a signal may interrupt, validates values of subclasses."""

    def interrupted(value: object) -> Any:
        raise TimeoutError

    recording.recorder.set_sample_rate(0)
    with monkeypatch.context() as patch:
        patch.setattr(values, "text", interrupted)
        for _ in range(3):
            with contextlib.suppress(TimeoutError):
                recording.recorder.record_batch(Name("m"), start_ns=OK, duration_ns=OK * 0)
    for _ in range(100):
        recording.start_span("m").end()
    assert recording.recorder.counts()[0] == 0


def test_a_batch_on_one_thread_does_not_sample_for_the_others(
    recording: Any, backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other thread records while a batch is validating its model name."""
    others: list[Any] = []
    judge = values.text

    def record_elsewhere(value: object) -> Any:
        thread = threading.Thread(target=lambda: others.append(recording.start_span("other")))
        thread.start()
        thread.join()
        return judge(value)

    recording.recorder.set_sample_rate(0)
    monkeypatch.setattr(values, "text", record_elsewhere)
    recording.recorder.record_batch(Name("m"), start_ns=OK, duration_ns=OK * 0)
    # The pure backend validates no name for a row that is not sampled.
    assert len(others) == (backend.NAME == "native")
    assert not any(span.is_recording for span in others)


def test_a_batch(recording: Any) -> None:
    rows = 5_000
    columns: dict[str, Any] = {
        "start_ns": np.arange(rows, dtype=np.int64) + START_NS,
        "duration_ns": np.arange(rows, dtype=np.int64) * 1_000,
        **{name: np.arange(rows, dtype=np.int32) for name in COUNTS},
        **{name: np.linspace(0, 1, rows, dtype=np.float32) for name in MEASURES},
    }
    assert recording.recorder.record_batch("gpt-4", "decode", **columns) == rows
    spans = recording.take_all()
    assert len(spans) == rows
    assert len({span.trace_id for span in spans}) == rows
    assert len({span.span_id for span in spans}) == rows
    for row, span in enumerate(spans):
        assert span.start_time_unix_nano == START_NS + row
        assert span.duration_nanos == row * 1_000
        assert span.inference.model_name == "gpt-4"
        assert span.operation_name == "decode"
        assert span.status == "OK"
        for name in COUNTS:
            assert getattr(span.inference, name) == row
        for name in MEASURES:
            assert getattr(span.inference, name) == columns[name][row]


@pytest.mark.parametrize("integers", ["i", "l", "q"])
@pytest.mark.parametrize("reals", ["f", "d"])
def test_any_buffer_will_do(recording: Any, integers: str, reals: str) -> None:
    recorded = recording.recorder.record_batch(
        "m",
        start_ns=array("q", [START_NS, START_NS + 1]),
        duration_ns=memoryview(array("q", [1, 0, 2, 0]))[::2],
        input_tokens=array(integers, [3, 4]),
        sequence_length=array(reals, [0.5, 1.5]),
        output_tokens=np.arange(10, dtype=np.int64)[::-4][:2],
    )
    assert recorded == 2
    first, second = recording.take_all()
    assert (first.duration_nanos, second.duration_nanos) == (1, 2)
    assert (first.inference.input_tokens, second.inference.input_tokens) == (3, 4)
    assert (first.inference.sequence_length, second.inference.sequence_length) == (0.5, 1.5)
    assert (first.inference.output_tokens, second.inference.output_tokens) == (9, 5)


def test_columns_of_packed_records(recording: Any) -> None:
    """A column in which no item is aligned."""
    packed = np.zeros(4, [("x", "u1"), ("start", "i8"), ("ms", "f8"), ("n", "i4"), ("s", "f4")])
    packed["start"], packed["n"], packed["ms"], packed["s"] = START_NS, range(4), 0.25, 0.5
    recording.recorder.record_batch(
        "m",
        start_ns=packed["start"],
        duration_ns=packed["start"],
        input_tokens=packed["n"],
        queue_wait_time_ms=packed["ms"],
        cache_hit_rate=packed["s"],
    )
    spans = recording.take_all()
    assert [span.inference.input_tokens for span in spans] == [0, 1, 2, 3]
    assert {span.inference.queue_wait_time_ms for span in spans} == {0.25}
    assert {span.inference.cache_hit_rate for span in spans} == {0.5}


def test_an_empty_batch(recording: Any) -> None:
    empty = np.array([], dtype=np.int64)
    assert recording.recorder.record_batch("m", start_ns=empty, duration_ns=empty) == 0
    assert recording.take_all() == []


OK = np.array([START_NS, START_NS])


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"duration_ns": OK[:1]}, ValueError, "'duration_ns': expected 2 rows.*got 1"),
        ({"input_tokens": OK[:1]}, ValueError, "'input_tokens': expected 2 rows.*got 1"),
        ({"input_tokens": [1, 2]}, TypeError, "'input_tokens': expected an array .*got list"),
        ({"input_tokens": np.ones(2)}, TypeError, "'input_tokens': expected int32 or int64.*'d'"),
        ({"input_tokens": np.ones(2, np.int16)}, TypeError, "'input_tokens': expected int32"),
        ({"input_tokens": np.ones(2, np.uint32)}, TypeError, "'input_tokens': expected int32"),
        ({"input_tokens": np.ones(2, ">i8")}, TypeError, "'input_tokens': expected int32"),
        ({"input_tokens": np.ones(2, bool)}, TypeError, "'input_tokens': expected int32"),
        ({"cache_hit_rate": OK}, TypeError, "'cache_hit_rate': expected float32 or float64"),
        ({"cache_hit_rate": np.ones(2, np.float16)}, TypeError, "'cache_hit_rate': expected fl"),
        ({"start_ns": OK.astype(np.int32)}, TypeError, "'start_ns': expected int64, got"),
        ({"start_ns": OK.reshape(1, 2)}, ValueError, "'start_ns': expected one dimension, got 2"),
        ({"start_ns": np.int64(1)}, ValueError, "'start_ns': expected one dimension, got 0"),
        ({"tokens": OK}, TypeError, "'tokens' is no column; expected one of batch_size, "),
    ],
)
def test_a_wrong_column_is_named(recording: Any, columns: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        recording.recorder.record_batch("m", **{"start_ns": OK, "duration_ns": OK, **columns})
    assert recording.recorder.counts()[0] == 0


INTEGERS = st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 5)
REALS = st.floats() | st.floats(-1, 2)


@pytest.mark.parametrize("name", available_backends())
@settings(max_examples=150, deadline=None)
@given(data=st.data(), rows=st.integers(1, 6), sampled=st.sampled_from([1.0, 1.0, 0.5, 0.0]))
def test_a_batch_is_as_many_single_spans(
    name: str, data: st.DataObject, rows: int, sampled: float
) -> None:
    """The values of a row are recorded as a span's setters would record them."""

    def column(items: Any) -> Any:
        return data.draw(st.lists(items, min_size=rows, max_size=rows))

    drawn: dict[str, Any] = {
        "start_ns": column(
            st.integers(MIN_START_UNIX_NS - 1, START_NS) | st.integers(-1, START_NS)
        ),
        "duration_ns": column(st.integers(-1, 10**9)),
    }
    for field in data.draw(st.sets(st.sampled_from(COUNTS + MEASURES))):
        drawn[field] = column(INTEGERS if field in COUNTS else REALS)
    batch, single = Recording(backends.select(name)), Recording(backends.select(name))
    batch.recorder.set_sample_rate(sampled)
    recorded = batch.recorder.record_batch(
        "m",
        **{
            field: np.array(of_rows, np.float64 if field in MEASURES else np.int64)
            for field, of_rows in drawn.items()
        },
    )
    assert batch.recorder.counts()[0] == recorded
    if sampled == 0.0:
        assert recorded == 0
    if sampled != 1.0:
        return
    for row in range(rows):
        span = single.start_span("m")
        for field in drawn.keys() - {"start_ns", "duration_ns"}:
            set_field(span, field, drawn[field][row])
        if drawn["start_ns"][row] >= MIN_START_UNIX_NS and drawn["duration_ns"][row] >= 0:
            span.end()
    wanted, got = single.take_all(), batch.take_all()
    assert [span.inference for span in got] == [span.inference for span in wanted]
    assert [span.invalid_field_count for span in got] == [
        span.invalid_field_count for span in wanted
    ]
    assert recorded == rows
    assert invalid_spans(batch) == rows - len(got)


def test_nan_is_left_out(recording: Any) -> None:
    recording.recorder.record_batch(
        "m", start_ns=OK, duration_ns=OK * 0, cache_hit_rate=np.array([math.nan, 0.5])
    )
    first, second = recording.take_all()
    assert not first.inference.HasField("cache_hit_rate")
    assert first.invalid_field_count == 1
    assert second.inference.cache_hit_rate == 0.5


def test_a_switched_off_tracer_records_no_batch(recording: Any) -> None:
    recording.recorder.enabled = False
    assert recording.recorder.record_batch("m", start_ns=OK, duration_ns=OK) == 0
    assert not recording.recorder.record("m", start_ns=START_NS, duration_ns=1).is_recording
    assert recording.recorder.counts()[0] == 0


def test_on_a_tracer(tracer: Any, receiver: Any) -> None:
    tracer.record("gpt-4", start_ns=START_NS, duration_ns=1, queue_depth=3)
    assert tracer.record_batch("gpt-4", start_ns=OK, duration_ns=OK * 0, output_tokens=OK * 0) == 2
    assert tracer.flush()
    assert len(receiver.spans) == 3
    assert receiver.spans[0].inference.queue_depth == 3
