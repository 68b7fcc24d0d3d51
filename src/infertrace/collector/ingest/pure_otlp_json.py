"""OTLP in JSON as the same request in protobuf, without the protobuf runtime.

The mapping is that of protobuf (https://protobuf.dev/programming-guides/json/) with what OTLP
changes (https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding): ids are hexadecimal,
enums are integers, unknown names are ignored. What senders do otherwise is understood too: names
of enums, integers as floats. The numbers of the fields are those of opentelemetry-proto:
https://github.com/open-telemetry/opentelemetry-proto, trace/v1/trace.proto and beside it.

csrc/collector/otlp_json.pyx is its compiled twin, and asks this one where something is unusual.
"""

from __future__ import annotations

import gc
import json
import re
import struct
from base64 import b64decode
from decimal import Decimal, InvalidOperation

from infertrace.collector.ingest.wire_fields import RequestError, RequestTooLargeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

NAME: Final = "pure"
MAX_JSON_BYTES: Final = 64 * 1024 * 1024
# Of brackets, braces and commas: of each value, Python makes objects of a hundred bytes and more.
MAX_JSON_MARKS: Final = 8 * 1024 * 1024
MAX_DEPTH: Final = 32  # of arrays and maps in the value of an attribute
MAX_KNOWN_KEYS: Final = 4_096

_SPAN_KINDS: Final = {
    f"SPAN_KIND_{name}": number
    for number, name in enumerate(
        ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
    )
}
_STATUS_CODES: Final = {
    "STATUS_CODE_UNSET": 0,
    "STATUS_CODE_OK": 1,
    "STATUS_CODE_ERROR": 2,
}
_DOUBLES: Final = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": -float("inf")}
_NUMBER: Final = re.compile(r"-?[0-9]{1,400}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,4})?", re.ASCII)
_NOT_A_SPAN: Final = b"\x12\x01\x00"  # a span whose only field has the number 0

_double: Final = struct.Struct("<d").pack
_fixed64: Final = struct.Struct("<Q").pack
_fixed32: Final = struct.Struct("<I").pack


class _WrongError(ValueError):
    """A value is not what it has to be."""


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_VARINTS: Final = tuple(_varint(value) for value in range(16_384))
_known_keys: dict[str, bytes] = {}


def export_request(text: bytes) -> bytes:
    """The bytes of an ExportTraceServiceRequest.

    A span with a value of the wrong type becomes one that no decoder accepts, so it rejects itself.
    Raises RequestError where the text is no JSON object, or where what holds the spans is not
    what it has to be.
    """
    check_size(text)
    # The collector of garbage would walk through the new objects several times, which more than
    # doubles the time of parsing, and none of them is in a cycle.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return _export_request(_parsed(text))
    finally:
        if was_enabled:
            gc.enable()


def check_size(text: bytes) -> None:
    """Raises RequestTooLargeError where a text has more bytes or values than one may have."""
    marks = text.count(b",") + text.count(b"[") + text.count(b"{")
    if len(text) > MAX_JSON_BYTES or marks > MAX_JSON_MARKS:
        raise RequestTooLargeError(
            f"body: expected at most {MAX_JSON_BYTES} bytes and {MAX_JSON_MARKS} values in JSON"
        )


def _parsed(text: bytes) -> Any:
    try:
        request = json.loads(text.decode("utf-8-sig"))
    except RecursionError:
        raise RequestError("body: the JSON is nested too deeply") from None
    except ValueError as error:
        raise RequestError(f"body: not JSON: {error}") from None
    if not isinstance(request, dict):
        raise RequestError("body: expected a JSON object")
    return request


def _export_request(request: Any) -> bytes:
    out = bytearray()
    for index, group in enumerate(_groups(request, "resourceSpans", "")):
        path = f"resourceSpans[{index}]"
        _delimited(out, b"\x0a", _resource_spans(group, path))
    return bytes(out)


def _groups(holder: Any, name: str, path: str) -> list[Any]:
    """The list under a name, which holds spans further down."""
    found = holder.get(name)
    if found is None:
        return []
    path = f"{path}.{name}" if path else name
    if not isinstance(found, list):
        raise RequestError(f"{path}: expected an array")
    if name != "spans":
        for index, group in enumerate(found):
            if not isinstance(group, dict):
                raise RequestError(f"{path}[{index}]: expected an object")
    return found


def _resource_spans(group: Any, path: str) -> bytearray:
    out = bytearray()
    try:
        if (resource := group.get("resource")) is not None:
            out += resource_field(resource)
    except (ValueError, TypeError, AttributeError, struct.error) as error:
        raise RequestError(f"{path}.resource: not what it has to be: {error}") from None
    for index, scope in enumerate(_groups(group, "scopeSpans", path)):
        _delimited(out, b"\x12", _scope_spans(scope, f"{path}.scopeSpans[{index}]"))
    _schema_url(out, group, path)
    return out


