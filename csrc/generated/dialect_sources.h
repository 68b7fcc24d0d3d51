/* Generated from proto/dialects.toml by tools/generate.py, which is where to change it. */
#ifndef INFERTRACE_DIALECT_SOURCES_H
#define INFERTRACE_DIALECT_SOURCES_H

#include <stdint.h>

enum dialect_form {
    AS_TEXT,
    AS_LABEL,
    AS_COUNT,
    AS_SECONDS,
    AS_MS,
    AS_MEASURE,
    AS_RATIO,
    AS_READING,
    AS_SIZE,
    AS_REASONS,
    AS_JSON_TEXT,
    AS_PER_TOKEN,
    AS_SHARE,
    AS_EVENT,
    AS_SCOPE,
    AS_INTERVALS,
    AS_OTHER
};

enum dialect_target_name {
    TARGET_MODEL_NAME,
    TARGET_MODEL_VERSION,
    TARGET_FRAMEWORK,
    TARGET_INPUT_TOKENS,
    TARGET_OUTPUT_TOKENS,
    TARGET_CACHED_INPUT_TOKENS,
    TARGET_REASONING_OUTPUT_TOKENS,
    TARGET_TIME_TO_FIRST_TOKEN_MS,
    TARGET_INTER_TOKEN_LATENCY_MS,
    TARGET_QUEUE_WAIT_TIME_MS,
    TARGET_REQUEST_ID,
    TARGET_FINISH_REASON,
    TARGET_CACHE_HIT_RATE,
    TARGET_BATCH_SIZE,
    TARGET_SEQUENCE_LENGTH,
    TARGET_PIPELINE_STAGE,
    TARGET_QUEUE_DEPTH,
    TARGET_BATCH_FILL_RATIO,
    TARGET_PREEMPTION_COUNT,
    TARGET_SCHEDULED_AFTER_MS,
    TARGET_MAX_INTER_TOKEN_LATENCY_MS,
    TARGET_TOKEN_INTERVALS,
    TARGET_ENGINE,
    TARGET_STEP_INDEX,
    TARGET_FIRST_STEP,
    TARGET_LAST_STEP,
    TARGET_STEP_COUNT,
    TARGET_PREFILL_TOKENS,
    TARGET_DECODE_TOKENS,
    TARGET_KV_CACHE_USAGE,
    TARGET_MEMBERSHIP,
    TARGET_GPU_UTILIZATION_PERCENT,
    TARGET_GPU_MEMORY_USED_BYTES,
    TARGET_GPU_MEMORY_TOTAL_BYTES,
    TARGET_GPU_DEVICE_ID,
    TARGET_CPU_UTILIZATION_PERCENT,
    TARGET_MEMORY_HEAP_BYTES,
    TARGET_SAMPLE_AGE_MS,
    TARGET_GPU_POWER_WATTS,
    TARGET_GPU_TEMPERATURE_CELSIUS,
    TARGET_COUNT
};

typedef struct {
    const char *name;
    uint8_t size;
    uint8_t form;
    uint8_t target;
    uint8_t one; /* of a share: the targets of its two counts */
    uint8_t other;
} dialect_source;

