"""Spans for the page: an engine that had a bad moment, and a very large trace."""

from __future__ import annotations

import os
import random
import time

from infertrace.commands.simulated_engine import (
    NANOS_PER_SECOND,
    Arrivals,
    Engine,
    Model,
    Request,
    simulate,
)
from infertrace.generated.span_pb2 import Span
from simulated_spans import spans_of

MODEL = Model(
    "llama-3", "1", "vllm", 16, 1_024, 100, 60_000, 8.0, 0.02, 6e-5, 3e-4, (50, 500), (20, 60)
)
SECONDS = 60


def engine_spans(seconds: int = SECONDS) -> list[Span]:
    """Some time of an engine that ended as long ago, into which very long prompts were planted.

    The slow requests are all of one tenant.
    """
    start_ns = time.time_ns() - 2 * seconds * NANOS_PER_SECOND
    planted = [
        Request(
            f"culprit-{number}", start_ns + (seconds // 2 + number) * NANOS_PER_SECOND, 15_000, 5
        )
        for number in range(2)
    ]
    engine, arrivals = Engine(MODEL, random.Random(4)), Arrivals(MODEL, random.Random(5), start_ns)
    simulated = simulate(engine, arrivals, start_ns + seconds * NANOS_PER_SECOND, planted)
    spans = spans_of(MODEL, simulated)
    draw = random.Random(6)
    for span in spans:
        span.resources.gpu_device_id = "GPU-0"
        if span.operation_name == "inference":
            is_slow = span.duration_nanos > 2 * NANOS_PER_SECOND
            span.tags["tenant"] = "acme" if is_slow else draw.choice(["acme", "globex", "initech"])
            if draw.random() < 0.02:
                span.status = "ERROR"
                # The text of a span is text, whatever it looks like.
                span.status_message = "<img src=x onerror=alert(1)>"
    return spans


def large_trace(count: int) -> list[Span]:
    """A root, and `count - 1` spans below it in chains of ten."""
    trace_id, start_ns = os.urandom(16), time.time_ns() - 90 * NANOS_PER_SECOND
    ids = [os.urandom(8) for _ in range(count)]
    spans = []
    for number, span_id in enumerate(ids):
        span = Span(
            trace_id=trace_id,
            span_id=span_id,
            service_name="server",
            operation_name=f"part {number}",
            start_time_unix_nano=start_ns + number * 100_000,
            duration_nanos=(count - number) * 100_000,
            status="OK",
        )
        if number:
            span.parent_span_id = ids[0 if number % 10 == 1 else number - 1]
        spans.append(span)
    spans[0].inference.model_name = "llama-3"
    return spans
