"""Where the fields of a span come from in OTLP.

Generated from proto/dialects.toml by tools/generate.py, which is where to change it.
"""

from __future__ import annotations

from typing import Final

DIALECT_SOURCES: Final = (
    (
        "model_name",
        (
            ("infertrace.model_name", "text", ""),
            ("gen_ai.response.model", "text", ""),
            ("gen_ai.request.model", "text", ""),
            ("llm.response.model_name", "text", ""),
            ("llm.model_name", "text", ""),
            ("llm.request.model_name", "text", ""),
            ("embedding.model_name", "text", ""),
            ("reranker.model_name", "text", ""),
            ("langfuse.observation.model.name", "text", ""),
            ("ai.response.model", "text", ""),
            ("ai.model.id", "text", ""),
            ("triton.model_name", "text", ""),
            ("gen_ai.request.model_name", "text", ""),
            ("litellm.provider.model", "text", ""),
            ("mlflow.llm.model", "json_text", ""),
            ("model", "json_text", ""),
        ),
    ),
    (
        "model_version",
        (
            ("infertrace.model_version", "text", ""),
            ("triton.model_version", "label", ""),
        ),
    ),
    (
        "framework",
        (
            ("infertrace.framework", "text", ""),
            ("gen_ai.provider.name", "text", ""),
            ("gen_ai.system", "text", ""),
            ("llm.provider", "text", ""),
            ("llm.system", "text", ""),
            ("ai.model.provider", "text", ""),
            ("vllm.", "scope", "vllm"),
            ("sglang", "scope", "sglang"),
            ("tensorrt_llm", "scope", "tensorrt_llm"),
            ("triton", "scope", "triton"),
            ("text-generation-inference", "scope", "text-generation-inference"),
            ("litellm", "scope", "litellm"),
        ),
    ),
    (
        "input_tokens",
        (
            ("infertrace.input_tokens", "count", ""),
            ("gen_ai.usage.input_tokens", "count", ""),
            ("gen_ai.usage.prompt_tokens", "count", ""),
            ("llm.token_count.prompt", "count", ""),
            ("llm.usage.prompt_tokens", "count", ""),
            ("ai.usage.promptTokens", "count", ""),
            ("ai.usage.inputTokens", "count", ""),
            ("langfuse.observation.usage_details", "json", "input"),
            ("mlflow.chat.tokenUsage", "json", "input_tokens"),
        ),
    ),
    (
        "output_tokens",
        (
            ("infertrace.output_tokens", "count", ""),
            ("gen_ai.usage.output_tokens", "count", ""),
            ("gen_ai.usage.completion_tokens", "count", ""),
            ("llm.token_count.completion", "count", ""),
            ("llm.usage.completion_tokens", "count", ""),
            ("ai.usage.completionTokens", "count", ""),
            ("ai.usage.outputTokens", "count", ""),
            ("langfuse.observation.usage_details", "json", "output"),
            ("mlflow.chat.tokenUsage", "json", "output_tokens"),
        ),
    ),
    (
        "cached_input_tokens",
        (
            ("infertrace.cached_input_tokens", "count", ""),
            ("gen_ai.usage.cache_read.input_tokens", "count", ""),
            ("gen_ai.usage.cache_read_input_tokens", "count", ""),
            ("gen_ai.usage.cached_tokens", "count", ""),
            ("llm.token_count.prompt_details.cache_read", "count", ""),
            ("ai.usage.cachedInputTokens", "count", ""),
            ("langfuse.observation.usage_details", "json", "input_cached_tokens"),
            ("mlflow.chat.tokenUsage", "json", "cache_read_input_tokens"),
        ),
    ),
    (
        "reasoning_output_tokens",
        (
            ("infertrace.reasoning_output_tokens", "count", ""),
            ("gen_ai.usage.reasoning.output_tokens", "count", ""),
            ("gen_ai.usage.reasoning_tokens", "count", ""),
            ("llm.token_count.completion_details.reasoning", "count", ""),
            ("ai.usage.reasoningTokens", "count", ""),
            ("langfuse.observation.usage_details", "json", "output_reasoning_tokens"),
        ),
    ),
    (
        "time_to_first_token_ms",
        (
            ("infertrace.time_to_first_token_ms", "measure", ""),
            ("gen_ai.latency.time_to_first_token", "seconds", ""),
            ("gen_ai.response.time_to_first_chunk", "seconds", ""),
            ("gen_ai.server.time_to_first_token", "seconds", ""),
            ("gen_ai.response.time_to_first_token", "seconds", ""),
            ("ai.response.msToFirstChunk", "ms", ""),
            ("ai.stream.msToFirstChunk", "ms", ""),
            ("langfuse.observation.completion_start_time", "instant", ""),
            ("First Token Stream Event", "event", ""),
            ("gen_ai.content.completion.chunk", "event", ""),
            ("llm.content.completion.chunk", "event", ""),
            ("mlflow.chunk.item.0", "event", ""),
        ),
    ),
    (
        "inter_token_latency_ms",
        (
            ("infertrace.inter_token_latency_ms", "measure", ""),
            ("gen_ai.latency.time_in_model_decode", "per_token", ""),
            ("gen_ai.server.time_per_output_token", "seconds", ""),
            ("time_per_token", "duration", ""),
        ),
    ),
    (
        "queue_wait_time_ms",
        (
            ("infertrace.queue_wait_time_ms", "measure", ""),
            ("gen_ai.latency.time_in_queue", "seconds", ""),
            ("queue_time", "duration", ""),
            ("COMPUTE_START", "event_since", "QUEUE_START"),
        ),
    ),
    (
        "request_id",
        (
            ("infertrace.request_id", "text", ""),
            ("gen_ai.request.id", "text", ""),
            ("gen_ai.response.id", "text", ""),
            ("triton.request_id", "text", ""),
            ("ai.response.id", "text", ""),
        ),
    ),
    (
        "finish_reason",
        (
            ("infertrace.finish_reason", "text", ""),
            ("gen_ai.response.finish_reasons", "reasons", ""),
            ("gen_ai.response.finish_reason", "text", ""),
            ("llm.finish_reason", "text", ""),
            ("gen_ai.completion.0.finish_reason", "text", ""),
            ("ai.response.finishReason", "text", ""),
        ),
    ),
    (
        "cache_hit_rate",
        (
            ("infertrace.cache_hit_rate", "ratio", ""),
            ("cached_input_tokens", "share", "input_tokens"),
        ),
    ),
    ("batch_size", (("infertrace.batch_size", "count", ""),)),
    ("sequence_length", (("infertrace.sequence_length", "measure", ""),)),
    ("pipeline_stage", (("infertrace.pipeline_stage", "text", ""),)),
    ("queue_depth", (("infertrace.queue_depth", "count", ""),)),
    ("batch_fill_ratio", (("infertrace.batch_fill_ratio", "ratio", ""),)),
    ("gpu_utilization_percent", (("infertrace.gpu_utilization_percent", "reading", ""),)),
    ("gpu_memory_used_bytes", (("infertrace.gpu_memory_used_bytes", "size", ""),)),
    ("gpu_memory_total_bytes", (("infertrace.gpu_memory_total_bytes", "size", ""),)),
    ("gpu_device_id", (("infertrace.gpu_device_id", "text", ""),)),
    ("cpu_utilization_percent", (("infertrace.cpu_utilization_percent", "reading", ""),)),
    ("memory_heap_bytes", (("infertrace.memory_heap_bytes", "size", ""),)),
    ("sample_age_ms", (("infertrace.sample_age_ms", "measure", ""),)),
    ("gpu_power_watts", (("infertrace.gpu_power_watts", "reading", ""),)),
    ("gpu_temperature_celsius", (("infertrace.gpu_temperature_celsius", "reading", ""),)),
)
"""Field and sources; a source is a name, how it is read, and what that needs to know."""