/* By target, and the first that is present counts. */
static const dialect_source DIALECT_SOURCES[] = {
    {"infertrace.model_name", 21, AS_TEXT, 0, 0, 0},
    {"gen_ai.response.model", 21, AS_TEXT, 0, 0, 0},
    {"gen_ai.request.model", 20, AS_TEXT, 0, 0, 0},
    {"llm.response.model_name", 23, AS_TEXT, 0, 0, 0},
    {"llm.model_name", 14, AS_TEXT, 0, 0, 0},
    {"llm.request.model_name", 22, AS_TEXT, 0, 0, 0},
    {"embedding.model_name", 20, AS_TEXT, 0, 0, 0},
    {"reranker.model_name", 19, AS_TEXT, 0, 0, 0},
    {"langfuse.observation.model.name", 31, AS_TEXT, 0, 0, 0},
    {"ai.response.model", 17, AS_TEXT, 0, 0, 0},
    {"ai.model.id", 11, AS_TEXT, 0, 0, 0},
    {"triton.model_name", 17, AS_TEXT, 0, 0, 0},
    {"gen_ai.request.model_name", 25, AS_TEXT, 0, 0, 0},
    {"litellm.provider.model", 22, AS_TEXT, 0, 0, 0},
    {"mlflow.llm.model", 16, AS_JSON_TEXT, 0, 0, 0},
    {"model", 5, AS_JSON_TEXT, 0, 0, 0},
    {"infertrace.model_version", 24, AS_TEXT, 1, 0, 0},
    {"triton.model_version", 20, AS_LABEL, 1, 0, 0},
    {"infertrace.framework", 20, AS_TEXT, 2, 0, 0},
    {"gen_ai.provider.name", 20, AS_TEXT, 2, 0, 0},
    {"gen_ai.system", 13, AS_TEXT, 2, 0, 0},
    {"llm.provider", 12, AS_TEXT, 2, 0, 0},
    {"llm.system", 10, AS_TEXT, 2, 0, 0},
    {"ai.model.provider", 17, AS_TEXT, 2, 0, 0},
    {"vllm.", 5, AS_SCOPE, 2, 0, 0},
    {"sglang", 6, AS_SCOPE, 2, 0, 0},
    {"tensorrt_llm", 12, AS_SCOPE, 2, 0, 0},
    {"triton", 6, AS_SCOPE, 2, 0, 0},
    {"text-generation-inference", 25, AS_SCOPE, 2, 0, 0},
    {"litellm", 7, AS_SCOPE, 2, 0, 0},
    {"infertrace.input_tokens", 23, AS_COUNT, 3, 0, 0},
    {"gen_ai.usage.input_tokens", 25, AS_COUNT, 3, 0, 0},
    {"gen_ai.usage.prompt_tokens", 26, AS_COUNT, 3, 0, 0},
    {"llm.token_count.prompt", 22, AS_COUNT, 3, 0, 0},
    {"llm.usage.prompt_tokens", 23, AS_COUNT, 3, 0, 0},
    {"ai.usage.promptTokens", 21, AS_COUNT, 3, 0, 0},
    {"ai.usage.inputTokens", 20, AS_COUNT, 3, 0, 0},
    {"langfuse.observation.usage_details", 34, AS_OTHER, 3, 0, 0},
    {"mlflow.chat.tokenUsage", 22, AS_OTHER, 3, 0, 0},
    {"infertrace.output_tokens", 24, AS_COUNT, 4, 0, 0},
    {"gen_ai.usage.output_tokens", 26, AS_COUNT, 4, 0, 0},
    {"gen_ai.usage.completion_tokens", 30, AS_COUNT, 4, 0, 0},
    {"llm.token_count.completion", 26, AS_COUNT, 4, 0, 0},
    {"llm.usage.completion_tokens", 27, AS_COUNT, 4, 0, 0},
    {"ai.usage.completionTokens", 25, AS_COUNT, 4, 0, 0},
    {"ai.usage.outputTokens", 21, AS_COUNT, 4, 0, 0},
    {"langfuse.observation.usage_details", 34, AS_OTHER, 4, 0, 0},
    {"mlflow.chat.tokenUsage", 22, AS_OTHER, 4, 0, 0},
    {"infertrace.cached_input_tokens", 30, AS_COUNT, 5, 0, 0},
    {"gen_ai.usage.cache_read.input_tokens", 36, AS_COUNT, 5, 0, 0},
    {"gen_ai.usage.cache_read_input_tokens", 36, AS_COUNT, 5, 0, 0},
    {"gen_ai.usage.cached_tokens", 26, AS_COUNT, 5, 0, 0},
    {"llm.token_count.prompt_details.cache_read", 41, AS_COUNT, 5, 0, 0},
    {"ai.usage.cachedInputTokens", 26, AS_COUNT, 5, 0, 0},
    {"langfuse.observation.usage_details", 34, AS_OTHER, 5, 0, 0},
    {"mlflow.chat.tokenUsage", 22, AS_OTHER, 5, 0, 0},
    {"infertrace.reasoning_output_tokens", 34, AS_COUNT, 6, 0, 0},
    {"gen_ai.usage.reasoning.output_tokens", 36, AS_COUNT, 6, 0, 0},
    {"gen_ai.usage.reasoning_tokens", 29, AS_COUNT, 6, 0, 0},
    {"llm.token_count.completion_details.reasoning", 44, AS_COUNT, 6, 0, 0},
    {"ai.usage.reasoningTokens", 24, AS_COUNT, 6, 0, 0},
    {"langfuse.observation.usage_details", 34, AS_OTHER, 6, 0, 0},
    {"infertrace.time_to_first_token_ms", 33, AS_MEASURE, 7, 0, 0},
    {"gen_ai.latency.time_to_first_token", 34, AS_SECONDS, 7, 0, 0},
    {"gen_ai.response.time_to_first_chunk", 35, AS_SECONDS, 7, 0, 0},
    {"gen_ai.server.time_to_first_token", 33, AS_SECONDS, 7, 0, 0},
    {"gen_ai.response.time_to_first_token", 35, AS_SECONDS, 7, 0, 0},
    {"ai.response.msToFirstChunk", 26, AS_MS, 7, 0, 0},
    {"ai.stream.msToFirstChunk", 24, AS_MS, 7, 0, 0},
    {"langfuse.observation.completion_start_time", 42, AS_OTHER, 7, 0, 0},
    {"First Token Stream Event", 24, AS_EVENT, 7, 0, 0},
    {"gen_ai.content.completion.chunk", 31, AS_EVENT, 7, 0, 0},
    {"llm.content.completion.chunk", 28, AS_EVENT, 7, 0, 0},
    {"mlflow.chunk.item.0", 19, AS_EVENT, 7, 0, 0},
    {"infertrace.inter_token_latency_ms", 33, AS_MEASURE, 8, 0, 0},
    {"gen_ai.latency.time_in_model_decode", 35, AS_PER_TOKEN, 8, 0, 0},
    {"gen_ai.server.time_per_output_token", 35, AS_SECONDS, 8, 0, 0},
    {"time_per_token", 14, AS_OTHER, 8, 0, 0},
    {"infertrace.queue_wait_time_ms", 29, AS_MEASURE, 9, 0, 0},
    {"gen_ai.latency.time_in_queue", 28, AS_SECONDS, 9, 0, 0},
    {"queue_time", 10, AS_OTHER, 9, 0, 0},
    {"COMPUTE_START", 13, AS_OTHER, 9, 0, 0},
    {"infertrace.request_id", 21, AS_TEXT, 10, 0, 0},
    {"gen_ai.request.id", 17, AS_TEXT, 10, 0, 0},
    {"gen_ai.response.id", 18, AS_TEXT, 10, 0, 0},
    {"triton.request_id", 17, AS_TEXT, 10, 0, 0},
    {"ai.response.id", 14, AS_TEXT, 10, 0, 0},
    {"infertrace.finish_reason", 24, AS_TEXT, 11, 0, 0},
    {"gen_ai.response.finish_reasons", 30, AS_REASONS, 11, 0, 0},
    {"gen_ai.response.finish_reason", 29, AS_TEXT, 11, 0, 0},
    {"llm.finish_reason", 17, AS_TEXT, 11, 0, 0},
    {"gen_ai.completion.0.finish_reason", 33, AS_TEXT, 11, 0, 0},
    {"ai.response.finishReason", 24, AS_TEXT, 11, 0, 0},
    {"infertrace.cache_hit_rate", 25, AS_RATIO, 12, 0, 0},
    {"cached_input_tokens", 19, AS_SHARE, 12, 5, 3},
    {"infertrace.batch_size", 21, AS_COUNT, 13, 0, 0},
    {"infertrace.sequence_length", 26, AS_MEASURE, 14, 0, 0},
    {"infertrace.pipeline_stage", 25, AS_TEXT, 15, 0, 0},
    {"infertrace.queue_depth", 22, AS_COUNT, 16, 0, 0},
    {"infertrace.batch_fill_ratio", 27, AS_RATIO, 17, 0, 0},
    {"infertrace.preemption_count", 27, AS_COUNT, 18, 0, 0},
    {"infertrace.scheduled_after_ms", 29, AS_MEASURE, 19, 0, 0},
    {"infertrace.max_inter_token_latency_ms", 37, AS_MEASURE, 20, 0, 0},
    {"infertrace.token_intervals", 26, AS_INTERVALS, 21, 0, 0},
    {"infertrace.engine", 17, AS_TEXT, 22, 0, 0},
    {"infertrace.step_index", 21, AS_SIZE, 23, 0, 0},
    {"infertrace.first_step", 21, AS_SIZE, 24, 0, 0},
    {"infertrace.last_step", 20, AS_SIZE, 25, 0, 0},
    {"infertrace.step_count", 21, AS_COUNT, 26, 0, 0},
    {"infertrace.prefill_tokens", 25, AS_COUNT, 27, 0, 0},
    {"infertrace.decode_tokens", 24, AS_COUNT, 28, 0, 0},
    {"infertrace.kv_cache_usage", 25, AS_RATIO, 29, 0, 0},
    {"infertrace.membership", 21, AS_TEXT, 30, 0, 0},
    {"infertrace.gpu_utilization_percent", 34, AS_READING, 31, 0, 0},
    {"infertrace.gpu_memory_used_bytes", 32, AS_SIZE, 32, 0, 0},
    {"infertrace.gpu_memory_total_bytes", 33, AS_SIZE, 33, 0, 0},
    {"infertrace.gpu_device_id", 24, AS_TEXT, 34, 0, 0},
    {"infertrace.cpu_utilization_percent", 34, AS_READING, 35, 0, 0},
    {"infertrace.memory_heap_bytes", 28, AS_SIZE, 36, 0, 0},
    {"infertrace.sample_age_ms", 24, AS_MEASURE, 37, 0, 0},
    {"infertrace.gpu_power_watts", 26, AS_READING, 38, 0, 0},
    {"infertrace.gpu_temperature_celsius", 34, AS_READING, 39, 0, 0},
};
enum { SOURCE_COUNT = 122, SOURCE_WORDS = 2 };

