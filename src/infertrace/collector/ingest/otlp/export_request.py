"""An ExportTraceServiceRequest as spans of ours, with the resource of each.

Source of the numbers: opentelemetry/proto/trace/v1/trace.proto, common.proto, resource.proto.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from infertrace.collector.ingest.decoded_spans import DecodedSpans
from infertrace.collector.ingest.otlp.attribute_values import AttributeReader
from infertrace.collector.ingest.otlp.export_decoder import choose_export_decoding
from infertrace.collector.ingest.otlp.translator import SpanReader, Translation, choose_translation
from infertrace.collector.ingest.wire_fields import RequestError
from infertrace.otlp.pure_reader import fields
from infertrace.wire.protobuf import VARINT, WireError, delimited, varint

MAX_SPANS: Final = 262_144  # in one request
MAX_EVENTS_AND_LINKS: Final = 1_048_576  # in all spans of one request
MAX_GROUPS: Final = 10_000  # resources in one request, scopes of each
MAX_NAME_BYTES: Final = 256  # of a service, of a scope and of its version: each span repeats them
MAX_SCOPE_ATTRIBUTES_BYTES: Final = 512  # which each span repeats too
UINT32_MASK: Final = 2**32 - 1
KNOWN_PARTS: Final = 4_096  # resources and scopes that are not read again
DROPPED_COUNT_KEY: Final = b"otel.dropped_attributes_count"

_SERVICE_NAME: Final = "service.name"


@dataclass(frozen=True)
class ResourceGroup:
    """Spans of one resource that follow one another; `attributes` is a `Resource` of ours."""

    attributes: bytes
    span_count: int


@dataclass(frozen=True)
class ExportedSpans:
    """The spans of a request, as the field `spans` of a SendSpanBatchRequest, and their origins."""

    spans: bytes
    groups: tuple[ResourceGroup, ...]

    @property
    def span_count(self) -> int:
        return sum(group.span_count for group in self.groups)


def read_export_request(raw: bytes, backend_name: str | None = None) -> ExportedSpans:
    """Translate a request; a span that is malformed becomes one that the decoder rejects.

    Raises RequestError where the request is no protobuf, or has too many spans or resources.
    """
    translation = choose_translation(backend_name)
    translator = translation.Translator(MAX_SPANS)
    groups = _read_groups(raw, translation, translator)
    return ExportedSpans(translator.take(), groups)


def decode_export_request(
    raw: bytes, backend_name: str | None = None
) -> tuple[DecodedSpans, tuple[ResourceGroup, ...]]:
    """The rows of a request, as the decoder makes them of its translated spans, and their origins.

    Raises RequestError also where the spans have too many events and links.
    """
    decoding = choose_export_decoding(backend_name)
    decoder = decoding.ExportDecoder(raw, MAX_SPANS, MAX_EVENTS_AND_LINKS)
    groups = _read_groups(raw, choose_translation(backend_name), decoder)
    return decoder.take(), groups


def _read_groups(
    raw: bytes, translation: Translation, reader: SpanReader
) -> tuple[ResourceGroup, ...]:
    groups = []
    try:
        for start, end in translation.find_messages(raw, 0, len(raw), 1, MAX_GROUPS):
            resource = _merged(translation, raw, start, end)
            attributes, head = read_resource(resource)
            count = 0
            for place in translation.find_messages(raw, start, end, 2, MAX_GROUPS):
                scope_name, tail = read_scope(_merged(translation, raw, *place))
                cut_count = head.cut_count + tail.cut_count
                count += reader.add(raw, *place, head.encoded, tail.encoded, scope_name, cut_count)
            groups.append(ResourceGroup(attributes, count))
    except WireError:
        raise RequestError(
            "not an ExportTraceServiceRequest: the bytes are cut short or no protobuf"
        ) from None
    return tuple(groups)


def _merged(translation: Translation, raw: bytes, start: int, end: int) -> bytes:
    """The message in field 1; where there are several, protobuf merges them."""
    places = translation.find_messages(raw, start, end, 1, MAX_GROUPS)
    return b"".join(raw[first:last] for first, last in places)


class SharedFields(NamedTuple):
    """Fields of ours that each span of a resource or of a scope gets.

    `cut_count` says how many of them are cut or left out, being too long to be repeated.
    """

    encoded: bytes
    cut_count: int


@lru_cache(maxsize=KNOWN_PARTS)
def read_resource(raw: bytes) -> tuple[bytes, SharedFields]:
    """A Resource of OTLP: as one of ours, and the field `service_name` of its spans."""
    reader = AttributeReader()
    out, service_name, dropped = b"", "", 0
    for tag, value in fields(raw):
        if tag >> 3 == 1 and isinstance(value, bytes):
            key, found, entry = reader.attribute(value)
            out += delimited(b"\x0a", entry)
            if key == _SERVICE_NAME:
                service_name = found if isinstance(found, str) else str(found)
        elif tag == 2 << 3 | VARINT and isinstance(value, int):
            dropped = value
    if dropped:
        count = delimited(b"\x12", b"\x18" + varint(dropped & UINT32_MASK))
        out += delimited(b"\x0a", delimited(b"\x0a", DROPPED_COUNT_KEY) + count)
    return out, _name_field(b"\x22", service_name)


@lru_cache(maxsize=KNOWN_PARTS)
def read_scope(raw: bytes) -> tuple[str, SharedFields]:
    """An InstrumentationScope of OTLP: its name, and the fields of its spans that are about it."""
    reader = AttributeReader()
    texts = {1: b"", 2: b""}
    attributes: list[bytes] = []
    for tag, value in fields(raw):
        if isinstance(value, bytes):
            if tag >> 3 in texts:
                texts[tag >> 3] = value
            elif tag >> 3 == 3:
                attributes.append(delimited(b"\xd2\x01", reader.attribute(value)[2]))
    name = reader.text(texts[1])
    parts = [
        _name_field(b"\x9a\x01", name),
        _name_field(b"\xa2\x01", reader.text(texts[2])),
        SharedFields(b"".join(attributes), reader.replaced_count),
    ]
    if len(parts[-1].encoded) > MAX_SCOPE_ATTRIBUTES_BYTES:
        parts[-1] = SharedFields(b"", len(attributes))
    return name, SharedFields(
        b"".join(part.encoded for part in parts), sum(part.cut_count for part in parts)
    )


def _name_field(tag: bytes, name: str) -> SharedFields:
    """Cut after whole characters where it is too long."""
    whole = name.encode()
    encoded = whole[:MAX_NAME_BYTES].decode(errors="ignore").encode()
    return SharedFields(delimited(tag, encoded) if encoded else b"", int(encoded != whole))
