"""One encoded Span as OTLP's, in pure Python; csrc/otlp/span_read.h and span_write.h are the
compiled twin.

Sources of the numbers: proto/span.proto; opentelemetry/proto/trace/v1/trace.proto.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Final

from infertrace.generated.otlp_attributes import INFERENCE_FIELDS, RESOURCE_FIELDS, ROWS
from infertrace.otlp import rejection_reasons as reasons
from infertrace.otlp.pure_any_value import (
    entries,
    entry,
    key_value,
    number,
    octets,
    text,
    text_key_value,
)
from infertrace.otlp.pure_reader import Value, fields
from infertrace.wire import token_intervals
from infertrace.wire.protobuf import (
    FIXED32,
    FIXED64,
    LENGTH_DELIMITED,
    VARINT,
    WireError,
    delimited,
    varint,
)

Row = tuple[str, str, str, bytes]
"""Of a row of the table: source, form, key, entry."""

_DOUBLE: Final = struct.Struct("<d").pack
_WIRE_TYPES: Final = {
    "TEXT": LENGTH_DELIMITED,
    "INTERVALS": LENGTH_DELIMITED,
    "FLOAT": FIXED32,
    "DOUBLE": FIXED64,
}
_PARENT_IS_REMOTE: Final = 0x300  # it is known, and so it is
# Milliseconds that are a time; larger ones are no delay of a request.
_MAX_DELAY_MS: Final = 1e12
_MAX_NANOS: Final = 2**63 - 1
_UINT32_MASK: Final = 2**32 - 1
_SERVER, _INTERNAL = 2, 1
_TAGS, _ATTRIBUTES, _EVENTS, _LINKS, _SCOPE_ATTRIBUTES = (
    field << 3 | LENGTH_DELIMITED for field in (9, 13, 14, 15, 26)
)
_IDS: Final = {1: "trace_id", 2: "span_id", 3: "parent"}
_TEXTS: Final = {
    4: "service",
    5: "operation",
    8: "status",
    12: "status_message",
    18: "trace_state",
    19: "scope_name",
    20: "scope_version",
}
_NUMBERS: Final = {
    17: "kind",
    21: "dropped_attributes",
    22: "dropped_events",
    23: "dropped_links",
    24: "flags",
    25: "status_code",
}


class Rejected(ValueError):
    """The span cannot be sent."""

    def __init__(self, reason: int) -> None:
        super().__init__(reasons.REASONS[reason])
        self.reason = reason


class Span:
    """What was read of an encoded Span; raises WireError or Rejected."""

    def __init__(self, encoded: bytes) -> None:
        self.texts = dict.fromkeys((*_IDS.values(), *_TEXTS.values()), b"")
        self.numbers = dict.fromkeys(_NUMBERS.values(), 0)
        self.start = self.duration = 0
        self.values: dict[str, bytes | int | float] = {}
        self.given: dict[bytes, tuple[bytes, bool]] = {}
        """Tags and attributes by key: the value, and whether it is a tag's text."""
        self.events: list[bytes] = []
        self.links: list[bytes] = []
        self.scope_attributes = False
        self.encoded = encoded
        for tag, value in fields(encoded):
            self._read(tag >> 3, tag & 7, value)
        self._judge()

    def _read(self, field: int, kind: int, value: Value) -> None:
        if kind == LENGTH_DELIMITED:
            self._read_sized(field, octets(value))
        elif kind == VARINT:
            self._read_number(field, number(value))

    def _read_sized(self, field: int, value: bytes) -> None:
        if field in _IDS:
            self.texts[_IDS[field]] = value
        elif field in _TEXTS:
            self.texts[_TEXTS[field]] = text(value)
        elif field in (9, 13):
            key, body = entry(value)
            self.given[key] = (text(body) if field == 9 else body, field == 9)
        elif field == 10:
            self._read_fields(value, INFERENCE_FIELDS)
        elif field == 11:
            self._read_fields(value, RESOURCE_FIELDS)
        elif field == 14:
            self.events.append(value)
        elif field == 15:
            self.links.append(value)
        elif field == 26:
            self.scope_attributes = True

    def _read_number(self, field: int, value: int) -> None:
        if field == 6:
            self.start = _int64(value)
        elif field == 7:
            self.duration = _int64(value)
        elif field == 16:
            self._set("invalid_field_count", value & _UINT32_MASK)
            if not value & _UINT32_MASK:
                del self.values["invalid_field_count"]
        elif field in _NUMBERS:
            self.numbers[_NUMBERS[field]] = value & _UINT32_MASK

    def _read_fields(self, message: bytes, known: Mapping[int, tuple[str, str]]) -> None:
        for tag, value in fields(message):
            name, read = known.get(tag >> 3, ("", ""))
            if not name or _WIRE_TYPES.get(read, VARINT) != tag & 7:
                continue
            if read == "TEXT":
                self._set_text(name, text(value))
            elif read == "INTERVALS":
                self._set(name, octets(value))
            elif read == "FLOAT":
                (real,) = struct.unpack("<f", number(value).to_bytes(4, "little"))
                self._set(name, real)
            elif read == "DOUBLE":
                (real,) = struct.unpack("<d", number(value).to_bytes(8, "little"))
                self._set(name, real)
            elif read == "INT32":
                low = number(value) & _UINT32_MASK
                self._set(name, low - 2**32 if low >= 2**31 else low)
            elif read == "UINT32":
                self._set(name, number(value) & _UINT32_MASK)
            else:
                self._set(name, _int64(number(value)))

    def _set(self, name: str, value: bytes | float) -> None:
        self.values[name] = value

    def _set_text(self, name: str, value: bytes) -> None:
        self.values[name] = value
        if not value:
            del self.values[name]

    def _judge(self) -> None:
        texts = self.texts
        if not _is_id(texts["trace_id"], 16):
            raise Rejected(reasons.BAD_TRACE_ID)
        if not _is_id(texts["span_id"], 8):
            raise Rejected(reasons.BAD_SPAN_ID)
        if texts["parent"] and not _is_id(texts["parent"], 8):
            raise Rejected(reasons.BAD_PARENT)
        if self.start <= 0:
            raise Rejected(reasons.BAD_START)
        if self.duration < 0:
            raise Rejected(reasons.BAD_DURATION)
        if self.start + self.duration > _MAX_NANOS:
            raise Rejected(reasons.BAD_END)
        if texts["status"] not in (b"", b"OK", b"ERROR", b"CANCELLED"):
            raise Rejected(reasons.BAD_STATUS)

    def scope(self, sdk_name: bytes, sdk_version: bytes) -> bytes:
        """The body of its InstrumentationScope; raises WireError."""
        is_own = not self.texts["scope_name"]
        out = delimited(b"\x0a", sdk_name if is_own else self.texts["scope_name"])
        out += _optional(b"\x12", sdk_version if is_own else self.texts["scope_version"])
        if self.scope_attributes:
            out += entries(self.encoded, _SCOPE_ATTRIBUTES, b"\x1a")
        return out

    def write(self, rows: Sequence[Row]) -> bytes:
        """The body of OTLP's Span; raises WireError or Rejected."""
        self._derive()
        texts, numbers = self.texts, self.numbers
        out = [
            delimited(b"\x0a", texts["trace_id"]),
            delimited(b"\x12", texts["span_id"]),
            _optional(b"\x1a", texts["trace_state"]),
            _optional(b"\x22", texts["parent"]),
            _optional(b"\x2a", self._name()),
            b"\x30" + varint(self._kind()),
            b"\x39" + self.start.to_bytes(8, "little"),
            b"\x41" + (self.start + self.duration).to_bytes(8, "little"),
            *self._attributes(rows),
            _count(b"\x50", numbers["dropped_attributes"]),
            *map(_event, self.events),
            *self._made_events(rows),
            _count(b"\x60", numbers["dropped_events"]),
            *map(_link, self.links),
            _count(b"\x70", numbers["dropped_links"]),
            self._status(),
        ]
        if numbers["flags"]:
            out.append(b"\x85\x01" + numbers["flags"].to_bytes(4, "little"))
        return b"".join(out)

    def _derive(self) -> None:
        values = self.values
        if "model_name" in values:
            self._set_text("operation", self._operation())
        if "time_to_first_token_ms" in values or "queue_wait_time_ms" in values:
            values["duration_nanos"] = self.duration
        tokens = [values[name] for name in ("input_tokens", "output_tokens") if name in values]
        if tokens:
            values["total_tokens"] = sum(it for it in tokens if isinstance(it, int))
            values["usage"] = 0
        if self.texts["status"] == b"CANCELLED":
            values["error_type"] = b"cancelled"
            values["status"] = b"CANCELLED"
        elif self.texts["status"] == b"ERROR" and not self.numbers["status_code"]:
            values["error_type"] = _exception_type(self.events) or b"_OTHER"

    def _is_inference(self) -> bool:
        return self.texts["operation"] in (b"", b"inference")

    def _operation(self) -> bytes:
        if not self._is_inference():
            return self.texts["operation"]
        generating = (
            "input_tokens",
            "output_tokens",
            "time_to_first_token_ms",
            "inter_token_latency_ms",
        )
        return b"text_completion" if self.values.keys() & set(generating) else b"inference"

    def _name(self) -> bytes:
        model = self.values.get("model_name")
        if not isinstance(model, bytes) or self.texts["scope_name"] or not self._is_inference():
            return self.texts["operation"]
        self._set_text("operation_name", self.texts["operation"])
        return b"%b %b" % (self._operation(), model)

    def _kind(self) -> int:
        is_remote = self.numbers["flags"] & _PARENT_IS_REMOTE == _PARENT_IS_REMOTE
        return self.numbers["kind"] or (_SERVER if is_remote else _INTERNAL)

    def _attributes(self, rows: Sequence[Row]) -> list[bytes]:
        out = [
            text_key_value(key, value) if is_tag else key_value(key, value)
            for key, (value, is_tag) in self.given.items()
        ]
        for source, form, key, head in rows:
            if source in self.values and key.encode() not in self.given:
                made = self._row(form, head, self.values[source])
                if made:
                    out.append(made)
        return [delimited(b"\x4a", made) for made in out]

    def _row(self, form: str, head: bytes, value: bytes | float) -> bytes:
        if form == "CONSTANT":
            return head
        if form == "EVENT":  # follows the attributes
            return b""
        made = self._value(form, value)
        return head + delimited(b"", made) if made else b""

    def _value(self, form: str, value: bytes | float) -> bytes:
        if form == "JSON":
            return delimited(b"\x0a", self._usage())
        if isinstance(value, bytes):
            if form == "LIST":
                texts = (delimited(b"\x0a", part) for part in value.split(b","))
                return delimited(b"\x2a", b"".join(delimited(b"\x0a", it) for it in texts))
            if form == "INTERVALS":
                offset, counts = token_intervals.decode(value)
                numbers = (delimited(b"\x0a", b"\x18" + varint(it)) for it in (offset, *counts))
                return delimited(b"\x2a", b"".join(numbers))
            return delimited(b"\x0a", value)
        if form == "INT":
            return b"\x18" + varint(int(value))
        if form == "ISO_TIME":
            time_ns = self._time_after(value)
            return delimited(b"\x0a", _iso_time(time_ns)) if time_ns else b""
        divisor = {"MILLISECONDS": 1e3, "NANOSECONDS": 1e9}.get(form)
        return b"\x21" + _DOUBLE(value if divisor is None else value / divisor)

    def _usage(self) -> bytes:
        names = {"input": "input_tokens", "output": "output_tokens", "total": "total_tokens"}
        said = [
            f'"{name}":{self.values[field]!r}'
            for name, field in names.items()
            if field in self.values
        ]
        return f"{{{','.join(said)}}}".encode()

    def _time_after(self, milliseconds: float) -> int:
        """When something happened that long after the start; 0 where that is no time."""
        if not 0 <= milliseconds <= _MAX_DELAY_MS:
            return 0
        time_ns = self.start + int(milliseconds * 1e6)
        return time_ns if time_ns <= _MAX_NANOS else 0

    def _made_events(self, rows: Sequence[Row]) -> list[bytes]:
        out = []
        for source, form, _, name in rows:
            value = self.values.get(source)
            if form == "EVENT" and isinstance(value, float):
                time_ns = self._time_after(value)
                if time_ns:
                    body = b"\x09" + time_ns.to_bytes(8, "little") + delimited(b"\x12", name)
                    out.append(delimited(b"\x5a", body))
        return out

    def _status(self) -> bytes:
        is_ok = self.texts["status"] in (b"", b"OK")
        code = int(self.numbers["status_code"] == 1) if is_ok else 2
        body = _optional(b"\x12", self.texts["status_message"]) + _count(b"\x18", code)
        return delimited(b"\x7a", body) if body else b""


