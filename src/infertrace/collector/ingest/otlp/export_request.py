"""An ExportTraceServiceRequest as spans of ours, with the resource of each.

Source of the numbers: opentelemetry/proto/trace/v1/trace.proto, common.proto, resource.proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from infertrace.collector.ingest.otlp.attribute_values import AttributeReader, fields
from infertrace.collector.ingest.otlp.translator import Translator, new_translator
from infertrace.collector.ingest.wire_fields import RequestError
from infertrace.wire.protobuf import (
    LENGTH_DELIMITED,
    WireError,
    delimited,
    read_varint,
    skip_value,
)

MAX_SPANS: Final = 262_144  # in one request
MAX_GROUPS: Final = 65_536  # resources, and scopes of each, in one request
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
    translator = new_translator(MAX_SPANS, backend_name)
    groups = []
    try:
        for start, end in _places(raw, 0, len(raw), 1):
            if len(groups) >= MAX_GROUPS:
                raise RequestError(f"more than {MAX_GROUPS} resources in one request")
            groups.append(_resource_spans(raw, start, end, translator))
    except WireError:
        raise RequestError(
            "not an ExportTraceServiceRequest: the bytes are cut short or no protobuf"
        ) from None
    return ExportedSpans(translator.take(), tuple(groups))


def _resource_spans(raw: bytes, start: int, end: int, translator: Translator) -> ResourceGroup:
    resource = b"".join(raw[slice(*place)] for place in _places(raw, start, end, 1))
    attributes, head = read_resource(resource)
    count = 0
    for number, place in enumerate(_places(raw, start, end, 2)):
        if number >= MAX_GROUPS:
            raise RequestError(f"more than {MAX_GROUPS} scopes in one resource")
        scope = b"".join(raw[slice(*inner)] for inner in _places(raw, *place, 1))
        scope_name, tail = read_scope(scope)
        count += translator.add(raw, *place, head, tail, scope_name)
    return ResourceGroup(attributes, count)


def _places(raw: bytes, position: int, end: int, wanted: int) -> Iterator[tuple[int, int]]:
    """Where the messages in the fields of that number begin and end; raises WireError."""
    while position < end:
        tag, position = read_varint(raw, position)
        after = skip_value(raw, position, tag & 7)
        if after > end:
            raise WireError("cut short within a field")
        if tag == wanted << 3 | LENGTH_DELIMITED:
            yield read_varint(raw, position)[1], after
        position = after


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
