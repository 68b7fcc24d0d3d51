"""The file for Perfetto, read by Perfetto's own messages."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from itertools import chain
from typing import Any

import pytest
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent

from collector_client import Client, NewSpan
from infertrace.generated.span_pb2 import InferenceContext, Link, ResourceMetrics, Span

MS = 1_000_000
PRODUCER = b"p" * 16


def exported(client: Client, **parameters: Any) -> Any:
    answer = client.http.get("/export/perfetto", params=parameters)
    assert answer.status_code == 200, answer.text
    trace = Trace()
    trace.ParseFromString(answer.content)
    return trace


def slices(trace: Any) -> dict[str, list[tuple[str, int, int, int]]]:
    """Of each track, by its name: name, start, end and depth of its slices, as Perfetto nests."""
    names = {p.track_descriptor.uuid: p.track_descriptor.name for p in trace.packet}
    stacks: defaultdict[int, list[tuple[str, int]]] = defaultdict(list)
    found: defaultdict[str, list[tuple[str, int, int, int]]] = defaultdict(list)
    # The trace processor sorts by time, and keeps the order of the file where times are equal.
    for packet in sorted(
        (p for p in trace.packet if p.HasField("track_event")), key=lambda p: p.timestamp
    ):
        event = packet.track_event
        assert packet.timestamp_clock_id == 1
        stack = stacks[event.track_uuid]
        if event.type == TrackEvent.TYPE_SLICE_BEGIN:
            stack.append((event.name, packet.timestamp))
        elif event.type == TrackEvent.TYPE_SLICE_END:
            name, start = stack.pop()
            found[names[event.track_uuid]].append((name, start, packet.timestamp, len(stack)))
    assert not any(stacks.values())
    return found


@pytest.fixture
def start_ns() -> int:
    return time.time_ns() - 10_000 * MS


def test_times_are_exact_and_slices_nest(client: Client, new_span: NewSpan, start_ns: int) -> None:
    trace_id, root = b"t" * 16, b"r" * 8

    def span(name: str, after: int, length: int, parent: bytes | None = root) -> Span:
        made = new_span(
            trace_id=trace_id,
            operation_name=name,
            start_time_unix_nano=start_ns + after,
        )
        made.duration_nanos = length
        if parent is None:
            made.span_id = root
        else:
            made.parent_span_id = parent
        return made

    client.send(
        span("root", 0, 1_001, None),
        span("a", 1, 500),
        span("overlaps a", 400, 300),
        span("later", 501, 500),
        span("no time", 501, 0),
    )
    trace = exported(client, trace_id=trace_id.hex())
    found = slices(trace)
    assert sorted(chain.from_iterable(found.values())) == sorted(
        [
            ("root", start_ns, start_ns + 1_001, 0),
            ("a", start_ns + 1, start_ns + 501, 1),
            ("overlaps a", start_ns + 400, start_ns + 700, 0),
            ("later", start_ns + 501, start_ns + 1_001, 1),
            ("no time", start_ns + 501, start_ns + 501, 0),
        ]
    )
    (clocks,) = (p.clock_snapshot.clocks for p in trace.packet if p.HasField("clock_snapshot"))
    assert {clock.clock_id: clock.timestamp for clock in clocks} == {1: start_ns, 6: start_ns}


def test_a_request_comes_with_its_steps_and_arrows(
    client: Client, new_span: NewSpan, start_ns: int
) -> None:
    request = new_span(
        start_time_unix_nano=start_ns,
        duration_nanos=100 * MS,
        inference=InferenceContext(
            request_id="r-1", engine="0", first_step=2, last_step=3, input_tokens=7
        ),
    )
    other = new_span(links=[Link(trace_id=request.trace_id, span_id=request.span_id)])
    steps = [
        new_span(
            operation_name="step",
            start_time_unix_nano=start_ns + number * 10 * MS,
            duration_nanos=10 * MS,
            inference=InferenceContext(engine="0", step_index=number, queue_depth=number),
            resources=ResourceMetrics(gpu_device_id="GPU-a", gpu_utilization_percent=40.0 + number),
        )
        for number in range(1, 5)
    ]
    client.send(request, *steps, other, producer_id=PRODUCER)
    trace = exported(client, trace_id=request.trace_id.hex())
    found = slices(trace)
    assert [name for name, *_ in found["r-1"]] == ["inference"]
    assert sorted(name for name, *_ in found["engine 0"]) == ["step 2", "step 3"]
    flows: defaultdict[int, list[str]] = defaultdict(list)
    for packet in trace.packet:
        for flow in packet.track_event.flow_ids:
            flows[flow].append(packet.track_event.name)
    assert sorted(map(sorted, flows.values())) == [["inference", "step 2"], ["inference", "step 3"]]
    (begun,) = (p.track_event for p in trace.packet if p.track_event.name == "inference")
    told = {each.name: each for each in begun.debug_annotations}
    assert told["request_id"].string_value == "r-1"
    assert told["input_tokens"].int_value == 7
    assert told["span_id"].string_value == request.span_id.hex()
    counters = [
        (p.timestamp, p.track_event.double_counter_value)
        for p in trace.packet
        if p.track_event.type == TrackEvent.TYPE_COUNTER
    ]
    assert counters == [(start_ns + (n + 1) * 10 * MS, 40.0 + n) for n in (2, 3)]
    # Of a time, all of them, and the arrow along the link.
    everything = exported(client, window="1m")
    assert sum(map(len, slices(everything).values())) == 6
    links = [p.track_event for p in everything.packet if len(p.track_event.flow_ids) == 3]
    assert [event.name for event in links] == ["inference"]


def test_what_is_not_there(client: Client, new_span: NewSpan) -> None:
    assert client.error("/export/perfetto", trace_id="0" * 32)[0] == 404
    assert not slices(exported(client, window="1m"))
    client.send(new_span(status_message="é\x00\n" * 5, links=[Link(trace_id=b"x" * 16)]))
    assert sum(map(len, slices(exported(client, status="OK", window="1m")).values())) == 1
    assert not slices(exported(client, status="ERROR", window="1m"))
    json.loads(client.http.get("/openapi.json").text)
