"""The setters of a span and the keywords of a tracer, with types.

Generated from proto/fields.toml by tools/generate.py, which is where to change it.
"""

from __future__ import annotations

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


class SpanFields(TypedDict, total=False):
    """Fields as keywords; None leaves one out."""

    model_version: str | None
    framework: str | None
    pipeline_stage: str | None
    request_id: str | None
    finish_reason: str | None
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


class SpanColumns(TypedDict, total=False):
    """Columns of numbers as keywords; None leaves one out."""

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


SETTERS: Final = {
    "model_version": ("set_model_version", "version"),
    "framework": ("set_framework", "framework"),
    "pipeline_stage": ("set_pipeline_stage", "stage"),
    "request_id": ("set_request_id", "request_id"),
    "finish_reason": ("set_finish_reason", "reason"),
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
}
"""By field, the method of a span that sets it, and its parameter."""
