"""Bytes of OTLP as OTLP in JSON, field for field.

Sources: https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding; of the numbers:
opentelemetry/proto/trace/v1/trace.proto, common/v1/common.proto, resource/v1/resource.proto.
"""

from __future__ import annotations

import struct
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from infertrace.otlp.pure_reader import Value, fields

JsonObject = dict[str, Any]


class _Field(NamedTuple):
    name: str
    read: Callable[[Value], object]
    is_list: bool = False


def read_request(request: bytes) -> JsonObject:
    """An ExportTraceServiceRequest; fields that have no name here are left out.

    Raises WireError where the bytes are no protobuf.
    """
    return _message(_REQUEST)(request)


def double_json(value: float) -> object:
    """A double as protobuf's JSON has it, which has no numbers that are none."""
    if value != value:
        return "NaN"
    return {float("inf"): "Infinity", -float("inf"): "-Infinity"}.get(value, value)


def bytes_json(value: bytes) -> str:
    return b64encode(value).decode()


def _message(known: Mapping[int, _Field]) -> Callable[[Value], JsonObject]:
    def read(value: Value) -> JsonObject:
        assert isinstance(value, bytes)
        found: JsonObject = {}
        for tag, inner in fields(value):
            field = known.get(tag)
            if field is None:
                continue
            if field.is_list:
                found.setdefault(field.name, []).append(field.read(inner))
            else:
                found[field.name] = field.read(inner)
        return found

    return read


def _text(value: Value) -> str:
    assert isinstance(value, bytes)
    return value.decode(errors="replace")


def _id(value: Value) -> str:
    assert isinstance(value, bytes)
    return value.hex()


def _octets(value: Value) -> str:
    assert isinstance(value, bytes)
    return bytes_json(value)


def _number(value: Value) -> int:
    assert isinstance(value, int)
    return value


def _number_text(value: Value) -> str:
    return str(_number(value))


def _int64_text(value: Value) -> str:
    number = _number(value)
    return str(number - 2**64 if number >> 63 else number)


def _double(value: Value) -> object:
    return double_json(struct.unpack("<d", _number(value).to_bytes(8, "little"))[0])


def _any_value(value: Value) -> JsonObject:
    return _message(_ANY_VALUE)(value)


def _key_value(value: Value) -> JsonObject:
    return {"key": "", **_message(_KEY_VALUE)(value)}


_MEMBERS: Final = {0x0A: _Field("values", _any_value, True)}
_PAIRS: Final = {0x0A: _Field("values", _key_value, True)}
_ANY_VALUE: Final = {
    0x0A: _Field("stringValue", _text),
    0x10: _Field("boolValue", bool),
    0x18: _Field("intValue", _int64_text),
    0x21: _Field("doubleValue", _double),
    0x2A: _Field("arrayValue", _message(_MEMBERS)),
    0x32: _Field("kvlistValue", _message(_PAIRS)),
    0x3A: _Field("bytesValue", _octets),
}
_KEY_VALUE: Final = {0x0A: _Field("key", _text), 0x12: _Field("value", _any_value)}
_EVENT: Final = {
    0x09: _Field("timeUnixNano", _number_text),
    0x12: _Field("name", _text),
    0x1A: _Field("attributes", _key_value, True),
    0x20: _Field("droppedAttributesCount", _number),
}
_LINK: Final = {
    0x0A: _Field("traceId", _id),
    0x12: _Field("spanId", _id),
    0x1A: _Field("traceState", _text),
    0x22: _Field("attributes", _key_value, True),
    0x28: _Field("droppedAttributesCount", _number),
    0x35: _Field("flags", _number),
}
_STATUS: Final = {0x12: _Field("message", _text), 0x18: _Field("code", _number)}
_SPAN: Final = {
    0x0A: _Field("traceId", _id),
    0x12: _Field("spanId", _id),
    0x1A: _Field("traceState", _text),
    0x22: _Field("parentSpanId", _id),
    0x2A: _Field("name", _text),
    0x30: _Field("kind", _number),
    0x39: _Field("startTimeUnixNano", _number_text),
    0x41: _Field("endTimeUnixNano", _number_text),
    0x4A: _Field("attributes", _key_value, True),
    0x50: _Field("droppedAttributesCount", _number),
    0x5A: _Field("events", _message(_EVENT), True),
    0x60: _Field("droppedEventsCount", _number),
    0x6A: _Field("links", _message(_LINK), True),
    0x70: _Field("droppedLinksCount", _number),
    0x7A: _Field("status", _message(_STATUS)),
    0x85: _Field("flags", _number),
}
_SCOPE: Final = {
    0x0A: _Field("name", _text),
    0x12: _Field("version", _text),
    0x1A: _Field("attributes", _key_value, True),
    0x20: _Field("droppedAttributesCount", _number),
}
_RESOURCE: Final = {
    0x0A: _Field("attributes", _key_value, True),
    0x10: _Field("droppedAttributesCount", _number),
}
_SCOPE_SPANS: Final = {
    0x0A: _Field("scope", _message(_SCOPE)),
    0x12: _Field("spans", _message(_SPAN), True),
    0x1A: _Field("schemaUrl", _text),
}
_RESOURCE_SPANS: Final = {
    0x0A: _Field("resource", _message(_RESOURCE)),
    0x12: _Field("scopeSpans", _message(_SCOPE_SPANS), True),
    0x1A: _Field("schemaUrl", _text),
}
_REQUEST: Final = {0x0A: _Field("resourceSpans", _message(_RESOURCE_SPANS), True)}