/* A bit for each source that is no attribute or event of the span. */
static const uint64_t ASKED_OF_EACH_SPAN[] = {
    0x000000003f000000u,
    0x0000000040000000u,
};

/* Sources by the length of their names, and where each length begins. */
static const uint8_t KEYS_BY_SIZE[] = {15, 22, 80, 10, 21, 20, 4, 77, 86, 14, 9, 11, 23, 83, 85, 90, 104, 84, 7, 2, 6, 17, 18, 19, 36, 107, 0, 1, 35, 45, 82, 95, 105, 106, 108, 112, 5, 13, 33, 38, 47, 55, 98, 3, 30, 34, 16, 39, 60, 68, 87, 92, 110, 116, 119, 12, 31, 44, 93, 97, 109, 111, 32, 40, 42, 51, 53, 67, 96, 103, 120, 43, 99, 100, 79, 118, 58, 78, 89, 101, 41, 48, 88, 8, 114, 62, 65, 74, 91, 115, 37, 46, 54, 56, 61, 63, 113, 117, 121, 64, 66, 75, 76, 49, 50, 57, 102, 52, 69, 59};
static const uint8_t KEYS_START[] = {0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 3, 4, 5, 6, 9, 9, 10, 17, 18, 19, 26, 36, 43, 46, 55, 62, 71, 74, 76, 80, 83, 84, 85, 90, 99, 103, 106, 107, 107, 107, 107, 108, 109, 109, 110};
enum { KEYS_LONGEST = 44 };

