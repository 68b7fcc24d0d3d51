"""Spans as a trace that Perfetto opens: tracks of requests, steps of engines, counters of GPUs.

Written by hand because it is a dozen fields: nanoseconds stay exact, and no dependency is needed.
Source: Perfetto, protos/perfetto/trace/track_event/ and docs/reference/synthetic-track-event.md.
"""

from __future__ import annotations

import json
import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from infertrace.collector.store.span_filter import COLUMN_INDEX, Row
from infertrace.wire.protobuf import FIXED64, LENGTH_DELIMITED, VARINT, delimited, varint

_REALTIME, _BOOTTIME = 1, 6  # clocks of ClockSnapshot
_SEQUENCE = 1
_BEGIN, _END, _COUNTER = 1, 2, 4  # TrackEvent.Type
_SHOWN = (
    "trace_id",
    "span_id",
    "status",
    "status_message",
    "model_name",
    "request_id",
    "finish_reason",
    "input_tokens",
    "output_tokens",
    "queue_wait_time_ms",
    "scheduled_after_ms",
    "time_to_first_token_ms",
    "inter_token_latency_ms",
    "max_inter_token_latency_ms",
    "batch_size",
    "batch_fill_ratio",
    "prefill_tokens",
    "decode_tokens",
    "queue_depth",
    "kv_cache_usage",
    "step_index",
    "first_step",
    "last_step",
)
_COUNTERS = (
    ("gpu_utilization_percent", "%"),
    ("gpu_memory_used_bytes", "bytes"),
    ("gpu_power_watts", "W"),
    ("gpu_temperature_celsius", "°C"),
)


def perfetto_trace(rows: Sequence[Row]) -> bytes:
    """A message perfetto.protos.Trace of these spans.

    A service is a process there. The spans of a trace share its tracks: one that overlaps another,
    and is not below it, gets a further track. A step is on the track of its engine. Arrows lead
    from a request to its first and its last step, and along links. Counters tell what GPUs read
    when a span ended.
    """
    spans = sorted(map(_span, rows), key=lambda span: (span.start_ns, -span.end_ns))
    flows = _flows(spans)
    packets = [_clocks(spans[0].start_ns if spans else 0)]
    processes = {span.service for span in spans}
    packets += [_process(service, number) for number, service in enumerate(sorted(processes), 1)]
    for track in _tracks(spans):
        packets.append(_track(track.uuid, _uuid("process", track.service), track.name))
        packets += _slices(track, flows)
    packets += _counters(spans)
    return b"".join(delimited(_tag(1, LENGTH_DELIMITED), packet) for packet in packets)


@dataclass
class _Span:
    values: dict[str, Any]
    start_ns: int
    end_ns: int
    service: str
    parent: int | None
    key: tuple[Any, int]

    @property
    def name(self) -> str:
        step = self.values.get("step_index")
        operation = self.values.get("operation_name") or "span"
        return operation if step is None else f"{operation} {step}"


@dataclass
class _Track:
    uuid: int
    service: str
    name: str
    spans: list[_Span] = field(default_factory=list)
    open: list[_Span] = field(default_factory=list)

    def takes(self, span: _Span, above: set[tuple[Any, int]]) -> bool:
        """Put the span here if it nests in what is open here, which has to be above it."""
        while self.open and self.open[-1].end_ns <= span.start_ns:
            self.open.pop()
        if self.open:
            top = self.open[-1]
            if top.key not in above or top.end_ns < span.end_ns:
                return False
        self.open.append(span)
        self.spans.append(span)
        return True


def _span(row: Row) -> _Span:
    values = {name: row[COLUMN_INDEX[name]] for name in COLUMN_INDEX}
    start_ns = values["start_time"]
    return _Span(
        values,
        start_ns,
        start_ns + values["duration_nanos"],
        values["service_name"] or "no name",
        values["parent_span_id"],
        (values["trace_id"], values["span_id"]),
    )


def _tracks(spans: Sequence[_Span]) -> list[_Track]:
    by_key = {span.key: span for span in spans}
    groups: defaultdict[tuple[Any, ...], list[_Track]] = defaultdict(list)
    for span in spans:
        above = set()
        at: _Span | None = span
        while at is not None and at.key not in above:
            above.add(at.key)
            at = None if at.parent is None else by_key.get((at.key[0], at.parent))
        if span.values["step_index"] is not None:
            engine = span.values["engine"] or "0"
            group: tuple[Any, ...] = (span.service, "engine", engine, span.values["producer_id"])
            name = f"engine {engine}"
        else:
            group = (span.service, "trace", span.key[0])
            name = span.values["request_id"] or span.name
        tracks = groups[group]
        if not any(track.takes(span, above) for track in tracks):
            added = _Track(_uuid(*group, len(tracks)), span.service, name)
            added.takes(span, above)
            tracks.append(added)
    return [track for tracks in groups.values() for track in tracks]


