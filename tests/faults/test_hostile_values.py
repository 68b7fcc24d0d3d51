"""Values no caller should pass cost a field, or a counted span, but never a neighbour.

`tests/recording/test_values.py` has every kind of value; these go through to a real collector.
"""

from __future__ import annotations

import math
from typing import Any

import pytest

from backend_recording import KIB, assert_closed
from collector_process import CollectorProcess


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError("hostile")

    __repr__ = __str__


class Text(str):
    """A subclass of str."""


VALUES: dict[str, Any] = {
    "lone surrogate": "\ud800",
    "NUL": "a\0b",
    "bytes": b"bytes",
    "int": 7,
    "large": 2**70,
    "smallest": -(2**63),
    "NaN": math.nan,
    "infinity": math.inf,
    "less than infinity": -math.inf,
    "bool": True,
    "subclass": Text("text"),
    "object": Hostile(),
    "none": None,
    "empty": "",
}


@pytest.mark.parametrize("kind", VALUES)
def test_values_as_names_numbers_and_attributes(
    new_tracer: Any, shared_collector: CollectorProcess, kind: str
) -> None:
    value = VALUES[kind]
    tracer = new_tracer(shared_collector.endpoint)
    with tracer.start_span(value, value, batch_size=value, tags={"k": value}) as span:
        span.set_tokens(input=value, output=value)
        span.set_sequence_length(value)
        span.set_queue(depth=value, wait_time_ms=value)
        span.set_attribute("k", value)
        span.add_event(value, {"k": value})
        span.set_framework(value)
        trace = span.trace_id
    with tracer.start_span("m", "neighbour", parent=span):
        pass
    assert tracer.flush(60)
    stats = tracer.stats()
    assert_closed(stats)
    assert (stats["produced"], stats["delivered"]) == (2, 2)
    assert stats["invalid_fields"] > 0
    assert len(shared_collector.spans(trace_id=trace)) == 2


def test_a_hundred_megabytes_in_a_text(new_tracer: Any, shared_collector: CollectorProcess) -> None:
    """Cut to the length that a text may have."""
    tracer = new_tracer(shared_collector.endpoint)
    with tracer.start_span("m", tags={"k": "x" * 100_000_000}) as span:
        span.set_attribute("k", "\u00e9" * 50_000_000)
        trace = span.trace_id
    assert tracer.flush(60)
    stats = tracer.stats()
    assert_closed(stats)
    assert (stats["delivered"], stats["invalid_fields"]) == (1, 2)
    (stored,) = shared_collector.spans(trace_id=trace)
    assert stored["tags"]["k"] == "x" * 32 * KIB
    assert stored["attributes"]["k"] == "\u00e9" * 16 * KIB


def test_ten_thousand_attributes(new_tracer: Any, shared_collector: CollectorProcess) -> None:
    tracer = new_tracer(shared_collector.endpoint)
    with tracer.start_span("m") as span:
        for number in range(10_000):
            span.set_attribute(f"k{number}", number)
        trace = span.trace_id
    assert tracer.flush(60)
    stats = tracer.stats()
    assert_closed(stats)
    assert (stats["delivered"], stats["invalid_fields"]) == (1, 10_000 - 128)
    (stored,) = shared_collector.spans(trace_id=trace)
    assert len(stored["attributes"]) == 128


def test_a_span_larger_than_the_buffer(new_tracer: Any, shared_collector: CollectorProcess) -> None:
    tracer = new_tracer(shared_collector.endpoint, max_buffer_bytes=64 * KIB)
    with tracer.start_span("m", "neighbour") as neighbour:
        pass
    with tracer.start_span("m", "too large", parent=neighbour) as span:
        for number in range(10):
            span.set_attribute(f"k{number}", "x" * 32 * KIB)
    with tracer.start_span("m", "neighbour", parent=neighbour):
        pass
    assert tracer.flush(60)
    assert tracer.shutdown(60)
    stats = tracer.stats()
    assert_closed(stats)
    assert stats["dropped"] == {"oversize": 1}
    stored = shared_collector.spans(trace_id=neighbour.trace_id)
    assert [span["operation_name"] for span in stored] == ["neighbour"] * 2
    accounts = [a for a in shared_collector.producers() if a["dropped"] == {"oversize": 1}]
    assert [(account["produced"], account["stored"]) for account in accounts][-1:] == [(3, 2)]
