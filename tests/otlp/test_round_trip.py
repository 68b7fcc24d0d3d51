"""Our spans as OTLP and back: another collector of infertrace restores every field."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given
from hypothesis import strategies as st

from drawn_fields import INT32, intervals
from drawn_otlp_spans import ATTRIBUTES, SCALARS, encode, envelope
from infertrace.collector.ingest.otlp.export_request import read_export_request
from infertrace.generated import span_pb2
from infertrace.otlp import translator_choice

NAME = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=20)
SPAN_NS = 10**15
OF_KIND = {
    FieldDescriptor.TYPE_STRING: NAME,
    FieldDescriptor.TYPE_INT32: INT32,
    FieldDescriptor.TYPE_INT64: st.integers(0, 2**62),
    FieldDescriptor.TYPE_FLOAT: st.floats(0, 1, width=32),
    FieldDescriptor.TYPE_DOUBLE: st.floats(0, 1e6),
    FieldDescriptor.TYPE_MESSAGE: intervals().map(
        lambda given: span_pb2.TokenIntervals(offset=given[0], counts=given[1:])
    ),
}


def messages(kind: Any) -> st.SearchStrategy[Any]:
    fields = {field.name: OF_KIND[field.type] for field in kind.DESCRIPTOR.fields}
    return st.fixed_dictionaries({}, optional=fields).map(lambda given: kind(**given))


def sent_and_received(span: dict[str, Any], conventions: int) -> Any:
    raw = envelope(encode(span), resource={"service.name": "a"}, producer=bytes(range(16)))
    made = translator_choice.select().translate(raw, conventions, b"infertrace", b"1")
    assert (made.span_count, made.reason) == (1, "")
    received = read_export_request(made.request)
    assert received.span_count == 1
    (back,) = span_pb2.SendSpanBatchRequest.FromString(received.spans).spans
    return back


@given(messages(span_pb2.InferenceContext), messages(span_pb2.ResourceMetrics), st.integers(1, 7))
def test_every_field_comes_back(inference: Any, resources: Any, conventions: int) -> None:
    span = {
        "trace_id": bytes(range(16)),
        "span_id": bytes(range(8)),
        "start_time_unix_nano": SPAN_NS,
        "duration_nanos": SPAN_NS,
        "status": "OK",
        "inference": inference,
        "resources": resources,
    }
    back = sent_and_received(span, conventions)
    assert back.service_name == "a"
    for field, value in inference.ListFields():
        assert getattr(back.inference, field.name) == value, field.name
    assert back.resources == resources


@given(
    st.dictionaries(NAME, SCALARS, max_size=3),
    st.lists(st.tuples(st.integers(1, 2**62), NAME, ATTRIBUTES, st.integers(0, 9)), max_size=2),
    st.integers(1, 5),
    st.sampled_from(["OK", "ERROR"]),
    st.integers(0, 2**32 - 1),
)
def test_what_is_of_otlp_comes_back(
    attributes: dict[str, Any],
    events: list[Any],
    kind: int,
    status: str,
    flags: int,
) -> None:
    span = {
        "trace_id": bytes(range(16)),
        "span_id": bytes(range(8)),
        "parent_span_id": b"parent!!",
        "operation_name": "chat",
        "service_name": "a",
        "start_time_unix_nano": SPAN_NS,
        "duration_nanos": SPAN_NS,
        "status": status,
        "status_code": 2 if status == "ERROR" else 1,
        "attributes": attributes,
        "events": events,
        "links": [(b"t" * 16, b"s" * 8, attributes, "a=b", 3, 0x100)],
        "kind": kind,
        "trace_state": "a=b",
        "scope_name": "other",
        "scope_version": "2",
        "dropped_attributes_count": 1,
        "dropped_events_count": 2,
        "dropped_links_count": 3,
        "flags": flags,
        "scope_attributes": {"k": 1},
    }
    back = sent_and_received(span, 1)
    back.ClearField("inference")
    assert back == span_pb2.Span.FromString(encode(span))
