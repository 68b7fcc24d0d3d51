"""An ExportTraceServiceRequest as spans of ours, with the resource of each.

Source of the numbers: opentelemetry/proto/trace/v1/trace.proto, common.proto, resource.proto.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from infertrace.collector.ingest.otlp.attribute_values import AttributeReader, fields
from infertrace.collector.ingest.otlp.translator import Translation, choose_translation
from infertrace.collector.ingest.wire_fields import RequestError
from infertrace.wire.protobuf import WireError, delimited

MAX_SPANS: Final = 262_144  # in one request
MAX_GROUPS: Final = 10_000  # resources in one request, scopes of each
MAX_NAME_BYTES: Final = 256  # of a service, of a scope and of its version: each span repeats them
MAX_SCOPE_ATTRIBUTES_BYTES: Final = 512  # which each span repeats too
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
    groups = []
    try:
        for start, end in translation.find_messages(raw, 0, len(raw), 1, MAX_GROUPS):
            resource = _merged(translation, raw, start, end)
            attributes, head = read_resource(resource)
            count = 0
            for place in translation.find_messages(raw, start, end, 2, MAX_GROUPS):
                scope_name, tail = read_scope(_merged(translation, raw, *place))
                count += translator.add(raw, *place, head, tail, scope_name)
            groups.append(ResourceGroup(attributes, count))
    except WireError:
        raise RequestError(
            "not an ExportTraceServiceRequest: the bytes are cut short or no protobuf"
        ) from None
    return ExportedSpans(translator.take(), tuple(groups))


def _merged(translation: Translation, raw: bytes, start: int, end: int) -> bytes:
    """The message in field 1; where there are several, protobuf merges them."""
    places = translation.find_messages(raw, start, end, 1, MAX_GROUPS)
    return b"".join(raw[first:last] for first, last in places)


@lru_cache(maxsize=KNOWN_PARTS)
def read_resource(raw: bytes) -> tuple[bytes, bytes]:
    """A Resource of OTLP: as one of ours, and the field `service_name` of its spans."""
    reader = AttributeReader()
    out, service_name, dropped = b"", "", 0
    for number, _, value in fields(raw):
        if number == 1 and isinstance(value, bytes):
            key, found, entry = reader.attribute(value)
            out += delimited(b"\x0a", entry)
            if key == _SERVICE_NAME:
                service_name = found if isinstance(found, str) else str(found)
        elif number == 2 and isinstance(value, int):
            dropped = value
    if dropped:
        count = delimited(b"\x0a", DROPPED_COUNT_KEY) + b"\x12\x02\x18\x01"
        out += delimited(b"\x0a", count)
    return out, _name_field(b"\x22", service_name)


@lru_cache(maxsize=KNOWN_PARTS)
def read_scope(raw: bytes) -> tuple[str, bytes]:
    """An InstrumentationScope of OTLP: its name, and the fields of its spans that are about it."""
    reader = AttributeReader()
    texts, attributes = {1: b"", 2: b""}, b""
    for number, _, value in fields(raw):
        if isinstance(value, bytes):
            if number in texts:
                texts[number] = value
            elif number == 3:
                attributes += delimited(b"\xd2\x01", reader.attribute(value)[2])
    name = reader.text(texts[1])
    out = _name_field(b"\x9a\x01", name) + _name_field(b"\xa2\x01", reader.text(texts[2]))
    if len(attributes) <= MAX_SCOPE_ATTRIBUTES_BYTES:
        out += attributes
    return name, out


def _name_field(tag: bytes, name: str) -> bytes:
    """Cut after whole characters where it is too long for something that each span repeats."""
    encoded = name.encode()[:MAX_NAME_BYTES].decode(errors="ignore").encode()
    return delimited(tag, encoded) if encoded else b""
