"""Wrong values never raise: they are left out or clamped, and counted."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

INT32_MAX = 2**31 - 1
FLOAT32_MAX = 3.4028234663852886e38


class Hostile:
    """Raises from every method."""

    def __raise(self, *args: object) -> Any:
        raise RuntimeError("hostile")

    __str__ = __repr__ = __index__ = __int__ = __float__ = __eq__ = __hash__ = __len__ = __raise
    __iter__ = __bool__ = __bytes__ = __raise
    __class__ = property(__raise)


def made(value: Any) -> Any:
    """The value itself; a class of this module stands for a new object of it.

    pytest compares and prints its parameters, which a hostile object would not bear.
    """
    return value() if any(value is kind for kind in (Hostile, Index, Real)) else value


class Name(str):
    def __str__(self) -> str:
        raise RuntimeError("hostile")


class Index:
    def __index__(self) -> int:
        return 7


class Real:
    def __float__(self) -> float:
        return 0.5


COUNTS = [
    (0, 0, 0),
    (INT32_MAX, INT32_MAX, 0),
    (INT32_MAX + 1, INT32_MAX, 1),
    (2**70, INT32_MAX, 1),
    (-1, None, 1),
    (-(2**63), None, 1),
    (-(2**70), None, 1),
    (True, None, 1),
    (1.5, None, 1),
    ("8", None, 1),
    (math.nan, None, 1),
    (Index, 7, 0),
    (Hostile, None, 1),
]


ORDINALS = [
    (0, 0, 0),
    (2**63 - 1, 2**63 - 1, 0),
    (2**63, None, 1),
    (-1, None, 1),
    (True, None, 1),
    (1.5, None, 1),
    ("8", None, 1),
    (Index, 7, 0),
    (Hostile, None, 1),
]


@pytest.mark.parametrize(("value", "kept", "invalid"), ORDINALS)
def test_ordinals(recording: Any, value: Any, kept: int | None, invalid: int) -> None:
    with recording.start_span("m") as span:
        span.set_step(index=made(value))
    sent = recording.take_one()
    assert (sent.inference.step_index if sent.inference.HasField("step_index") else None) == kept
    assert sent.invalid_field_count == invalid


INTERVALS = [
    ([160, 1], [160, 1], 0),
    ((-1, 0, 2**32 - 1), [-1, 0, 2**32 - 1], 0),
    ([160], None, 1),
    ([], None, 1),
    ([512, 1], None, 1),
    ([511, 1, 1], None, 1),
    ([160, -1], None, 1),
    ([160, 1.5], None, 1),
    ([160, True], None, 1),
    (b"\x01\x01", None, 1),
    ("160", None, 1),
    (7, None, 1),
    (Hostile, None, 1),
    ([0, *[1] * 10**6], None, 1),
]


@pytest.mark.parametrize(("value", "kept", "invalid"), INTERVALS, ids=range(len(INTERVALS)))
def test_histograms(recording: Any, value: Any, kept: list[int] | None, invalid: int) -> None:
    with recording.start_span("m", token_intervals=[3, 3]) as span:
        span.set_request(token_intervals=made(value))
    sent = recording.take_one()
    given = sent.inference.token_intervals
    assert [given.offset, *given.counts] == (kept or [3, 3])
    assert sent.invalid_field_count == invalid
    recording.start_span("m", token_intervals=made(value)).end()
    assert recording.take_one().invalid_field_count == invalid


def test_an_engine_without_a_name_is_none(recording: Any) -> None:
    with recording.start_span("m", engine="1") as span:
        span.set_engine("")
    assert recording.take_one().inference.engine == ""


@pytest.mark.parametrize(("value", "kept", "invalid"), COUNTS)
def test_counts(recording: Any, value: Any, kept: int | None, invalid: int) -> None:
    value = made(value)
    with recording.start_span("m", batch_size=value) as span:
        span.set_tokens(input=value, output=value)
        span.set_queue(depth=value)
    sent = recording.take_one()
    for field in ("batch_size", "input_tokens", "output_tokens", "queue_depth"):
        found = getattr(sent.inference, field) if sent.inference.HasField(field) else None
        assert found == kept, field
    assert sent.invalid_field_count == 4 * invalid
    assert recording.recorder.counts()[4] == 4 * invalid


MEASURES = [
    (0.0, 0.0, 0),
    (1, 1.0, 0),
    (-0.5, None, 1),
    (math.nan, None, 1),
    (math.inf, None, 1),
    (-math.inf, None, 1),
    (1e300, FLOAT32_MAX, 1),
    (2**2000, None, 1),
    (True, None, 1),
    ("1.0", None, 1),
    (b"1.0", None, 1),
    (Real, 0.5, 0),
    (Hostile, None, 1),
]


@pytest.mark.parametrize(("value", "kept", "invalid"), MEASURES)
def test_measures(recording: Any, value: Any, kept: float | None, invalid: int) -> None:
    value = made(value)
    with recording.start_span("m", queue_wait_time_ms=value) as span:
        span.set_sequence_length(value)
        span.set_streaming(value, value)
    sent = recording.take_one()
    for field in ("queue_wait_time_ms", "sequence_length", "time_to_first_token_ms"):
        found = getattr(sent.inference, field) if sent.inference.HasField(field) else None
        assert found == kept, field
    assert sent.invalid_field_count == 4 * invalid


@pytest.mark.parametrize(("value", "kept", "invalid"), [(1.0, 1.0, 0), (1.01, 1.0, 1), (2, 1.0, 1)])
def test_ratios_are_clamped_to_one(recording: Any, value: Any, kept: float, invalid: int) -> None:
    with recording.start_span("m", batch_fill_ratio=value) as span:
        span.set_cache_hit_rate(value)
    sent = recording.take_one()
    assert sent.inference.batch_fill_ratio == kept
    assert sent.inference.cache_hit_rate == kept
    assert sent.invalid_field_count == 2 * invalid


TEXTS = [
    ("é\0\n", "é\0\n", 0),
    ("", "", 0),
    (Name("sub"), "sub", 0),
    ("a\ud800b", "a�b", 1),
    ("\ud83d\ude00", "😀", 1),
    ("x" * 40_000, "x" * 32_768, 1),
    ("é" * 40_000, "é" * 16_384, 1),
    ("x" * 100_000_000, "x" * 32_768, 1),
    (b"bytes", None, 1),
    (7, None, 1),
    (Hostile, None, 1),
]


@pytest.mark.parametrize(
    ("value", "kept", "invalid"), TEXTS, ids=[str(number) for number in range(len(TEXTS))]
)
def test_texts(recording: Any, value: Any, kept: str | None, invalid: int) -> None:
    value = made(value)
    with recording.start_span(value, framework=value) as span:
        span.set_model_version(value)
        span.set_pipeline_stage(value)
        span.set_tag("tag", value)
    sent = recording.take_one()
    assert sent.inference.model_name == (kept or "")
    assert sent.inference.framework == (kept or "")
    assert sent.inference.pipeline_stage == (kept or "")
    assert sent.tags.get("tag") == kept
    assert sent.invalid_field_count == 5 * invalid


@pytest.mark.parametrize("name", ["", b"x", 7, None, Hostile])
def test_a_wrong_operation_name_becomes_the_default(recording: Any, name: Any) -> None:
    name = made(name)
    recording.start_span("m", name).end()
    sent = recording.take_one()
    assert sent.operation_name == "inference"
    assert sent.invalid_field_count == 1


@pytest.mark.parametrize(
    "value",
    [None, 2**63, -(2**63) - 1, math.nan, math.inf, b"x", [1], {}, object(), Hostile],
)
def test_foreign_attribute_values_are_left_out(recording: Any, value: Any) -> None:
    value = made(value)
    with recording.start_span("m") as span:
        span.set_attribute("good", 1)
        span.set_attribute("bad", value)
        span.add_event("e", {"good": 1, "bad": value})
    sent = recording.take_one()
    assert set(sent.attributes) == {"good"}
    assert set(sent.events[0].attributes) == {"good"}
    assert sent.invalid_field_count == 2


@pytest.mark.parametrize("key", ["", b"k", 7, None, Hostile])
def test_foreign_keys_are_left_out(recording: Any, key: Any) -> None:
    key = made(key)
    with recording.start_span("m") as span:
        span.set_tag(key, "v")
        span.set_attribute(key, 1)
        span.add_event(key)
    sent = recording.take_one()
    assert not sent.tags
    assert not sent.attributes
    assert not sent.events
    assert sent.invalid_field_count == 3


def test_containers_of_the_wrong_kind_count_once(recording: Any) -> None:
    with recording.start_span("m", tags=7, attributes=[1], links=5) as span:
        span.add_event("e", Hostile())
    assert recording.take_one().invalid_field_count == 4


@pytest.mark.parametrize(
    "other", ["nonsense", "00-" + "0" * 32 + "-" + "1" * 16 + "-01", 7, Hostile]
)
def test_a_wrong_parent_or_link_is_left_out(recording: Any, other: Any) -> None:
    other = made(other)
    with recording.start_span("m", parent=other) as span:
        span.add_link(other)
    sent = recording.take_one()
    assert not sent.parent_span_id
    assert not sent.links
    assert sent.invalid_field_count == 2


@pytest.mark.parametrize("kind", ["SERVER", "", 2, ["server"], Hostile])
def test_a_kind_that_is_none_is_left_out(recording: Any, kind: Any) -> None:
    recording.start_span("m", kind=made(kind)).end()
    times = {"start_ns": np.array([10**18]), "duration_ns": np.array([1])}
    recording.recorder.record_batch("m", **times, kind=made(kind))
    recording.recorder.record_batch("m", **times, kind=made(kind), request_id=["a"])
    for span in recording.take_all():
        assert (span.kind, span.invalid_field_count) == (0, 1)


@pytest.mark.parametrize("status", ["ok", "", None, 1, Hostile])
def test_an_unknown_status_is_left_out(recording: Any, status: Any) -> None:
    status = made(status)
    with recording.start_span("m") as span:
        span.set_status(status)
    sent = recording.take_one()
    assert sent.status == "OK"
    assert sent.invalid_field_count == 1


@pytest.mark.parametrize("error", ["text", None, ValueError, Hostile])
def test_what_is_no_exception_is_not_recorded(recording: Any, error: Any) -> None:
    error = made(error)
    with recording.start_span("m") as span:
        span.record_exception(error)
    sent = recording.take_one()
    assert not sent.events
    assert sent.invalid_field_count == 1


def test_limits_on_entries(recording: Any) -> None:
    with recording.start_span("m") as span:
        for number in range(10_000):
            span.set_attribute(f"k{number}", number)
        for number in range(130):
            span.set_tag(f"k{number}", "v")
            span.add_event(f"e{number}")
            span.add_link("00-" + "1" * 32 + "-" + "2" * 16 + "-01")
        span.set_attribute("k0", "replaced")
    sent = recording.take_one()
    assert len(sent.attributes) == len(sent.tags) == len(sent.events) == len(sent.links) == 128
    assert sent.attributes["k0"].string_value == "replaced"
    assert sent.invalid_field_count == (10_000 - 128) + 3 * 2


@settings(
    max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    value=st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(),
        st.text(alphabet=st.characters(categories=["Cs"])),
        st.lists(st.integers(), max_size=2), st.complex_numbers(), st.dates(),
    )
)  # fmt: skip
def test_no_value_of_any_kind_raises_or_spoils_the_span(recording: Any, value: Any) -> None:
    with recording.start_span(value, value, parent=value, links=value, tags=value) as span:
        span.set_model_version(value)
        span.set_batch_size(value)
        span.set_tokens(value, value)
        span.set_framework(value)
        span.set_sequence_length(value)
        span.set_cache_hit_rate(value)
        span.set_pipeline_stage(value)
        span.set_queue(value, value)
        span.set_batch_fill_ratio(value)
        span.set_streaming(value, value)
        span.set_tag(value, value)
        span.set_attribute(value, value)
        span.add_event(value, value)
        span.add_link(value, value)
        span.record_exception(value)
        span.set_status(value, value)
    recording.take_one()  # the protobuf runtime reads it
