"""The flat columns of a span: the one declaration that stores, queries and answers share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "uuid",
    "span_id",
    "text",
    "time",
    "duration",
    "int32",
    "int64",
    "float32",
    "float64",
    "json",
]
"""How a column is held by a store, and as which Python value a store returns it.

`uuid` is a `uuid.UUID` (16 bytes), `span_id` an unsigned 64-bit `int`, `time` nanoseconds since
1970-01-01 UTC, `duration` nanoseconds, `json` a JSON text; the others are what they say.
Ids are numbers rather than bytes because a scan for one is then 5 to 10 times as fast.
"""


@dataclass(frozen=True)
class Column:
    """One column of the table of spans.

    `name` is the name in the store, `answer_name` the key in a JSON answer, and `wire` the path
    of the field in the `Span` message; what has none is said by the request, for all of its spans.
    An absent value is NULL in the store and left out of the answer; it is never written as 0.
    """

    name: str
    kind: Kind
    wire: str
    description: str = ""
    answer_name: str = ""
    required: bool = False

    @property
    def key(self) -> str:
        """The key under which an answer shows this column."""
        return self.answer_name or self.name


COLUMNS = (
    Column("trace_id", "uuid", "trace_id", "32 hexadecimal digits", required=True),
    Column("span_id", "span_id", "span_id", "16 hexadecimal digits", required=True),
    Column("parent_span_id", "span_id", "parent_span_id", "absent at the root of a trace"),
    Column("service_name", "text", "service_name"),
    Column("operation_name", "text", "operation_name"),
    Column(
        "start_time",
        "time",
        "start_time_unix_nano",
        "RFC 3339, UTC, with nine decimals",
        required=True,
    ),
    Column(
        "duration_nanos",
        "duration",
        "duration_nanos",
        "milliseconds",
        answer_name="duration_ms",
        required=True,
    ),
    Column("status", "text", "status", "OK, ERROR or CANCELLED", required=True),
    Column("status_message", "text", "status_message"),
    Column("model_name", "text", "inference.model_name"),
    Column("model_version", "text", "inference.model_version"),
    Column("batch_size", "int32", "inference.batch_size", "requests"),
    Column("input_tokens", "int32", "inference.input_tokens", "tokens"),
    Column("output_tokens", "int32", "inference.output_tokens", "tokens"),
    Column("framework", "text", "inference.framework"),
    Column("sequence_length", "float32", "inference.sequence_length", "tokens"),
    Column("cache_hit_rate", "float32", "inference.cache_hit_rate", "0 to 1"),
    Column("pipeline_stage", "text", "inference.pipeline_stage"),
    Column("queue_depth", "int32", "inference.queue_depth", "requests"),
    Column("queue_wait_time_ms", "float32", "inference.queue_wait_time_ms", "milliseconds"),
    Column("batch_fill_ratio", "float32", "inference.batch_fill_ratio", "0 to 1"),
    Column("time_to_first_token_ms", "float32", "inference.time_to_first_token_ms", "milliseconds"),
    Column("inter_token_latency_ms", "float32", "inference.inter_token_latency_ms", "milliseconds"),
    Column("gpu_utilization_percent", "float64", "resources.gpu_utilization_percent", "0 to 100"),
    Column("gpu_memory_used_bytes", "int64", "resources.gpu_memory_used_bytes", "bytes"),
    Column("gpu_memory_total_bytes", "int64", "resources.gpu_memory_total_bytes", "bytes"),
    Column("gpu_device_id", "text", "resources.gpu_device_id", "the GPU's UUID"),
    Column(
        "cpu_utilization_percent",
        "float64",
        "resources.cpu_utilization_percent",
        "of the process; 100 is one core fully used",
    ),
    Column("memory_heap_bytes", "int64", "resources.memory_heap_bytes", "resident bytes"),
    Column(
        "sample_age_ms", "float32", "resources.sample_age_ms", "milliseconds, at the span's end"
    ),
    Column("gpu_power_watts", "float64", "resources.gpu_power_watts", "watts"),
    Column(
        "gpu_temperature_celsius", "float64", "resources.gpu_temperature_celsius", "degrees Celsius"
    ),
    Column("tags", "json", "tags", "an object of strings"),
    Column("attributes", "json", "attributes", "an object of strings, booleans and numbers"),
    Column("events", "json", "events", "an array of objects: time, name, attributes"),
    Column("links", "json", "links", "an array of objects: trace_id, span_id, attributes"),
    Column(
        "invalid_field_count",
        "int64",
        "invalid_field_count",
        "fields that were invalid when recorded, and so are missing or clamped",
    ),
    Column(
        "flags",
        "int64",
        "flags",
        "bits 0 to 7: W3C trace flags; 0x200: the parent is in another process, if 0x100 is set",
    ),
    Column("producer_id", "uuid", "", "which process sent it, as /ledger names it"),
    Column("resource_id", "uuid", "", "equal where the attributes of the resource are equal"),
)