/* Sources by the length of their names, and where each length begins. */
static const uint8_t EVENTS_BY_SIZE[] = {81, 73, 70, 72, 71};
static const uint8_t EVENTS_START[] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 5};
enum { EVENTS_LONGEST = 31 };

typedef struct {
    uint8_t target;
    uint16_t tag; /* the first byte is the lowest */
    uint8_t kind;
} context_field;

enum {
    KIND_OF_TEXT, KIND_OF_COUNT, KIND_OF_MEASURE, KIND_OF_READING, KIND_OF_SIZE,
    KIND_OF_INTERVALS
};

/* InferenceContext, by number. */
static const context_field INFERENCE_CONTEXT[] = {
    {TARGET_MODEL_NAME, 0x000a, KIND_OF_TEXT},
    {TARGET_MODEL_VERSION, 0x0012, KIND_OF_TEXT},
    {TARGET_BATCH_SIZE, 0x0018, KIND_OF_COUNT},
    {TARGET_INPUT_TOKENS, 0x0020, KIND_OF_COUNT},
    {TARGET_OUTPUT_TOKENS, 0x0028, KIND_OF_COUNT},
    {TARGET_FRAMEWORK, 0x0032, KIND_OF_TEXT},
    {TARGET_SEQUENCE_LENGTH, 0x003d, KIND_OF_MEASURE},
    {TARGET_CACHE_HIT_RATE, 0x0045, KIND_OF_MEASURE},
    {TARGET_PIPELINE_STAGE, 0x004a, KIND_OF_TEXT},
    {TARGET_QUEUE_DEPTH, 0x0050, KIND_OF_COUNT},
    {TARGET_QUEUE_WAIT_TIME_MS, 0x005d, KIND_OF_MEASURE},
    {TARGET_BATCH_FILL_RATIO, 0x0065, KIND_OF_MEASURE},
    {TARGET_TIME_TO_FIRST_TOKEN_MS, 0x006d, KIND_OF_MEASURE},
    {TARGET_INTER_TOKEN_LATENCY_MS, 0x0075, KIND_OF_MEASURE},
    {TARGET_REQUEST_ID, 0x007a, KIND_OF_TEXT},
    {TARGET_FINISH_REASON, 0x0182, KIND_OF_TEXT},
    {TARGET_CACHED_INPUT_TOKENS, 0x0188, KIND_OF_COUNT},
    {TARGET_REASONING_OUTPUT_TOKENS, 0x0190, KIND_OF_COUNT},
    {TARGET_PREEMPTION_COUNT, 0x0198, KIND_OF_COUNT},
    {TARGET_SCHEDULED_AFTER_MS, 0x01a5, KIND_OF_MEASURE},
    {TARGET_MAX_INTER_TOKEN_LATENCY_MS, 0x01ad, KIND_OF_MEASURE},
    {TARGET_TOKEN_INTERVALS, 0x01b2, KIND_OF_INTERVALS},
    {TARGET_ENGINE, 0x01ba, KIND_OF_TEXT},
    {TARGET_STEP_INDEX, 0x01c0, KIND_OF_SIZE},
    {TARGET_FIRST_STEP, 0x01c8, KIND_OF_SIZE},
    {TARGET_LAST_STEP, 0x01d0, KIND_OF_SIZE},
    {TARGET_STEP_COUNT, 0x01d8, KIND_OF_COUNT},
    {TARGET_PREFILL_TOKENS, 0x01e0, KIND_OF_COUNT},
    {TARGET_DECODE_TOKENS, 0x01e8, KIND_OF_COUNT},
    {TARGET_KV_CACHE_USAGE, 0x01f5, KIND_OF_MEASURE},
    {TARGET_MEMBERSHIP, 0x01fa, KIND_OF_TEXT},
};
/* ResourceMetrics, by number. */
static const context_field RESOURCE_CONTEXT[] = {
    {TARGET_GPU_UTILIZATION_PERCENT, 0x0009, KIND_OF_READING},
    {TARGET_GPU_MEMORY_USED_BYTES, 0x0010, KIND_OF_SIZE},
    {TARGET_GPU_MEMORY_TOTAL_BYTES, 0x0018, KIND_OF_SIZE},
    {TARGET_GPU_DEVICE_ID, 0x0022, KIND_OF_TEXT},
    {TARGET_CPU_UTILIZATION_PERCENT, 0x0029, KIND_OF_READING},
    {TARGET_MEMORY_HEAP_BYTES, 0x0030, KIND_OF_SIZE},
    {TARGET_SAMPLE_AGE_MS, 0x003d, KIND_OF_MEASURE},
    {TARGET_GPU_POWER_WATTS, 0x0041, KIND_OF_READING},
    {TARGET_GPU_TEMPERATURE_CELSIUS, 0x0049, KIND_OF_READING},
};

#endif
