"""The fields of a span that are columns in a store.

Generated from proto/fields.toml by tools/generate.py, which is where to change it.
"""

from __future__ import annotations

from typing import Final

STORED_FIELDS: Final = (
    ("trace_id", "uuid", "trace_id", "32 hexadecimal digits", "", True),
    ("span_id", "span_id", "span_id", "16 hexadecimal digits", "", True),
    ("parent_span_id", "span_id", "parent_span_id", "absent at the root of a trace", "", False),
    ("service_name", "text", "service_name", "", "", False),
    ("operation_name", "text", "operation_name", "", "", False),
    ("start_time", "time", "start_time_unix_nano", "RFC 3339, UTC, with nine decimals", "", True),
    ("duration_nanos", "duration", "duration_nanos", "milliseconds", "duration_ms", True),
    ("status", "text", "status", "OK, ERROR or CANCELLED", "", True),
    ("status_message", "text", "status_message", "", "", False),
    ("model_name", "text", "inference.model_name", "", "", False),
    ("model_version", "text", "inference.model_version", "", "", False),
    ("batch_size", "int32", "inference.batch_size", "requests, 0 or more", "", False),
    ("input_tokens", "int32", "inference.input_tokens", "tokens, 0 or more", "", False),
    ("output_tokens", "int32", "inference.output_tokens", "tokens, 0 or more", "", False),
    ("framework", "text", "inference.framework", "", "", False),
    ("sequence_length", "float32", "inference.sequence_length", "tokens, 0 or more", "", False),
    ("cache_hit_rate", "float32", "inference.cache_hit_rate", "0 to 1", "", False),
    ("pipeline_stage", "text", "inference.pipeline_stage", "", "", False),
    ("queue_depth", "int32", "inference.queue_depth", "requests, 0 or more", "", False),
    (
        "queue_wait_time_ms",
        "float32",
        "inference.queue_wait_time_ms",
        "milliseconds, 0 or more",
        "",
        False,
    ),
    ("batch_fill_ratio", "float32", "inference.batch_fill_ratio", "0 to 1", "", False),
    (
        "time_to_first_token_ms",
        "float32",
        "inference.time_to_first_token_ms",
        "milliseconds, 0 or more",
        "",
        False,
    ),
    (
        "inter_token_latency_ms",
        "float32",
        "inference.inter_token_latency_ms",
        "milliseconds, 0 or more",
        "",
        False,
    ),
    (
        "gpu_utilization_percent",
        "float64",
        "resources.gpu_utilization_percent",
        "0 to 100",
        "",
        False,
    ),
    ("gpu_memory_used_bytes", "int64", "resources.gpu_memory_used_bytes", "bytes", "", False),
    ("gpu_memory_total_bytes", "int64", "resources.gpu_memory_total_bytes", "bytes", "", False),
    ("gpu_device_id", "text", "resources.gpu_device_id", "the GPU's UUID", "", False),
    (
        "cpu_utilization_percent",
        "float64",
        "resources.cpu_utilization_percent",
        "of the process; 100 is one core fully used",
        "",
        False,
    ),
    ("memory_heap_bytes", "int64", "resources.memory_heap_bytes", "resident bytes", "", False),
    (
        "sample_age_ms",
        "float32",
        "resources.sample_age_ms",
        "milliseconds, at the span's end",
        "",
        False,
    ),
    ("gpu_power_watts", "float64", "resources.gpu_power_watts", "watts", "", False),
    (
        "gpu_temperature_celsius",
        "float64",
        "resources.gpu_temperature_celsius",
        "degrees Celsius",
        "",
        False,
    ),
    ("tags", "json", "tags", "an object of strings", "", False),
    ("attributes", "json", "attributes", "an object of strings, booleans and numbers", "", False),
    ("events", "json", "events", "an array of objects: time, name, attributes", "", False),
    ("links", "json", "links", "an array of objects: trace_id, span_id, attributes", "", False),
    (
        "invalid_field_count",
        "int64",
        "invalid_field_count",
        "fields that were invalid when recorded, and so are missing or clamped",
        "",
        False,
    ),
    (
        "flags",
        "int64",
        "flags",
        "bits 0 to 7: W3C trace flags; 0x200: the parent is in another process, if 0x100 is set",
        "",
        False,
    ),
)
"""Name, kind, path in the message Span, what an answer shows, the key in an answer where
it is another one, and whether each span has it."""
