"""The top level of a request's bytes, read before anything is decoded.

Both requests of the service carry their spans in field 1. Decoding turns two bytes of an empty
message into more than a hundred bytes of objects, so what is decoded is counted first.
https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_SPANS = 65_536  # in one request
MAX_OTHER_FIELDS = 4_096  # of the request beside its spans
MAX_EVENTS_AND_LINKS = 262_144  # in all spans of one request

_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5
_SPAN_TAG = 1 << 3 | _LENGTH_DELIMITED
_EVENT_TAG = 14 << 3 | _LENGTH_DELIMITED
_LINK_TAG = 15 << 3 | _LENGTH_DELIMITED


class RequestError(ValueError):
    """The request as a whole cannot be taken; the text says why."""


@dataclass(frozen=True)
class RequestFields:
    """The positions of the spans in a request, and the bytes of its other fields."""

    spans: list[slice]
    others: bytes


def request_fields(raw: bytes) -> RequestFields:
    """Split a request into spans and the rest; RequestError if malformed or above a limit."""
    spans: list[slice] = []
    others: list[bytes] = []
    position = 0
    end = len(raw)
    try:
        while position < end:
            start = position
            if raw[position] == _SPAN_TAG:
                length, position = _varint(raw, position + 1)
                spans.append(slice(position, position + length))
                position += length
                if len(spans) > MAX_SPANS:
                    raise RequestError(f"more than {MAX_SPANS} spans in one request")
            else:
                position = _skip(raw, position)
                others.append(raw[start:position])
                if len(others) > MAX_OTHER_FIELDS:
                    raise RequestError(f"more than {MAX_OTHER_FIELDS} fields beside the spans")
    except IndexError:
        position = end + 1
    if position > end:
        raise RequestError("the request is cut short or is not protobuf")
    _bound_events_and_links(raw, spans)
    return RequestFields(spans, b"".join(others))


def last_span(raw: bytes) -> bytes:
    """The request reduced to its last span, or to a malformed one where it has none."""
    fields = request_fields(raw)
    if not fields.spans:
        return bytes((_SPAN_TAG, 1, 0))
    span = raw[fields.spans[-1]]
    size, length = len(span), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes((_SPAN_TAG, *length, size)) + span


def _bound_events_and_links(raw: bytes, spans: list[slice]) -> None:
    # A count of bytes is cheap and never too low; only where it exceeds the limit, walk the spans.
    if raw.count(_EVENT_TAG) + raw.count(_LINK_TAG) <= MAX_EVENTS_AND_LINKS:
        return
    count = 0
    for span in spans:
        position = span.start
        try:
            while position < span.stop:
                count += raw[position] in (_EVENT_TAG, _LINK_TAG)
                if count > MAX_EVENTS_AND_LINKS:
                    break
                position = _skip(raw, position)
        except (IndexError, RequestError):
            continue  # this span will be rejected by itself
        if count > MAX_EVENTS_AND_LINKS:
            raise RequestError(f"more than {MAX_EVENTS_AND_LINKS} events and links in one request")


def _skip(raw: bytes, position: int) -> int:
    """The position after the field that starts at `position`."""
    tag, position = _varint(raw, position)
    wire_type = tag & 7
    if wire_type == _VARINT:
        return _varint(raw, position)[1]
    if wire_type == _LENGTH_DELIMITED:
        length, position = _varint(raw, position)
        return position + length
    if wire_type == _FIXED64:
        return position + 8
    if wire_type == _FIXED32:
        return position + 4
    raise RequestError("the request is not protobuf")


def _varint(raw: bytes, position: int) -> tuple[int, int]:
    byte = raw[position]
    if byte < 0x80:
        return byte, position + 1
    value = byte & 0x7F
    for shift in range(7, 70, 7):
        position += 1
        byte = raw[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position + 1
    raise RequestError("the request is not protobuf")
