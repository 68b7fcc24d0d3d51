"""The fields of the pure backend's spans: setters and tables.

Generated from proto/fields.toml by tools/generate.py, which is where to change it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Final, TypeAlias

    Setter: TypeAlias = Callable[[Any, Any], None]


class FieldSetters:
    """What a span of the pure backend is derived from."""

    __slots__ = ()
    _ended: int
    _fields: dict[str, Any]
    if TYPE_CHECKING:

        def _set_text(self, field: str, value: object) -> None: ...
        def _set_count(self, field: str, value: object) -> None: ...
        def _set_measure(self, field: str, value: object, upper: float) -> None: ...
        def _set_ordinal(self, field: str, value: object) -> None: ...
        def _set_intervals(self, field: str, value: object) -> None: ...

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

    def set_request(
        self,
        preemption_count: int | None = None,
        scheduled_after_ms: float | None = None,
        max_inter_token_latency_ms: float | None = None,
        token_intervals: Sequence[int] | None = None,
        first_step: int | None = None,
        last_step: int | None = None,
        step_count: int | None = None,
        membership: str | None = None,
    ) -> None:
        if preemption_count is not None:
            if (
                type(preemption_count) is int
                and 0 <= preemption_count <= 2**31 - 1
                and not self._ended
            ):
                self._fields["preemption_count"] = preemption_count
            else:
                self._set_count("preemption_count", preemption_count)
        if scheduled_after_ms is not None:
            if (
                type(scheduled_after_ms) is float
                and 0.0 <= scheduled_after_ms <= 3.4028234663852886e38
                and not self._ended
            ):
                self._fields["scheduled_after_ms"] = scheduled_after_ms
            else:
                self._set_measure("scheduled_after_ms", scheduled_after_ms, 3.4028234663852886e38)
        if max_inter_token_latency_ms is not None:
            if (
                type(max_inter_token_latency_ms) is float
                and 0.0 <= max_inter_token_latency_ms <= 3.4028234663852886e38
                and not self._ended
            ):
                self._fields["max_inter_token_latency_ms"] = max_inter_token_latency_ms
            else:
                self._set_measure(
                    "max_inter_token_latency_ms", max_inter_token_latency_ms, 3.4028234663852886e38
                )
        if token_intervals is not None:
            self._set_intervals("token_intervals", token_intervals)
        if first_step is not None:
            self._set_ordinal("first_step", first_step)
        if last_step is not None:
            self._set_ordinal("last_step", last_step)
        if step_count is not None:
            if type(step_count) is int and 0 <= step_count <= 2**31 - 1 and not self._ended:
                self._fields["step_count"] = step_count
            else:
                self._set_count("step_count", step_count)
        if membership is not None:
            self._set_text("membership", membership)

    def set_engine(self, engine: str) -> None:
        self._set_text("engine", engine)

    def set_step(
        self,
        index: int | None = None,
        prefill_tokens: int | None = None,
        decode_tokens: int | None = None,
        kv_cache_usage: float | None = None,
    ) -> None:
        if index is not None:
            self._set_ordinal("step_index", index)
        if prefill_tokens is not None:
            if type(prefill_tokens) is int and 0 <= prefill_tokens <= 2**31 - 1 and not self._ended:
                self._fields["prefill_tokens"] = prefill_tokens
            else:
                self._set_count("prefill_tokens", prefill_tokens)
        if decode_tokens is not None:
            if type(decode_tokens) is int and 0 <= decode_tokens <= 2**31 - 1 and not self._ended:
                self._fields["decode_tokens"] = decode_tokens
            else:
                self._set_count("decode_tokens", decode_tokens)
        if kv_cache_usage is not None:
            if type(kv_cache_usage) is float and 0.0 <= kv_cache_usage <= 1.0 and not self._ended:
                self._fields["kv_cache_usage"] = kv_cache_usage
            else:
                self._set_measure("kv_cache_usage", kv_cache_usage, 1.0)


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
    def set_request(
        self,
        preemption_count: int | None = None,
        scheduled_after_ms: float | None = None,
        max_inter_token_latency_ms: float | None = None,
        token_intervals: Sequence[int] | None = None,
        first_step: int | None = None,
        last_step: int | None = None,
        step_count: int | None = None,
        membership: str | None = None,
    ) -> None: ...
    def set_engine(self, engine: str) -> None: ...
    def set_step(
        self,
        index: int | None = None,
        prefill_tokens: int | None = None,
        decode_tokens: int | None = None,
        kv_cache_usage: float | None = None,
    ) -> None: ...


FIELD_SETTERS: Final[Mapping[str, Setter]] = {
    "model_version": FieldSetters.set_model_version,
    "framework": FieldSetters.set_framework,
    "pipeline_stage": FieldSetters.set_pipeline_stage,
    "request_id": FieldSetters.set_request_id,
    "finish_reason": FieldSetters.set_finish_reason,
    "engine": FieldSetters.set_engine,
    "membership": lambda span, value: span.set_request(membership=value),
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
    "preemption_count": FieldSetters.set_request,
    "step_count": lambda span, value: span.set_request(step_count=value),
    "prefill_tokens": lambda span, value: span.set_step(prefill_tokens=value),
    "decode_tokens": lambda span, value: span.set_step(decode_tokens=value),
    "scheduled_after_ms": lambda span, value: span.set_request(scheduled_after_ms=value),
    "max_inter_token_latency_ms": lambda span, value: span.set_request(
        max_inter_token_latency_ms=value
    ),
    "kv_cache_usage": lambda span, value: span.set_step(kv_cache_usage=value),
    "step_index": FieldSetters.set_step,
    "first_step": lambda span, value: span.set_request(first_step=value),
    "last_step": lambda span, value: span.set_request(last_step=value),
    "token_intervals": lambda span, value: span.set_request(token_intervals=value),
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
    ("preemption_count", b"\x98\x01", int),
    ("scheduled_after_ms", b"\xa5\x01", float),
    ("max_inter_token_latency_ms", b"\xad\x01", float),
    ("token_intervals", b"\xb2\x01", bytes),
    ("engine", b"\xba\x01", str),
    ("step_index", b"\xc0\x01", int),
    ("first_step", b"\xc8\x01", int),
    ("last_step", b"\xd0\x01", int),
    ("step_count", b"\xd8\x01", int),
    ("prefill_tokens", b"\xe0\x01", int),
    ("decode_tokens", b"\xe8\x01", int),
    ("kv_cache_usage", b"\xf5\x01", float),
    ("membership", b"\xfa\x01", str),
)
"""Name, tag and type (bytes: a message), in the order of the numbers."""

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
