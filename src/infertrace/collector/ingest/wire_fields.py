"""The top level of a request's bytes, read before anything is decoded.

Both requests of the service carry their spans in field 1. Decoding turns two bytes of an empty
message into more than a hundred bytes of objects, so what is decoded is counted first.
https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from dataclasses import dataclass

from infertrace.wire.protobuf import (
    LENGTH_DELIMITED,
    TruncatedError,
    WireError,
    delimited,
    read_varint,
    skip_field,
)

MAX_SPANS = 65_536  # in one request
MAX_OTHER_FIELDS = 4_096  # of the request beside its spans
MAX_EVENTS_AND_LINKS = 262_144  # in all spans of one request

_SPAN_TAG = 1 << 3 | LENGTH_DELIMITED
_EVENT_TAG = 14 << 3 | LENGTH_DELIMITED
_LINK_TAG = 15 << 3 | LENGTH_DELIMITED


class RequestError(ValueError):
    """The request as a whole cannot be taken; the text says why."""


class RequestTooLargeError(RequestError):
    """The request has more bytes than one may have."""


@dataclass(frozen=True)
class RequestFields:
    """The positions of the spans in a request, and the bytes of its other fields."""

    spans: list[slice]
    others: bytes


def request_fields(
    raw: bytes, max_spans: int | None = None, max_nested: int | None = None
) -> RequestFields:
    """Split a request into spans and the rest; RequestError if malformed or above a limit.

    The limits are of spans, and of events and links in all spans.
    """
    max_spans = MAX_SPANS if max_spans is None else max_spans
    max_nested = MAX_EVENTS_AND_LINKS if max_nested is None else max_nested
    spans: list[slice] = []
    others: list[bytes] = []
    position = 0
    end = len(raw)
    try:
        while position < end:
            start = position
            if raw[position] == _SPAN_TAG:
                length, position = read_varint(raw, position + 1)
                spans.append(slice(position, position + length))
                position += length
                if len(spans) > max_spans:
                    raise RequestError(f"more than {max_spans} spans in one request")
            else:
                position = skip_field(raw, position)
                others.append(raw[start:position])
                if len(others) > MAX_OTHER_FIELDS:
                    raise RequestError(f"more than {MAX_OTHER_FIELDS} fields beside the spans")
    except TruncatedError:
        position = end + 1
    except WireError:
        raise RequestError("the request is not protobuf") from None
    if position > end:
        raise RequestError("the request is cut short or is not protobuf")
    _bound_events_and_links(raw, spans, max_nested)
    return RequestFields(spans, b"".join(others))


def last_span(raw: bytes) -> bytes:
    """The request reduced to its last span, or to a malformed one where it has none."""
    fields = request_fields(raw)
    if not fields.spans:
        return bytes((_SPAN_TAG, 1, 0))
    return delimited(bytes((_SPAN_TAG,)), raw[fields.spans[-1]])


def _bound_events_and_links(raw: bytes, spans: list[slice], limit: int) -> None:
    # A count of bytes is cheap and never too low; only where it exceeds the limit, walk the spans.
    if raw.count(_EVENT_TAG) + raw.count(_LINK_TAG) <= limit:
        return
    count = 0
    for span in spans:
        position = span.start
        try:
            while position < span.stop:
                count += raw[position] in (_EVENT_TAG, _LINK_TAG)
                if count > limit:
                    break
                position = skip_field(raw, position)
        except WireError:
            continue  # this span will be rejected by itself
        if count > limit:
            raise RequestError(f"more than {limit} events and links in one request")
