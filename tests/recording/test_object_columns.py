"""record_batch with columns of objects: texts, tags, histograms, parents and trace ids."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend_recording import Recording, available_backends
from drawn_fields import VALID_FIELDS
from infertrace import backend as backends
from infertrace.generated.field_names import INTERVALS_FIELDS, TEXT_FIELDS

START_NS = 1_700_000_000 * 10**9
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"
NOT_SAMPLED = f"00-{TRACE_ID}-b7ad6b7169203331-00"
OBJECT_FIELDS = (*TEXT_FIELDS, *INTERVALS_FIELDS)


def times(rows: int) -> dict[str, Any]:
    return {
        "start_ns": np.full(rows, START_NS),
        "duration_ns": np.arange(rows, dtype=np.int64),
    }


def test_one_row_a_request(recording: Recording) -> None:
    recorded = recording.recorder.record_batch(
        "m",
        **times(3),
        request_id=["a", None, "c"],
        engine=["1", None, ""],
        token_intervals=[[160, 1, 2], None, np.array([-1, 3])],
        tags=[{"x": "y"}, None, {}],
        parents=[PARENT, None, None],
        trace_ids=[None, TRACE_ID, None],
        first_step=np.array([1, 2**40, 3]),
        output_tokens=np.array([7, 8, 9]),
        kind="server",
    )
    assert recorded == 3
    spans = recording.take_all()
    assert [span.inference.request_id for span in spans] == ["a", "", "c"]
    assert [span.inference.engine for span in spans] == ["1", "", ""]
    assert [span.inference.first_step for span in spans] == [1, 2**40, 3]
    assert [list(span.inference.token_intervals.counts) for span in spans] == [[1, 2], [], [3]]
    assert not spans[1].inference.HasField("token_intervals")
    assert [dict(span.tags) for span in spans] == [{"x": "y"}, {}, {}]
    first, second, third = spans
    assert first.trace_id.hex() == second.trace_id.hex() == TRACE_ID
    assert (first.parent_span_id.hex(), second.parent_span_id) == ("b7ad6b7169203331", b"")
    assert (first.flags, second.flags) == (0x301, 0)
    assert {span.kind for span in spans} == {2}
    assert third.trace_id.hex() != TRACE_ID
    assert third.parent_span_id == b""
    assert not any(span.invalid_field_count for span in spans)


def test_a_span_as_parent_and_one_for_the_rest(recording: Recording) -> None:
    one, other = recording.start_span("m"), recording.start_span("m")
    recording.recorder.record_batch("m", **times(2), parent=other, parents=[one, None])
    one.end()
    other.end()
    first, second, *_ = recording.take_all()
    assert [first.parent_span_id.hex(), second.parent_span_id.hex()] == [one.span_id, other.span_id]
    assert not first.flags


def test_the_current_span_and_a_trace_of_its_own(recording: Recording) -> None:
    with recording.start_span("m") as span:
        recording.recorder.record_batch("m", **times(2), trace_ids=[None, TRACE_ID])
    first, second, _ = recording.take_all()
    assert first.parent_span_id.hex() == span.span_id
    assert (second.trace_id.hex(), second.parent_span_id) == (TRACE_ID, b"")


def test_what_is_not_sampled(recording: Recording) -> None:
    recording.recorder.record_batch("m", **times(2), parents=[NOT_SAMPLED, PARENT])
    assert len(recording.take_all()) == 1
    recording.recorder.set_sample_rate(0)
    low = "0" * 31 + "1"
    parents, trace_ids = [PARENT, None, None], [None, low, None]
    recorded = recording.recorder.record_batch(
        "m", **times(3), parents=parents, trace_ids=trace_ids
    )
    assert recorded == len(recording.take_all()) == 1


@pytest.mark.parametrize(
    "columns",
    [
        {"parents": ["x"]},
        {"parents": [7]},
        {"trace_ids": ["x"]},
        {"trace_ids": ["0" * 32]},
        {"trace_ids": [7]},
        {"trace_ids": [TRACE_ID.upper()]},
        {"trace_ids": [TRACE_ID[::-1]], "parents": [PARENT]},
        {"tags": [7]},
        {"tags": [{"": "x"}]},
        {"request_id": [7]},
        {"engine": [b"x"]},
        {"token_intervals": [[]]},
        {"token_intervals": ["160"]},
        {"token_intervals": [[600, 1]]},
    ],
)
def test_wrong_values_are_counted(recording: Recording, columns: dict[str, Any]) -> None:
    assert recording.recorder.record_batch("m", **times(1), **columns) == 1
    assert recording.take_one().invalid_field_count == 1


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"request_id": "ab"}, TypeError, "'request_id': expected a sequence .* got str"),
        ({"tags": {"a": "b"}}, TypeError, "'tags': expected a sequence .* got dict"),
        ({"parents": iter(["a"])}, TypeError, "'parents': expected a sequence"),
        ({"engine": ["1"]}, ValueError, "'engine': expected 2 rows, as start_ns has, got 1"),
        ({"model_name": ["m", "n"]}, TypeError, "model_name"),
    ],
)
def test_wrong_columns_are_errors(
    recording: Recording, columns: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        recording.recorder.record_batch("m", **{**times(2), **columns})
    assert recording.take_all() == []


ROWS = st.lists(
    st.fixed_dictionaries(
        {name: st.none() | VALID_FIELDS[name] for name in OBJECT_FIELDS}
        | {
            "tags": st.none() | st.dictionaries(st.text(max_size=3), st.text(max_size=3)),
            "parents": st.sampled_from([None, PARENT, "x"]),
            "trace_ids": st.sampled_from([None, TRACE_ID, "x"]),
        }
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.skipif(len(available_backends()) < 2, reason="a pure installation has one backend")
@given(ROWS, st.sampled_from([None, PARENT]))
def test_both_backends_record_the_same(drawn: list[Any], parent: str | None) -> None:
    columns = {name: [row[name] for row in drawn] for name in drawn[0]}
    found = []
    for name in ("native", "pure"):
        recording = Recording(backends.select(name))
        recording.recorder.record_batch("m", parent=parent, **times(len(drawn)), **columns)
        spans = recording.take_all()
        for span in spans:
            span.span_id = b""
            if span.trace_id.hex() != TRACE_ID:
                span.trace_id = b""
        found.append(spans)
    assert found[0] == found[1]
    assert len(found[0]) == len(drawn)


@pytest.mark.parametrize("why", ["current", "parent"])
def test_rows_with_contexts_of_their_own_below_an_unsampled_span(
    recording: Recording, why: str
) -> None:
    """What a row says of its trace comes before what the batch is in."""
    rows: dict[str, Any] = {
        **times(5),
        "parents": [PARENT, None, NOT_SAMPLED, "no parent", None],
        "trace_ids": [None, TRACE_ID, None, None, None],
        "input_tokens": np.arange(5),
    }
    if why == "parent":
        recorded = recording.recorder.record_batch("m", parent=NOT_SAMPLED, **rows)
        expected = [0]  # with a parent for all, the trace is that one's
    else:
        recording.recorder.set_sample_rate(0)
        with recording.start_span("m"):
            recording.recorder.set_sample_rate(1)
            recorded = recording.recorder.record_batch("m", **rows)
        expected = [0, 1]
    spans = recording.take_all()
    assert recorded == len(spans) == len(expected)
    assert [span.inference.input_tokens for span in spans] == expected
    assert {span.trace_id.hex() for span in spans} == {TRACE_ID}
    assert recording.recorder.counts()[4] == 0
    assert recording.recorder.record_batch("m", parent=NOT_SAMPLED, **times(2)) == 0
