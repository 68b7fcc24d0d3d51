"""The decoders of OTLP at their limits; test_translator.py compares what they make of requests."""

from __future__ import annotations

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from infertrace.collector.ingest.decoded_spans import DecodedSpans
from infertrace.collector.ingest.otlp import export_request
from infertrace.collector.ingest.otlp.export_decoder import choose_export_decoding
from infertrace.collector.ingest.otlp.export_request import decode_export_request
from infertrace.collector.ingest.otlp_batches import decode_export
from infertrace.collector.ingest.wire_fields import RequestError
from infertrace.wire.protobuf import WireError

UNUSUAL = KeyValue(key="langfuse.observation.level", value=AnyValue(string_value="ERROR"))
BACKENDS = pytest.mark.parametrize("backend_name", ["native", "pure"])


def span(events: int = 0, links: int = 0, *attributes: KeyValue) -> Span:
    return Span(
        trace_id=b"t" * 16,
        span_id=b"s" * 8,
        start_time_unix_nano=10**18,
        end_time_unix_nano=10**18,
        attributes=attributes,
        events=[Span.Event(name="e", time_unix_nano=10**18)] * events,
        links=[Span.Link(trace_id=b"t" * 16, span_id=b"s" * 8)] * links,
    )


def request_of(*spans: Span) -> bytes:
    return ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])]
    ).SerializeToString()


def decode(
    monkeypatch: pytest.MonkeyPatch, name: str, raw: bytes, max_spans: int, max_nested: int
) -> DecodedSpans:
    monkeypatch.setattr(export_request, "MAX_SPANS", max_spans)
    monkeypatch.setattr(export_request, "MAX_EVENTS_AND_LINKS", max_nested)
    return decode_export_request(raw, name)[0]


@BACKENDS
def test_so_many_spans_are_taken(monkeypatch: pytest.MonkeyPatch, backend_name: str) -> None:
    raw = request_of(span(), span(), span())
    assert len(decode(monkeypatch, backend_name, raw, 3, 0).rows) == 3
    with pytest.raises(RequestError, match="more than 2 spans in one request"):
        decode(monkeypatch, backend_name, raw, 2, 0)


@BACKENDS
@pytest.mark.parametrize("attributes", [(), (UNUSUAL,)], ids=["usual", "unusual"])
def test_so_many_events_and_links_are_taken(
    monkeypatch: pytest.MonkeyPatch, backend_name: str, attributes: tuple[KeyValue, ...]
) -> None:
    raw = request_of(span(2, 1, *attributes), span(0, 2, *attributes), span())
    rows = decode(monkeypatch, backend_name, raw, 10, 5).rows
    assert rows.column("events").null_count == 2
    assert rows.column("links").null_count == 1
    with pytest.raises(RequestError, match="more than 4 events and links in one request"):
        decode(monkeypatch, backend_name, raw, 10, 4)


def test_what_was_taken_takes_nothing_more() -> None:
    raw = request_of(span())
    decoder = choose_export_decoding("native").ExportDecoder(raw, 1, 0)
    assert decoder.take().span_count == 0
    with pytest.raises(ValueError, match="taken already"):
        decoder.add(raw, 0, len(raw), b"", b"", "", 0)
    with pytest.raises(ValueError, match="taken already"):
        decoder.take()


def test_a_range_outside_of_the_request_is_refused() -> None:
    raw = request_of(span())
    decoder = choose_export_decoding("native").ExportDecoder(raw, 1, 0)
    for start, end in ((0, len(raw) + 1), (-1, 0), (2, 1)):
        with pytest.raises(ValueError, match="within the request"):
            decoder.add(raw, start, end, b"", b"", "", 0)


@BACKENDS
def test_bytes_between_the_spans_that_are_no_protobuf(backend_name: str) -> None:
    raw = b"\x07"
    with pytest.raises(WireError):
        choose_export_decoding(backend_name).ExportDecoder(raw, 1, 0).add(
            raw, 0, 1, b"", b"", "", 0
        )


def test_spans_are_encoded_as_ours_only_to_be_passed_on() -> None:
    raw = request_of(span(1, 1), Span(), span())
    kept, passed_on = decode_export(raw), decode_export(raw, is_passed_on=True)
    assert kept.sent is None
    assert passed_on.sent is not None
    assert passed_on.sent.valid_count == 2
    assert kept.batch == passed_on.batch
