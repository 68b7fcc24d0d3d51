"""Sends a stream of small spans, then one span with every field and its parent.

Arguments: the collector's address, the number of small spans. Prints the ids as JSON.
"""

import json
import sys
import time

import infertrace

SAMPLER_START_S = 2
FLUSH_TIMEOUT_S = 20

address, small_span_count = sys.argv[1], int(sys.argv[2])
tracer = infertrace.Tracer(endpoint=address, service_name="interop")

for index in range(small_span_count):
    with tracer.start_span("resnet50", "small") as small:
        small.set_batch_size(index)

# The first span starts the background sampler, whose snapshot the full span is to carry.
time.sleep(SAMPLER_START_S)

with tracer.start_span("resnet50", "request") as parent:
    linked = tracer.start_span("resnet50", "linked", parent=parent)
    linked.end()
    try:
        with tracer.start_span("resnet50") as span:
            span.set_model_version("2.1")
            span.set_batch_size(8)
            span.set_tokens(input=24, output=0)
            span.set_framework("pytorch")
            span.set_sequence_length(512.5)
            span.set_cache_hit_rate(0.0)
            span.set_pipeline_stage("inference")
            span.set_queue(depth=3, wait_time_ms=1.5)
            span.set_batch_fill_ratio(0.5)
            span.set_streaming(time_to_first_token_ms=12.25, inter_token_latency_ms=2.125)
            span.set_tag("größe", "groß 🙂")
            span.set_attribute("prompt.template", "qa")
            span.set_attribute("prompt.cached", False)
            span.set_attribute("seed", -(2**63))
            span.set_attribute("temperature", 0.7)
            span.add_event("first token", {"index": 1})
            span.add_link(linked, {"kind": "batched request"})
            span.set_attribute("not a scalar", object())  # type: ignore[arg-type]
            raise RuntimeError("out of memory")
    except RuntimeError:
        pass

flushed = tracer.flush(FLUSH_TIMEOUT_S)
tracer.shutdown(FLUSH_TIMEOUT_S)
print(
    json.dumps(
        {
            "backend": infertrace.BACKEND,
            "flushed": flushed,
            "trace_id": span.trace_id,
            "span_id": span.span_id,
            "parent_span_id": parent.span_id,
            "linked_span_id": linked.span_id,
            "stats": tracer.stats(),
        }
    )
)