def _scope_spans(group: Any, path: str) -> bytearray:
    out = bytearray()
    try:
        if (scope := group.get("scope")) is not None:
            out += scope_field(scope)
    except (ValueError, TypeError, AttributeError, struct.error) as error:
        raise RequestError(f"{path}.scope: not what it has to be: {error}") from None
    for span in _groups(group, "spans", path):
        out += span_field(span)
    _schema_url(out, group, path)
    return out


def resource_field(resource: Any) -> bytearray:
    """The field of a ResourceSpans that has its resource. Raises what a wrong value raises."""
    out, body = bytearray(), bytearray()
    _attributes(body, b"\x0a", resource.get("attributes"), 0)
    _uint32(body, b"\x10", resource.get("droppedAttributesCount"))
    _delimited(out, b"\x0a", body)
    return out


def scope_field(scope: Any) -> bytearray:
    """The field of a ScopeSpans that has its scope. Raises what a wrong value raises."""
    out, body = bytearray(), bytearray()
    _string(body, b"\x0a", scope.get("name"))
    _string(body, b"\x12", scope.get("version"))
    _attributes(body, b"\x1a", scope.get("attributes"), 0)
    _uint32(body, b"\x20", scope.get("droppedAttributesCount"))
    _delimited(out, b"\x0a", body)
    return out


def span_field(span: Any) -> bytes | bytearray:
    """The field of a ScopeSpans that has this span, or one that rejects itself."""
    out = bytearray()
    try:
        _delimited(out, b"\x12", _span(span))
    except (ValueError, TypeError, AttributeError, struct.error):
        return _NOT_A_SPAN
    return out


def schema_url_field(url: Any) -> bytearray:
    """The field of either that names a schema. Raises ValueError for what is no text."""
    out = bytearray()
    _string(out, b"\x1a", url)
    return out


def delimited(tag: bytes, body: Any) -> bytearray:
    """A field with a length."""
    out = bytearray()
    _delimited(out, tag, body)
    return out


def _schema_url(out: bytearray, group: Any, path: str) -> None:
    try:
        out += schema_url_field(group.get("schemaUrl"))
    except ValueError:
        raise RequestError(f"{path}.schemaUrl: expected a text") from None


def _span(span: Any) -> bytearray:
    get = span.get
    out = bytearray()
    _id(out, b"\x0a", get("traceId"))
    _id(out, b"\x12", get("spanId"))
    _string(out, b"\x1a", get("traceState"))
    _id(out, b"\x22", get("parentSpanId"))
    _string(out, b"\x2a", get("name"))
    _enum(out, b"\x30", get("kind"), _SPAN_KINDS)
    _time(out, b"\x39", get("startTimeUnixNano"))
    _time(out, b"\x41", get("endTimeUnixNano"))
    _attributes(out, b"\x4a", get("attributes"), 0)
    _uint32(out, b"\x50", get("droppedAttributesCount"))
    if (events := get("events")) is not None:
        for event in _list(events):
            _delimited(out, b"\x5a", _event(event))
    _uint32(out, b"\x60", get("droppedEventsCount"))
    if (links := get("links")) is not None:
        for link in _list(links):
            _delimited(out, b"\x6a", _link(link))
    _uint32(out, b"\x70", get("droppedLinksCount"))
    if (status := get("status")) is not None:
        body = bytearray()
        _string(body, b"\x12", status.get("message"))
        _enum(body, b"\x18", status.get("code"), _STATUS_CODES)
        _delimited(out, b"\x7a", body)
    _flags(out, b"\x85\x01", get("flags"))
    return out


def _event(event: Any) -> bytearray:
    out = bytearray()
    _time(out, b"\x09", event.get("timeUnixNano"))
    _string(out, b"\x12", event.get("name"))
    _attributes(out, b"\x1a", event.get("attributes"), 0)
    _uint32(out, b"\x20", event.get("droppedAttributesCount"))
    return out


def _link(link: Any) -> bytearray:
    out = bytearray()
    _id(out, b"\x0a", link.get("traceId"))
    _id(out, b"\x12", link.get("spanId"))
    _string(out, b"\x1a", link.get("traceState"))
    _attributes(out, b"\x22", link.get("attributes"), 0)
    _uint32(out, b"\x28", link.get("droppedAttributesCount"))
    _flags(out, b"\x35", link.get("flags"))
    return out


def _attributes(out: bytearray, tag: bytes, attributes: Any, depth: int) -> None:
    if attributes is None:
        return
    for attribute in _list(attributes):
        key = attribute.get("key")
        body = _known_keys.get(key) if type(key) is str else None
        if body is None:
            body = _key(key)
        value = attribute.get("value")
        if value is not None:
            encoded = _any_value(value, depth)
            body = body + b"\x12" + _length(encoded) + encoded
        out += tag
        out += _length(body)
        out += body


def _key(key: Any) -> bytes:
    out = bytearray()
    _string(out, b"\x0a", key)
    body = bytes(out)
    if len(body) < 128 and type(key) is str:
        if len(_known_keys) >= MAX_KNOWN_KEYS:
            _known_keys.clear()
        _known_keys[key] = body
    return body


