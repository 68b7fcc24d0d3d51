"""The fields of the pure backend's spans: setters and tables.

Generated from proto/fields.toml by tools/generate.py, which is where to change it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

Setter = Callable[[Any, Any], None]


class FieldSetters:
    """What a span of the pure backend is derived from."""

    __slots__ = ()
    _ended: int
    _fields: dict[str, Any]
    if TYPE_CHECKING:

        def _set_text(self, field: str, value: object) -> None: ...
        def _set_count(self, field: str, value: object) -> None: ...
        def _set_measure(self, field: str, value: object, upper: float) -> None: ...

    def set_model_version(self, version: str) -> None:
        self._set_text("model_version", version)

    def set_batch_size(self, size: int) -> None:
        if type(size) is int and 0 <= size <= 2**31 - 1 and not self._ended:
            self._fields["batch_size"] = size
        else:
            self._set_count("batch_size", size)

    def set_tokens(self, input: int | None = None, output: int | None = None) -> None:
        if input is not None:
            if type(input) is int and 0 <= input <= 2**31 - 1 and not self._ended:
                self._fields["input_tokens"] = input
            else:
                self._set_count("input_tokens", input)
        if output is not None:
            if type(output) is int and 0 <= output <= 2**31 - 1 and not self._ended:
                self._fields["output_tokens"] = output
            else:
                self._set_count("output_tokens", output)

    def set_framework(self, framework: str) -> None:
        self._set_text("framework", framework)

    def set_sequence_length(self, length: float) -> None:
        if type(length) is float and 0.0 <= length <= 3.4028234663852886e38 and not self._ended:
            self._fields["sequence_length"] = length
        else:
            self._set_measure("sequence_length", length, 3.4028234663852886e38)

    def set_cache_hit_rate(self, rate: float) -> None:
        if type(rate) is float and 0.0 <= rate <= 1.0 and not self._ended:
            self._fields["cache_hit_rate"] = rate
        else:
            self._set_measure("cache_hit_rate", rate, 1.0)

    def set_pipeline_stage(self, stage: str) -> None:
        self._set_text("pipeline_stage", stage)

    def set_queue(self, depth: int | None = None, wait_time_ms: float | None = None) -> None:
        if depth is not None:
            if type(depth) is int and 0 <= depth <= 2**31 - 1 and not self._ended:
                self._fields["queue_depth"] = depth
            else:
                self._set_count("queue_depth", depth)
        if wait_time_ms is not None:
            if (
                type(wait_time_ms) is float
                and 0.0 <= wait_time_ms <= 3.4028234663852886e38
                and not self._ended
            ):
                self._fields["queue_wait_time_ms"] = wait_time_ms
            else:
                self._set_measure("queue_wait_time_ms", wait_time_ms, 3.4028234663852886e38)

    def set_batch_fill_ratio(self, ratio: float) -> None:
        if type(ratio) is float and 0.0 <= ratio <= 1.0 and not self._ended:
            self._fields["batch_fill_ratio"] = ratio
        else:
            self._set_measure("batch_fill_ratio", ratio, 1.0)

    def set_streaming(
        self,
        time_to_first_token_ms: float | None = None,
        inter_token_latency_ms: float | None = None,
    ) -> None:
        if time_to_first_token_ms is not None:
            if (
                type(time_to_first_token_ms) is float
                and 0.0 <= time_to_first_token_ms <= 3.4028234663852886e38
                and not self._ended
            ):
                self._fields["time_to_first_token_ms"] = time_to_first_token_ms
            else:
                self._set_measure(
                    "time_to_first_token_ms", time_to_first_token_ms, 3.4028234663852886e38
                )
        if inter_token_latency_ms is not None:
            if (
                type(inter_token_latency_ms) is float
                and 0.0 <= inter_token_latency_ms <= 3.4028234663852886e38
                and not self._ended
            ):
                self._fields["inter_token_latency_ms"] = inter_token_latency_ms
            else:
                self._set_measure(
                    "inter_token_latency_ms", inter_token_latency_ms, 3.4028234663852886e38
                )

    def set_request_id(self, request_id: str) -> None:
        self._set_text("request_id", request_id)

    def set_finish_reason(self, reason: str) -> None:
        self._set_text("finish_reason", reason)

    def set_token_details(
        self, cached_input: int | None = None, reasoning_output: int | None = None
    ) -> None:
        if cached_input is not None:
            if type(cached_input) is int and 0 <= cached_input <= 2**31 - 1 and not self._ended:
                self._fields["cached_input_tokens"] = cached_input
            else:
                self._set_count("cached_input_tokens", cached_input)
        if reasoning_output is not None:
            if (
                type(reasoning_output) is int
                and 0 <= reasoning_output <= 2**31 - 1
                and not self._ended
            ):
                self._fields["reasoning_output_tokens"] = reasoning_output
            else:
                self._set_count("reasoning_output_tokens", reasoning_output)


class NoopFieldSetters:
    """What a span that records nothing is derived from."""

    __slots__ = ()

    def set_model_version(self, version: str) -> None: ...
    def set_batch_size(self, size: int) -> None: ...
    def set_tokens(self, input: int | None = None, output: int | None = None) -> None: ...
    def set_framework(self, framework: str) -> None: ...
    def set_sequence_length(self, length: float) -> None: ...
    def set_cache_hit_rate(self, rate: float) -> None: ...
    def set_pipeline_stage(self, stage: str) -> None: ...
    def set_queue(self, depth: int | None = None, wait_time_ms: float | None = None) -> None: ...
    def set_batch_fill_ratio(self, ratio: float) -> None: ...
    def set_streaming(
        self,
        time_to_first_token_ms: float | None = None,
        inter_token_latency_ms: float | None = None,
    ) -> None: ...
    def set_request_id(self, request_id: str) -> None: ...
    def set_finish_reason(self, reason: str) -> None: ...
    def set_token_details(
        self, cached_input: int | None = None, reasoning_output: int | None = None
    ) -> None: ...


FIELD_SETTERS: Final[Mapping[str, Setter]] = {
    "model_version": FieldSetters.set_model_version,
    "framework": FieldSetters.set_framework,
    "pipeline_stage": FieldSetters.set_pipeline_stage,
    "request_id": FieldSetters.set_request_id,
    "finish_reason": FieldSetters.set_finish_reason,
    "batch_size": FieldSetters.set_batch_size,
    "input_tokens": FieldSetters.set_tokens,
    "output_tokens": lambda span, value: span.set_tokens(output=value),
    "queue_depth": FieldSetters.set_queue,
    "cached_input_tokens": FieldSetters.set_token_details,
    "reasoning_output_tokens": lambda span, value: span.set_token_details(reasoning_output=value),
    "sequence_length": FieldSetters.set_sequence_length,
    "cache_hit_rate": FieldSetters.set_cache_hit_rate,
    "queue_wait_time_ms": lambda span, value: span.set_queue(wait_time_ms=value),
    "batch_fill_ratio": FieldSetters.set_batch_fill_ratio,
    "time_to_first_token_ms": FieldSetters.set_streaming,
    "inter_token_latency_ms": lambda span, value: span.set_streaming(inter_token_latency_ms=value),
}

TRACE_ID_TAG: Final = b"\n"
SPAN_ID_TAG: Final = b"\x12"
PARENT_SPAN_ID_TAG: Final = b"\x1a"
SERVICE_NAME_TAG: Final = b'"'
OPERATION_NAME_TAG: Final = b"*"
START_TIME_UNIX_NANO_TAG: Final = b"0"
DURATION_NANOS_TAG: Final = b"8"
STATUS_TAG: Final = b"B"
STATUS_MESSAGE_TAG: Final = b"b"
INFERENCE_TAG: Final = b"R"
RESOURCES_TAG: Final = b"Z"
TAGS_TAG: Final = b"J"
ATTRIBUTES_TAG: Final = b"j"
EVENTS_TAG: Final = b"r"
LINKS_TAG: Final = b"z"
INVALID_FIELD_COUNT_TAG: Final = b"\x80\x01"
KIND_TAG: Final = b"\x88\x01"
TRACE_STATE_TAG: Final = b"\x92\x01"
SCOPE_NAME_TAG: Final = b"\x9a\x01"
SCOPE_VERSION_TAG: Final = b"\xa2\x01"
SCOPE_ATTRIBUTES_TAG: Final = b"\xd2\x01"
DROPPED_ATTRIBUTES_COUNT_TAG: Final = b"\xa8\x01"
DROPPED_EVENTS_COUNT_TAG: Final = b"\xb0\x01"
DROPPED_LINKS_COUNT_TAG: Final = b"\xb8\x01"
STATUS_CODE_TAG: Final = b"\xc8\x01"
FLAGS_TAG: Final = b"\xc0\x01"
MODEL_NAME_TAG: Final = b"\n"
SAMPLE_AGE_MS_TAG: Final = b"="

INFERENCE_FIELDS: Final = (
    ("model_version", b"\x12", str),
    ("batch_size", b"\x18", int),
    ("input_tokens", b" ", int),
    ("output_tokens", b"(", int),
    ("framework", b"2", str),
    ("sequence_length", b"=", float),
    ("cache_hit_rate", b"E", float),
    ("pipeline_stage", b"J", str),
    ("queue_depth", b"P", int),
    ("queue_wait_time_ms", b"]", float),
    ("batch_fill_ratio", b"e", float),
    ("time_to_first_token_ms", b"m", float),
    ("inter_token_latency_ms", b"u", float),
    ("request_id", b"z", str),
    ("finish_reason", b"\x82\x01", str),
    ("cached_input_tokens", b"\x88\x01", int),
    ("reasoning_output_tokens", b"\x90\x01", int),
)
"""Name, tag and type, in the order of the numbers."""

RESOURCE_FIELDS: Final = (
    ("gpu_utilization_percent", b"\t", float),
    ("gpu_memory_used_bytes", b"\x10", int),
    ("gpu_memory_total_bytes", b"\x18", int),
    ("gpu_device_id", b'"', str),
    ("cpu_utilization_percent", b")", float),
    ("memory_heap_bytes", b"0", int),
    ("gpu_power_watts", b"A", float),
    ("gpu_temperature_celsius", b"I", float),
)
