"""Both backends write the same bytes, and protobuf reads the same values back."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given, settings

from backend_recording import Recording, available_backends
from drawn_fields import VALID_FIELDS, plain
from drawn_spans import SPANS, record
from infertrace import backend as backends
from infertrace.generated import span_pb2
from infertrace.recording import values
from infertrace.trace_context import TraceContext
from infertrace.wire.protobuf import varint


def bytes_of(recording: Recording) -> bytes:
    batch = recording.recorder.take()
    assert batch is not None
    assert batch.span_count == 1
    recording.recorder.settle(batch, 1, "rejected")
    return bytes(batch.payload)


@pytest.mark.skipif(len(available_backends()) < 2, reason="a pure installation has one backend")
@settings(max_examples=500, deadline=None)
@given(SPANS)
def test_identical_bytes(drawn: dict[str, Any]) -> None:
    native = Recording(backends.select("native"))
    twin = Recording(backends.select("pure"))
    record(native, drawn)
    written = bytes_of(native)
    sent = span_pb2.SendSpanBatchRequest.FromString(written).spans[0]

    # The same span on the pure backend, except what neither test nor user can set.
    span = record(twin, drawn)
    trace_id = int.from_bytes(sent.trace_id, "big")
    span._trace_id, span._span_id = trace_id, int.from_bytes(sent.span_id, "big")
    span._start = sent.start_time_unix_nano - twin.recorder.anchor
    span._ended = span._start + sent.duration_nanos
    for number, event in enumerate(sent.events):
        span._events[number] = (event.time_unix_nano, *span._events[number][1:])
    assert bytes_of(twin) == written


@settings(max_examples=300, deadline=None)
@given(SPANS)
@pytest.mark.parametrize("name", available_backends())
def test_protobuf_reads_back_what_was_recorded(name: str, drawn: dict[str, Any]) -> None:
    recording = Recording(backends.select(name))
    span = record(recording, drawn)
    sent = span_pb2.SendSpanBatchRequest.FromString(bytes_of(recording)).spans[0]

    assert sent.trace_id.hex() == span.trace_id
    assert sent.span_id.hex() == span.span_id
    assert (sent.parent_span_id.hex() or None) == span.parent_span_id
    assert sent.service_name == drawn["service"]
    assert sent.operation_name == drawn["operation"]
    assert sent.kind == values.KINDS.get(drawn["kind"], 0)
    assert sent.inference.model_name == (drawn["model"] or "")
    for field in VALID_FIELDS:
        kept = getattr(sent.inference, field)
        if field in drawn["fields"]:
            assert plain(kept) == drawn["fields"][field]
        elif not isinstance(kept, str):
            assert not sent.inference.HasField(field)
    assert dict(sent.tags) == drawn["tags"]
    assert read(sent.attributes) == drawn["attributes"]
    assert [(event.name, read(event.attributes)) for event in sent.events] == drawn["events"]
    links = [
        (
            TraceContext(
                int.from_bytes(link.trace_id, "big"), int.from_bytes(link.span_id, "big"), True
            ),
            read(link.attributes),
        )
        for link in sent.links
    ]
    assert links == [(context(other), attributes) for other, attributes in drawn["links"]]
    status, message = drawn["status"] or ("OK", None)
    assert sent.status == status
    assert sent.status_message == (message or "")
    assert sent.invalid_field_count == drawn["wrong"]
    assert sent.HasField("resources") == (drawn["sample"] is not None)
    for field, value in (drawn["sample"] or {}).items():
        assert getattr(sent.resources, field) == value
    assert not len(UnknownFieldSet(sent))


def read(attributes: Any) -> dict[str, Any]:
    return {key: getattr(v, v.WhichOneof("value")) for key, v in attributes.items()}


def context(traceparent: str) -> TraceContext:
    _, trace_id, span_id, _ = traceparent.split("-")
    return TraceContext(int(trace_id, 16), int(span_id, 16), True)


@pytest.mark.parametrize("value", [0, 1, 127, 128, 16_383, 16_384, 2**63 - 1, -1, -(2**63)])
def test_varints_at_their_edges(value: int) -> None:
    message = span_pb2.Span.FromString(b"\x38" + varint(value))
    assert message.duration_nanos == value


def test_every_length_of_length(recording: Any) -> None:
    """Nested messages of 127, 128, 16,383, 16,384 bytes: where a length takes another byte."""
    for size in [*range(90, 140), *range(16_340, 16_400)]:
        with recording.start_span("m" * size, tags={"k": "v" * size}) as span:
            span.set_attribute("a", "w" * size)
        sent = recording.take_one()
        assert sent.inference.model_name == "m" * size
        assert sent.tags["k"] == "v" * size
        assert sent.attributes["a"].string_value == "w" * size


def test_float32_rounds_like_struct(recording: Any) -> None:
    recording.start_span("m", sequence_length=0.1).end()
    (expected,) = struct.unpack("<f", struct.pack("<f", 0.1))
    assert recording.take_one().inference.sequence_length == expected