def _any_value(value: Any, depth: int) -> bytes:
    """An AnyValue; of several members the last counts, as in protobuf."""
    out = b""
    for name, given in value.items():
        if given is None:
            continue
        if name == "stringValue":
            raw = _utf8(given)
            out += b"\x0a" + _length(raw) + raw
        elif name == "intValue":
            number = given if type(given) is int else _integer(given)
            if not -(2**63) <= number < 2**63:
                raise _WrongError("intValue")
            number &= 0xFFFF_FFFF_FFFF_FFFF
            out += b"\x18" + (_VARINTS[number] if number < 16_384 else _varint(number))
        elif name == "doubleValue":
            out += b"\x21" + _double(given if type(given) is float else _float(given))
        elif name == "boolValue":
            if type(given) is not bool:
                raise _WrongError(name)
            out += b"\x10\x01" if given else b"\x10\x00"
        elif name == "bytesValue":
            raw = _base64(given)
            out += b"\x3a" + _length(raw) + raw
        elif name == "arrayValue" or name == "kvlistValue":
            if depth >= MAX_DEPTH:
                raise _WrongError("too deep")
            body = bytearray()
            if name == "kvlistValue":
                _attributes(body, b"\x0a", given.get("values"), depth + 1)
            elif (values := given.get("values")) is not None:
                for each in _list(values):
                    _delimited(body, b"\x0a", _any_value(each, depth + 1))
            out += (b"\x2a" if name == "arrayValue" else b"\x32") + _length(body) + bytes(body)
    return out


def _length(body: Any) -> bytes:
    size = len(body)
    return _VARINTS[size] if size < 16_384 else _varint(size)


def _delimited(out: bytearray, tag: bytes, body: Any) -> None:
    out += tag
    out += _length(body)
    out += body


def _list(value: Any) -> Any:
    if type(value) is not list:
        raise _WrongError("expected an array")
    return value


def _utf8(text: Any) -> bytes:
    if type(text) is not str:
        raise _WrongError("expected a text")
    try:
        return text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can write
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def _string(out: bytearray, tag: bytes, text: Any) -> None:
    if text is not None and text != "":
        raw = _utf8(text)
        out += tag
        out += _length(raw)
        out += raw


def _id(out: bytearray, tag: bytes, text: Any) -> None:
    if text is None or text == "":
        return
    if type(text) is not str:
        raise _WrongError("expected a text")
    raw = bytes.fromhex(text)
    if 2 * len(raw) != len(text):  # white space
        raise _WrongError("expected hexadecimal digits")
    out += tag
    out += _length(raw)
    out += raw


def _integer(value: Any) -> int:
    """An integer that is written as a text, or with a fraction of zero."""
    kind = type(value)
    if kind is int:
        return int(value)
    if kind is str and len(value) < 20 and value.isdigit() and value.isascii():
        return int(value)
    if kind is float and value.is_integer():
        return int(value)
    if kind is str and len(value) < 64 and _NUMBER.fullmatch(value):
        try:
            number = Decimal(value)
            if number.adjusted() < 20 and number == number.to_integral_value():
                return int(number)
        except InvalidOperation:
            pass
    raise _WrongError("expected an integer")


def _float(value: Any) -> float:
    kind = type(value)
    if kind is float:
        return float(value)
    try:
        if kind is int:
            return float(value)
        if kind is str:
            if value in _DOUBLES:
                return _DOUBLES[value]
            if _NUMBER.fullmatch(value):
                return float(value)
    except OverflowError:
        pass
    raise _WrongError("expected a number")


def _base64(text: Any) -> bytes:
    """Either alphabet, with or without padding."""
    if type(text) is not str:
        raise _WrongError("expected a text")
    plain = text.replace("-", "+").replace("_", "/").rstrip("=")
    return b64decode(plain + "=" * (-len(plain) % 4), validate=True)


def _time(out: bytearray, tag: bytes, value: Any) -> None:
    """A fixed64."""
    if value is not None:
        number = _integer(value)
        if number:
            out += tag
            out += _fixed64(number)


def _uint32(out: bytearray, tag: bytes, value: Any) -> None:
    if value is not None:
        number = _integer(value)
        if not 0 <= number < 2**32:
            raise _WrongError("expected 32 bits")
        if number:
            out += tag
            out += _varint(number)


def _flags(out: bytearray, tag: bytes, value: Any) -> None:
    """A fixed32."""
    if value is not None:
        number = _integer(value)
        if number:
            out += tag
            out += _fixed32(number)


def _enum(out: bytearray, tag: bytes, value: Any, names: dict[str, int]) -> None:
    if value is None:
        return
    if type(value) is str and value in names:
        value = names[value]
    number = _integer(value)
    if not -(2**31) <= number < 2**31:
        raise _WrongError("expected 32 bits")
    if number:
        out += tag
        out += _varint(number & 0xFFFF_FFFF_FFFF_FFFF)