CONTEXT_FIELDS: Final = (
    (
        "InferenceContext",
        (
            ("model_name", b"\n", "text"),
            ("model_version", b"\x12", "text"),
            ("batch_size", b"\x18", "count"),
            ("input_tokens", b" ", "count"),
            ("output_tokens", b"(", "count"),
            ("framework", b"2", "text"),
            ("sequence_length", b"=", "measure"),
            ("cache_hit_rate", b"E", "ratio"),
            ("pipeline_stage", b"J", "text"),
            ("queue_depth", b"P", "count"),
            ("queue_wait_time_ms", b"]", "measure"),
            ("batch_fill_ratio", b"e", "ratio"),
            ("time_to_first_token_ms", b"m", "measure"),
            ("inter_token_latency_ms", b"u", "measure"),
            ("request_id", b"z", "text"),
            ("finish_reason", b"\x82\x01", "text"),
            ("cached_input_tokens", b"\x88\x01", "count"),
            ("reasoning_output_tokens", b"\x90\x01", "count"),
        ),
    ),
    (
        "ResourceMetrics",
        (
            ("gpu_utilization_percent", b"\t", "reading"),
            ("gpu_memory_used_bytes", b"\x10", "size"),
            ("gpu_memory_total_bytes", b"\x18", "size"),
            ("gpu_device_id", b'"', "text"),
            ("cpu_utilization_percent", b")", "reading"),
            ("memory_heap_bytes", b"0", "size"),
            ("sample_age_ms", b"=", "measure"),
            ("gpu_power_watts", b"A", "reading"),
            ("gpu_temperature_celsius", b"I", "reading"),
        ),
    ),
)
"""By message, the fields in the order of their numbers: name, tag, kind."""