@functools.cache
def choose_rows(conventions: int) -> tuple[Row, ...]:
    """The rows that apply to these conventions."""
    return tuple(
        (source, form, key, head)
        for source, form, bits, carried, key, head in ROWS
        if (bits & conventions if bits else not carried & conventions)
    )


def _int64(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _is_id(value: bytes, size: int) -> bool:
    return len(value) == size and any(value)


def _optional(tag: bytes, body: bytes) -> bytes:
    return delimited(tag, body) if body else b""


def _count(tag: bytes, value: int) -> bytes:
    return tag + varint(value) if value else b""


def _iso_time(unix_nanos: int) -> bytes:
    """RFC 3339, UTC, nine decimals."""
    seconds, nanos = divmod(unix_nanos, 10**9)
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{nanos:09}Z".encode()


def _event(message: bytes) -> bytes:
    time_ns = dropped = 0
    name = b""
    for tag, value in fields(message):
        if tag == 0x08:
            time_ns = number(value)
        elif tag == 0x12:
            name = text(value)
        elif tag == 0x20:
            dropped = number(value) & _UINT32_MASK
    body = b"\x09" + time_ns.to_bytes(8, "little") if time_ns else b""
    body += _optional(b"\x12", name) + entries(message, 0x1A, b"\x1a")
    return delimited(b"\x5a", body + _count(b"\x20", dropped))


def _link(message: bytes) -> bytes:
    ids = {0x0A: b"", 0x12: b""}
    state = b""
    numbers = {0x28: 0, 0x30: 0}
    for tag, value in fields(message):
        if tag in ids:
            ids[tag] = octets(value)
        elif tag == 0x22:
            state = text(value)
        elif tag in numbers:
            numbers[tag] = number(value) & _UINT32_MASK
    if not (_is_id(ids[0x0A], 16) and _is_id(ids[0x12], 8)):
        raise Rejected(reasons.BAD_LINK)
    body = delimited(b"\x0a", ids[0x0A]) + delimited(b"\x12", ids[0x12])
    body += _optional(b"\x1a", state) + entries(message, 0x1A, b"\x22")
    body += _count(b"\x28", numbers[0x28])
    if numbers[0x30]:
        body += b"\x35" + numbers[0x30].to_bytes(4, "little")
    return delimited(b"\x6a", body)


def _exception_type(events: Sequence[bytes]) -> bytes:
    """The value of `exception.type` in the last event named `exception`; empty if there is none.

    What cannot be read of an event ends the look at it: its span is rejected where it is written.
    """
    found = b""
    for event in events:
        name = kind = b""
        for tag, value in fields(event):
            if tag == 0x12:
                name = text(value)
            elif tag == 0x1A:
                key, body = entry(octets(value))
                if key == b"exception.type":
                    kind = single_text(body) or kind
        if name == b"exception" and kind:
            found = kind
    return found


def single_text(value: bytes) -> bytes:
    """The text of an AttributeValue that begins with one; empty for any other."""
    if not value.startswith(b"\x0a"):
        return b""
    try:
        return text(next(fields(value))[1])
    except WireError:
        return b""
