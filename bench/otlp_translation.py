"""How much processor time does it take to turn a span of ours into OTLP?

The work: an envelope of 2,000 recorded spans (model, batch size and tokens set; and with a reading
of the process, as most have) into an ExportTraceServiceRequest, by both translators. The encoded
spans are made before.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Final

from bench.contenders import BATCH_SIZE, INPUT_TOKENS, MODEL, OUTPUT_TOKENS, SERVICE
from bench.harness import Answer, run_part, run_rounds, verdict
from bench.markdown import table, with_spread
from bench.receiver import running_receiver

SPANS: Final = 2_000
BUDGET_US: Final = 0.3
REPEATS: Final = {"native": 500, "pure": 5}
FAST_SHARE: Final = 5
KEYS: Final = ("plain", "with a reading")


def envelope(*, sampled: bool) -> bytes:
    """Recorded spans with the producer's fields and the resource behind them."""
    from infertrace import backend
    from infertrace.recording.encoder import attribute_entries, resource_metrics
    from infertrace.wire.protobuf import delimited

    recorder = backend.selected.Recorder(
        max_buffer_bytes=1 << 24, max_batch_bytes=1 << 23, wake=lambda: None
    )
    recorder.service_name = SERVICE
    recorder.enabled = True
    recorder.set_sample_rate(1.0)
    recorder.anchor = time.time_ns() - time.monotonic_ns()
    if sampled:
        reading = {"cpu_utilization_percent": 97.5, "memory_heap_bytes": 123_456_789}
        recorder.sample = (resource_metrics(reading), time.monotonic_ns())
    for _ in range(SPANS):
        with recorder.start_span(MODEL) as span:
            span.set_batch_size(BATCH_SIZE)
            span.set_tokens(input=INPUT_TOKENS, output=OUTPUT_TOKENS)
    batch = recorder.take(True)
    assert batch is not None
    resource = attribute_entries(b"\x0a", {"service.name": SERVICE, "process.pid": 7})
    return bytes(batch.payload) + delimited(b"\x12", bytes(16)) + delimited(b"\x3a", resource)


def run(name: str, repeats: int) -> dict[str, float]:
    """One run, in this process: microseconds of processor time per span."""
    from infertrace.otlp import translator_choice

    translate = translator_choice.select(name).translate
    found = {}
    for key in KEYS:
        raw = envelope(sampled=key != KEYS[0])
        assert translate(raw, 1, b"infertrace", b"1").span_count == SPANS
        before = time.process_time()
        for _ in range(repeats):
            translate(raw, 1, b"infertrace", b"1")
        found[key] = (time.process_time() - before) / (SPANS * repeats) * 1e6
    return found


def measure(folder: Path, fast: bool) -> Answer:
    rounds = 1 if fast else 5
    share = FAST_SHARE if fast else 1
    with running_receiver() as addresses:
        results = run_rounds(
            [*REPEATS],
            rounds,
            lambda name: run_part(
                "bench.otlp_translation", name, REPEATS[name] // share, addresses=addresses
            ),
        )
    tables = table(
        ["µs per span (rounds)", *KEYS],
        [[name, *(with_spread(results[name][key], digits=2) for key in KEYS)] for name in REPEATS],
    )
    verdicts = [
        verdict(f"ours into OTLP, native, {key}", results["native"][key], "µs", at_most=BUDGET_US)
        for key in KEYS
    ]
    return Answer({"rounds": rounds, "microseconds": results}, tables, verdicts)


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], int(sys.argv[2]))))
