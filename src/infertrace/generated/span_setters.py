"""The setters of a span and the keywords of a tracer, with types.

Generated from proto/fields.toml by tools/generate.py, which is where to change it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol, TypedDict


class FieldSetters(Protocol):
    """One setter for each field, or for some that belong together."""

    def set_model_version(self, version: str) -> None:
        """The version or revision of the model's weights."""

    def set_batch_size(self, size: int) -> None:
        """How many requests ran together; 0 or more."""

    def set_tokens(self, input: int | None = None, output: int | None = None) -> None:
        """Tokens read and tokens generated; 0 or more, None leaves one as it is."""

    def set_framework(self, framework: str) -> None:
        """What runs the model: `pytorch`, `tensorflow`, `onnx`, `vllm`, ..."""

    def set_sequence_length(self, length: float) -> None:
        """Tokens in the (mean, padded) sequence; 0 or more."""

    def set_cache_hit_rate(self, rate: float) -> None:
        """Share of the prompt that was found in the KV cache; 0 to 1."""

    def set_pipeline_stage(self, stage: str) -> None:
        """`preprocessing`, `inference`, `postprocessing`, or a name of your own."""

    def set_queue(self, depth: int | None = None, wait_time_ms: float | None = None) -> None:
        """Requests waiting (0 or more), and how long this one waited (milliseconds)."""

    def set_batch_fill_ratio(self, ratio: float) -> None:
        """Batch size over the largest possible one; 0 to 1."""

    def set_streaming(
        self,
        time_to_first_token_ms: float | None = None,
        inter_token_latency_ms: float | None = None,
    ) -> None:
        """Milliseconds from start to first token, and the mean between two tokens after it."""

    def set_request_id(self, request_id: str) -> None:
        """The request, as the server names it."""

    def set_finish_reason(self, reason: str) -> None:
        """Why generating ended: `stop`, `length`, ... Several, of several choices, have commas between them."""

    def set_token_details(
        self, cached_input: int | None = None, reasoning_output: int | None = None
    ) -> None:
        """Of the tokens: those read that a cache had, and those generated that were reasoning."""

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
        """What a request met: preemptions, when work on it began, its tokens' intervals, its steps."""

    def set_engine(self, engine: str) -> None:
        """Which engine of the process ran the step or the request."""

    def set_step(
        self,
        index: int | None = None,
        prefill_tokens: int | None = None,
        decode_tokens: int | None = None,
        kv_cache_usage: float | None = None,
    ) -> None:
        """What a step did: its index, the tokens it read and generated, the KV cache (0 to 1) after it."""


class SpanFields(TypedDict, total=False):
    """Fields as keywords; None leaves one out."""

    model_version: str | None
    framework: str | None
    pipeline_stage: str | None
    request_id: str | None
    finish_reason: str | None
    engine: str | None
    membership: str | None
    batch_size: int | None
    input_tokens: int | None
    output_tokens: int | None
    queue_depth: int | None
    cached_input_tokens: int | None
    reasoning_output_tokens: int | None
    sequence_length: float | None
    cache_hit_rate: float | None
    queue_wait_time_ms: float | None
    batch_fill_ratio: float | None
    time_to_first_token_ms: float | None
    inter_token_latency_ms: float | None
    preemption_count: int | None
    step_count: int | None
    prefill_tokens: int | None
    decode_tokens: int | None
    scheduled_after_ms: float | None
    max_inter_token_latency_ms: float | None
    kv_cache_usage: float | None
    step_index: int | None
    first_step: int | None
    last_step: int | None
    token_intervals: Sequence[int] | None


class SpanColumns(TypedDict, total=False):
    """Columns as keywords: buffers of numbers, sequences of the rest."""

    model_version: Sequence[str | None] | None
    framework: Sequence[str | None] | None
    pipeline_stage: Sequence[str | None] | None
    request_id: Sequence[str | None] | None
    finish_reason: Sequence[str | None] | None
    engine: Sequence[str | None] | None
    membership: Sequence[str | None] | None
    batch_size: Any
    input_tokens: Any
    output_tokens: Any
    queue_depth: Any
    cached_input_tokens: Any
    reasoning_output_tokens: Any
    sequence_length: Any
    cache_hit_rate: Any
    queue_wait_time_ms: Any
    batch_fill_ratio: Any
    time_to_first_token_ms: Any
    inter_token_latency_ms: Any
    preemption_count: Any
    step_count: Any
    prefill_tokens: Any
    decode_tokens: Any
    scheduled_after_ms: Any
    max_inter_token_latency_ms: Any
    kv_cache_usage: Any
    step_index: Any
    first_step: Any
    last_step: Any
    token_intervals: Sequence[Sequence[int] | None] | None


SETTERS: Final = {
    "model_version": ("set_model_version", "version"),
    "framework": ("set_framework", "framework"),
    "pipeline_stage": ("set_pipeline_stage", "stage"),
    "request_id": ("set_request_id", "request_id"),
    "finish_reason": ("set_finish_reason", "reason"),
    "engine": ("set_engine", "engine"),
    "membership": ("set_request", "membership"),
    "batch_size": ("set_batch_size", "size"),
    "input_tokens": ("set_tokens", "input"),
    "output_tokens": ("set_tokens", "output"),
    "queue_depth": ("set_queue", "depth"),
    "cached_input_tokens": ("set_token_details", "cached_input"),
    "reasoning_output_tokens": ("set_token_details", "reasoning_output"),
    "sequence_length": ("set_sequence_length", "length"),
    "cache_hit_rate": ("set_cache_hit_rate", "rate"),
    "queue_wait_time_ms": ("set_queue", "wait_time_ms"),
    "batch_fill_ratio": ("set_batch_fill_ratio", "ratio"),
    "time_to_first_token_ms": ("set_streaming", "time_to_first_token_ms"),
    "inter_token_latency_ms": ("set_streaming", "inter_token_latency_ms"),
    "preemption_count": ("set_request", "preemption_count"),
    "step_count": ("set_request", "step_count"),
    "prefill_tokens": ("set_step", "prefill_tokens"),
    "decode_tokens": ("set_step", "decode_tokens"),
    "scheduled_after_ms": ("set_request", "scheduled_after_ms"),
    "max_inter_token_latency_ms": ("set_request", "max_inter_token_latency_ms"),
    "kv_cache_usage": ("set_step", "kv_cache_usage"),
    "step_index": ("set_step", "index"),
    "first_step": ("set_request", "first_step"),
    "last_step": ("set_request", "last_step"),
    "token_intervals": ("set_request", "token_intervals"),
}
"""By field, the method of a span that sets it, and its parameter."""
