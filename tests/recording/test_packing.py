"""What is packed, and encoded later, is what the pure backend's encoder would have written."""

from __future__ import annotations

import contextlib
import marshal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend_recording import Recording
from drawn_spans import SPANS, record
from infertrace import backend as backends
from infertrace.recording import encoder, packing, pure

PACKER = packing.Packer(pure.Span)
ROOM = 2**20

LIGHT_SPANS = st.fixed_dictionaries(
    {
        "model": st.none() | st.text("abc", max_size=128),
        "operation": st.text("abc", min_size=1, max_size=128),
        "tokens": st.none() | st.integers(0, 2**31 - 1),
        "fill": st.none() | st.floats(0, 1),
        "step": st.none() | st.integers(0, 2**63 - 1),
        "kind": st.none() | st.just("server"),
        "status": st.none() | st.sampled_from(pure.STATUSES),
        "wrong": st.integers(0, 3),
        "sample": st.none() | st.binary(max_size=300),
    }
)


@pytest.fixture(scope="module")
def twin() -> Recording:
    return Recording(backends.select("pure"))


def record_light(recording: Recording, drawn: dict[str, Any]) -> Any:
    sample = drawn["sample"]
    recording.recorder.sample = None if sample is None else (sample, 1)
    span = recording.start_span(
        drawn["model"],
        drawn["operation"],
        input_tokens=drawn["tokens"],
        batch_fill_ratio=drawn["fill"],
        first_step=drawn["step"],
        kind=drawn["kind"],
    )
    if drawn["status"] is not None:
        span.set_status(drawn["status"])
    for _ in range(drawn["wrong"]):
        span.set_batch_size(-1)
    span.end()
    return span


def encoded(spans: list[Any]) -> bytes:
    return b"".join(map(encoder.span, spans))


@settings(max_examples=200, deadline=None)
@given(drawn=st.lists(SPANS, min_size=1, max_size=4))
def test_any_spans(twin: Recording, drawn: list[dict[str, Any]]) -> None:
    spans = [record(twin, one) for one in drawn]  # each under a service name of its own
    twin.recorder.discard()
    packed = b""
    expected = []
    for span, one in zip(spans, drawn, strict=True):
        twin.recorder.service_name = one["service"]
        part = PACKER.pack([span])
        assert part is not None
        packed += part
        expected.append(encoder.span(span))
    assert packing.encode(packed) == (b"".join(expected), len(spans))
    assert PACKER.encode(packed) == packing.encode(packed)


@settings(max_examples=200, deadline=None)
@given(drawn=st.lists(LIGHT_SPANS, min_size=1, max_size=20), room=st.integers(1, 20_000))
def test_spans_of_bounded_size(twin: Recording, drawn: list[dict[str, Any]], room: int) -> None:
    spans = [record_light(twin, one) for one in drawn]
    twin.recorder.discard()
    assert PACKER.count_light(spans) == len(spans)
    run = PACKER.pack_light(spans, room)
    assert run is not None
    expected = encoded(spans[: run.span_count])
    assert packing.encode(run.packed) == (expected, run.span_count)
    assert len(expected) <= run.encoded_bytes
    assert run.encoded_bytes <= room or run.span_count == 1
    assert run.invalid_fields == sum(one["wrong"] for one in drawn[: run.span_count])


def test_what_is_not_a_span_of_bounded_size(twin: Recording) -> None:
    light, heavy = twin.start_span("m"), twin.start_span("m")
    heavy.set_tag("a", "b")
    for span in (light, heavy):
        span.end()
    twin.recorder.discard()
    assert PACKER.count_light([light, light, heavy, light]) == 2
    assert PACKER.count_light([light, print, light]) == 1
    assert PACKER.count_light([3]) == 0


def test_a_value_that_cannot_be_packed(twin: Recording) -> None:
    class Text(str):
        __slots__ = ()

    span: Any = twin.start_span("m")
    span.end()
    twin.recorder.discard()
    span._operation = Text("operation")
    assert PACKER.pack([span]) is None
    assert PACKER.pack_light([span], ROOM) is None


@pytest.mark.parametrize("by", ["pack", "pack_light"])
def test_one_that_cannot_be_encoded_costs_no_neighbour(twin: Recording, by: str) -> None:
    spans: list[Any] = [twin.start_span("m") for _ in range(3)]
    for span in spans:
        span.end()
    twin.recorder.discard()
    spans[1]._status = 7
    run = PACKER.pack_light(spans, ROOM)
    packed = PACKER.pack(spans) if by == "pack" else run and run.packed
    assert packed is not None
    assert PACKER.encode(packed) == (encoded([spans[0], spans[2]]), 2)
    with pytest.raises(ValueError, match="not packed spans"):
        packing.encode(packed)


JUNK = st.recursive(
    st.none() | st.integers() | st.text(max_size=5) | st.binary(max_size=5) | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=14)
        | st.tuples(inner, inner, inner)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=40,
)
COLUMNS = st.integers(1, 3).flatmap(
    lambda rows: st.lists(st.lists(JUNK, min_size=rows, max_size=rows), min_size=13, max_size=13)
)


@settings(deadline=None)
@given(
    content=JUNK | st.tuples(st.text(max_size=5), st.integers(), COLUMNS),
    cut=st.integers(0, 40),
)
def test_what_nobody_packed(content: Any, cut: int) -> None:
    """An error, or some bytes; whatever the values are."""
    packed = marshal.dumps(content)
    packed = (len(packed).to_bytes(4, "little") + packed)[: -cut or None]
    with contextlib.suppress(ValueError):
        assert isinstance(packing.encode(packed).payload, bytes)
    assert isinstance(PACKER.encode(packed).payload, bytes)


def test_cut_short(twin: Recording) -> None:
    span: Any = twin.start_span("m", input_tokens=3, tags={"a": "b"})
    span.end()
    twin.recorder.discard()
    packed = PACKER.pack([span])
    assert packed is not None
    for size in range(1, len(packed)):
        with pytest.raises(ValueError, match="not packed spans"):
            packing.encode(packed[:size])