def _flows(spans: Sequence[_Span]) -> dict[tuple[Any, int], list[int]]:
    """The flows that begin or end at each span."""
    found: defaultdict[tuple[Any, int], list[int]] = defaultdict(list)
    steps = {
        (span.values["producer_id"], span.values["engine"] or "0", span.values["step_index"]): span
        for span in spans
        if span.values["step_index"] is not None
    }
    by_hex = {(span.key[0].hex, f"{span.key[1]:016x}"): span for span in spans}
    for span in spans:
        engine = span.values["producer_id"], span.values["engine"] or "0"
        for name in ("first_step", "last_step"):
            step = steps.get((*engine, span.values[name]))
            if step is not None:
                flow = _uuid("flow", *span.key, name)
                found[span.key].append(flow)
                found[step.key].append(flow)
        for link in json.loads(span.values["links"] or "[]"):
            other = by_hex.get((link.get("trace_id"), link.get("span_id")))
            if other is not None and other is not span:
                flow = _uuid("link", *span.key, *other.key)
                found[span.key].append(flow)
                found[other.key].append(flow)
    return found


def _slices(track: _Track, flows: dict[tuple[Any, int], list[int]]) -> Iterator[bytes]:
    """The events of a track, each begun and ended in the order in which they nest."""
    open_spans: list[_Span] = []
    for span in track.spans:
        while open_spans and open_spans[-1].end_ns <= span.start_ns:
            yield _event(open_spans.pop().end_ns, _END, track.uuid)
        open_spans.append(span)
        body = [
            _text(23, span.name),
            _text(22, "step" if span.values["step_index"] is not None else "request"),
            *(_annotation(name, span.values[name]) for name in _SHOWN),
            *(_tag(47, FIXED64) + struct.pack("<Q", flow) for flow in flows.get(span.key, ())),
        ]
        yield _event(span.start_ns, _BEGIN, track.uuid, b"".join(body))
    while open_spans:
        yield _event(open_spans.pop().end_ns, _END, track.uuid)


def _counters(spans: Sequence[_Span]) -> Iterator[bytes]:
    known: set[int] = set()
    for span in sorted(spans, key=lambda each: each.end_ns):
        device = span.values["gpu_device_id"]
        for name, unit in _COUNTERS:
            value = span.values[name]
            if value is None or device is None:
                continue
            uuid = _uuid("gpu", device, name)
            if uuid not in known:
                known.add(uuid)
                label = f"{device} {name.removeprefix('gpu_').replace('_', ' ')}"
                yield _track(uuid, None, label, _message(8, _text(6, unit)))
            number = _tag(44, FIXED64) + struct.pack("<d", value)
            yield _event(span.end_ns, _COUNTER, uuid, number)


def _clocks(moment_ns: int) -> bytes:
    """The packet that says that all times are since 1970."""
    clocks = b"".join(
        _message(1, _number(1, clock) + _number(2, moment_ns)) for clock in (_REALTIME, _BOOTTIME)
    )
    # The first packet of the sequence says that it begins here.
    return _message(6, clocks) + _number(10, _SEQUENCE) + _number(13, 1)


def _process(service: str, number: int) -> bytes:
    process = _message(3, _number(1, number) + _text(6, service))
    return _message(60, _number(1, _uuid("process", service)) + process) + _number(10, _SEQUENCE)


def _track(uuid: int, parent: int | None, name: str, more: bytes = b"") -> bytes:
    above = b"" if parent is None else _number(5, parent)
    body = _number(1, uuid) + _text(2, name) + above + more
    return _message(60, body) + _number(10, _SEQUENCE)


def _event(time_ns: int, kind: int, track: int, more: bytes = b"") -> bytes:
    event = _number(9, kind) + _number(11, track) + more
    return (
        _number(8, time_ns) + _number(58, _REALTIME) + _number(10, _SEQUENCE) + _message(11, event)
    )


def _annotation(name: str, value: Any) -> bytes:
    if value is None:
        return b""
    if isinstance(value, int) and name != "span_id":
        told = _number(4, value)
    elif isinstance(value, float):
        told = _tag(5, FIXED64) + struct.pack("<d", value)
    else:
        text = value.hex if name == "trace_id" else f"{value:016x}" if name == "span_id" else value
        told = _text(6, text)
    return _message(4, _text(10, name) + told)


def _uuid(*parts: Any) -> int:
    """A number of a track or a flow, the same for the same parts."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=8).digest(), "big") or 1


def _tag(number: int, wire_type: int) -> bytes:
    return varint(number << 3 | wire_type)


def _number(number: int, value: int) -> bytes:
    return _tag(number, VARINT) + varint(value)


def _text(number: int, text: str) -> bytes:
    return delimited(_tag(number, LENGTH_DELIMITED), text.encode())


def _message(number: int, body: bytes) -> bytes:
    return delimited(_tag(number, LENGTH_DELIMITED), body)
