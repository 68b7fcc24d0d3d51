/* Generated from proto/conventions.toml and fields.toml by tools/generate.py, which is where to change it. */
#ifndef INFERTRACE_OTLP_ATTRIBUTES_H
#define INFERTRACE_OTLP_ATTRIBUTES_H

#include <stdint.h>

/* Where values come from, in the order in which attributes are written. */
enum {
    OTLP_OPERATION, OTLP_MODEL_NAME, OTLP_MODEL_VERSION, OTLP_BATCH_SIZE, OTLP_INPUT_TOKENS,
    OTLP_OUTPUT_TOKENS, OTLP_FRAMEWORK, OTLP_SEQUENCE_LENGTH, OTLP_CACHE_HIT_RATE,
    OTLP_PIPELINE_STAGE, OTLP_QUEUE_DEPTH, OTLP_QUEUE_WAIT_TIME_MS, OTLP_BATCH_FILL_RATIO,
    OTLP_TIME_TO_FIRST_TOKEN_MS, OTLP_INTER_TOKEN_LATENCY_MS, OTLP_REQUEST_ID, OTLP_FINISH_REASON,
    OTLP_CACHED_INPUT_TOKENS, OTLP_REASONING_OUTPUT_TOKENS, OTLP_PREEMPTION_COUNT,
    OTLP_SCHEDULED_AFTER_MS, OTLP_MAX_INTER_TOKEN_LATENCY_MS, OTLP_TOKEN_INTERVALS, OTLP_ENGINE,
    OTLP_STEP_INDEX, OTLP_FIRST_STEP, OTLP_LAST_STEP, OTLP_STEP_COUNT, OTLP_PREFILL_TOKENS,
    OTLP_DECODE_TOKENS, OTLP_KV_CACHE_USAGE, OTLP_MEMBERSHIP, OTLP_GPU_UTILIZATION_PERCENT,
    OTLP_GPU_MEMORY_USED_BYTES, OTLP_GPU_MEMORY_TOTAL_BYTES, OTLP_GPU_DEVICE_ID,
    OTLP_CPU_UTILIZATION_PERCENT, OTLP_MEMORY_HEAP_BYTES, OTLP_SAMPLE_AGE_MS, OTLP_GPU_POWER_WATTS,
    OTLP_GPU_TEMPERATURE_CELSIUS, OTLP_DURATION_NANOS, OTLP_TOTAL_TOKENS, OTLP_USAGE,
    OTLP_OPERATION_NAME, OTLP_ERROR_TYPE, OTLP_STATUS, OTLP_INVALID_FIELD_COUNT, OTLP_SOURCE_COUNT
};

enum {
    OTLP_READ_NONE, OTLP_READ_TEXT, OTLP_READ_INT32, OTLP_READ_INT64, OTLP_READ_INTERVALS,
    OTLP_READ_UINT32, OTLP_READ_FLOAT, OTLP_READ_DOUBLE
};

enum {
    OTLP_AS_TEXT, OTLP_AS_CONSTANT, OTLP_AS_INT, OTLP_AS_DOUBLE, OTLP_AS_MILLISECONDS,
    OTLP_AS_EVENT, OTLP_AS_ISO_TIME, OTLP_AS_LIST, OTLP_AS_INTERVALS, OTLP_AS_NANOSECONDS,
    OTLP_AS_JSON
};

typedef struct {
    uint8_t source;
    uint8_t read;
} otlp_field;

typedef struct {
    uint8_t source;
    uint8_t form;
    uint8_t conventions; /* bits; 0: where none of `carried` is chosen */
    uint8_t carried;
    uint8_t key_size;
    uint8_t entry_size;
    uint32_t hash;
    const char *key;
    char entry[96]; /* copied whole */
} otlp_row;

#define OTLP_ENTRY_ROOM 96

/* Bytes that all attributes of a span take at most, without their texts. */
#define OTLP_ATTRIBUTES_ROOM 3838

/* By the number of the field. */
static const otlp_field OTLP_INFERENCE_FIELDS[] = {
    [1] = {OTLP_MODEL_NAME, OTLP_READ_TEXT},
    [2] = {OTLP_MODEL_VERSION, OTLP_READ_TEXT},
    [3] = {OTLP_BATCH_SIZE, OTLP_READ_INT32},
    [4] = {OTLP_INPUT_TOKENS, OTLP_READ_INT32},
    [5] = {OTLP_OUTPUT_TOKENS, OTLP_READ_INT32},
    [6] = {OTLP_FRAMEWORK, OTLP_READ_TEXT},
    [7] = {OTLP_SEQUENCE_LENGTH, OTLP_READ_FLOAT},
    [8] = {OTLP_CACHE_HIT_RATE, OTLP_READ_FLOAT},
    [9] = {OTLP_PIPELINE_STAGE, OTLP_READ_TEXT},
    [10] = {OTLP_QUEUE_DEPTH, OTLP_READ_INT32},
    [11] = {OTLP_QUEUE_WAIT_TIME_MS, OTLP_READ_FLOAT},
    [12] = {OTLP_BATCH_FILL_RATIO, OTLP_READ_FLOAT},
    [13] = {OTLP_TIME_TO_FIRST_TOKEN_MS, OTLP_READ_FLOAT},
    [14] = {OTLP_INTER_TOKEN_LATENCY_MS, OTLP_READ_FLOAT},
    [15] = {OTLP_REQUEST_ID, OTLP_READ_TEXT},
    [16] = {OTLP_FINISH_REASON, OTLP_READ_TEXT},
    [17] = {OTLP_CACHED_INPUT_TOKENS, OTLP_READ_INT32},
    [18] = {OTLP_REASONING_OUTPUT_TOKENS, OTLP_READ_INT32},
    [19] = {OTLP_PREEMPTION_COUNT, OTLP_READ_INT32},
    [20] = {OTLP_SCHEDULED_AFTER_MS, OTLP_READ_FLOAT},
    [21] = {OTLP_MAX_INTER_TOKEN_LATENCY_MS, OTLP_READ_FLOAT},
    [22] = {OTLP_TOKEN_INTERVALS, OTLP_READ_INTERVALS},
    [23] = {OTLP_ENGINE, OTLP_READ_TEXT},
    [24] = {OTLP_STEP_INDEX, OTLP_READ_INT64},
    [25] = {OTLP_FIRST_STEP, OTLP_READ_INT64},
    [26] = {OTLP_LAST_STEP, OTLP_READ_INT64},
    [27] = {OTLP_STEP_COUNT, OTLP_READ_INT32},
    [28] = {OTLP_PREFILL_TOKENS, OTLP_READ_INT32},
    [29] = {OTLP_DECODE_TOKENS, OTLP_READ_INT32},
    [30] = {OTLP_KV_CACHE_USAGE, OTLP_READ_FLOAT},
    [31] = {OTLP_MEMBERSHIP, OTLP_READ_TEXT},
};

/* By the number of the field. */
static const otlp_field OTLP_RESOURCE_FIELDS[] = {
    [1] = {OTLP_GPU_UTILIZATION_PERCENT, OTLP_READ_DOUBLE},
    [2] = {OTLP_GPU_MEMORY_USED_BYTES, OTLP_READ_INT64},
    [3] = {OTLP_GPU_MEMORY_TOTAL_BYTES, OTLP_READ_INT64},
    [4] = {OTLP_GPU_DEVICE_ID, OTLP_READ_TEXT},
    [5] = {OTLP_CPU_UTILIZATION_PERCENT, OTLP_READ_DOUBLE},
    [6] = {OTLP_MEMORY_HEAP_BYTES, OTLP_READ_INT64},
    [7] = {OTLP_SAMPLE_AGE_MS, OTLP_READ_FLOAT},
    [8] = {OTLP_GPU_POWER_WATTS, OTLP_READ_DOUBLE},
    [9] = {OTLP_GPU_TEMPERATURE_CELSIUS, OTLP_READ_DOUBLE},
};

/* In the order of their sources. */
static const otlp_row OTLP_ROWS[] = {
    {OTLP_OPERATION, OTLP_AS_TEXT, 1, 1, 21, 24, 0x6E66909C,
     "gen_ai.operation.name", "\012\025gen_ai.operation.name\022"},
    {OTLP_MODEL_NAME, OTLP_AS_TEXT, 1, 7, 20, 23, 0x75B50DFC,
     "gen_ai.request.model", "\012\024gen_ai.request.model\022"},
    {OTLP_MODEL_NAME, OTLP_AS_TEXT, 1, 7, 21, 24, 0xB2489FFA,
     "gen_ai.response.model", "\012\025gen_ai.response.model\022"},
    {OTLP_MODEL_NAME, OTLP_AS_CONSTANT, 2, 7, 23, 32, 0xB806ED5E,
     "openinference.span.kind", "\012\027openinference.span.kind\022\005\012\003LLM"},
    {OTLP_MODEL_NAME, OTLP_AS_TEXT, 2, 7, 14, 17, 0xD27AB3C3,
     "llm.model_name", "\012\016llm.model_name\022"},
    {OTLP_MODEL_NAME, OTLP_AS_CONSTANT, 4, 7, 25, 41, 0x719C1016,
     "langfuse.observation.type", "\012\031langfuse.observation.type\022\014\012\012generation"},
    {OTLP_MODEL_NAME, OTLP_AS_TEXT, 4, 7, 31, 34, 0x0FBBB504,
     "langfuse.observation.model.name", "\012\037langfuse.observation.model.name\022"},
    {OTLP_MODEL_NAME, OTLP_AS_TEXT, 0, 7, 21, 24, 0xD5B566AF,
     "infertrace.model_name", "\012\025infertrace.model_name\022"},
    {OTLP_MODEL_VERSION, OTLP_AS_TEXT, 0, 0, 24, 27, 0x89C92528,
     "infertrace.model_version", "\012\030infertrace.model_version\022"},
    {OTLP_BATCH_SIZE, OTLP_AS_INT, 0, 0, 21, 24, 0x146C5C7E,
     "infertrace.batch_size", "\012\025infertrace.batch_size\022"},
    {OTLP_INPUT_TOKENS, OTLP_AS_INT, 1, 3, 25, 28, 0x55479796,
     "gen_ai.usage.input_tokens", "\012\031gen_ai.usage.input_tokens\022"},
    {OTLP_INPUT_TOKENS, OTLP_AS_INT, 2, 3, 22, 25, 0x0609BA19,
     "llm.token_count.prompt", "\012\026llm.token_count.prompt\022"},
    {OTLP_INPUT_TOKENS, OTLP_AS_INT, 0, 3, 23, 26, 0xF94149B5,
     "infertrace.input_tokens", "\012\027infertrace.input_tokens\022"},
    {OTLP_OUTPUT_TOKENS, OTLP_AS_INT, 1, 3, 26, 29, 0x06A35347,
     "gen_ai.usage.output_tokens", "\012\032gen_ai.usage.output_tokens\022"},
    {OTLP_OUTPUT_TOKENS, OTLP_AS_INT, 2, 3, 26, 29, 0x11F1BBA5,
     "llm.token_count.completion", "\012\032llm.token_count.completion\022"},
    {OTLP_OUTPUT_TOKENS, OTLP_AS_INT, 0, 3, 24, 27, 0xCF3CE112,
     "infertrace.output_tokens", "\012\030infertrace.output_tokens\022"},
    {OTLP_FRAMEWORK, OTLP_AS_TEXT, 1, 3, 20, 23, 0x0701C0B4,
     "gen_ai.provider.name", "\012\024gen_ai.provider.name\022"},
    {OTLP_FRAMEWORK, OTLP_AS_TEXT, 2, 3, 12, 15, 0x2F60243F,
     "llm.provider", "\012\014llm.provider\022"},
    {OTLP_FRAMEWORK, OTLP_AS_TEXT, 0, 3, 20, 23, 0xA42550D2,
     "infertrace.framework", "\012\024infertrace.framework\022"},
    {OTLP_SEQUENCE_LENGTH, OTLP_AS_DOUBLE, 0, 0, 26, 29, 0xA9DEA344,
     "infertrace.sequence_length", "\012\032infertrace.sequence_length\022"},
    {OTLP_CACHE_HIT_RATE, OTLP_AS_DOUBLE, 0, 0, 25, 28, 0x58053E01,
     "infertrace.cache_hit_rate", "\012\031infertrace.cache_hit_rate\022"},
    {OTLP_PIPELINE_STAGE, OTLP_AS_TEXT, 0, 0, 25, 28, 0xB8E356E5,
     "infertrace.pipeline_stage", "\012\031infertrace.pipeline_stage\022"},
    {OTLP_QUEUE_DEPTH, OTLP_AS_INT, 0, 0, 22, 25, 0x5B288203,
     "infertrace.queue_depth", "\012\026infertrace.queue_depth\022"},
    {OTLP_QUEUE_WAIT_TIME_MS, OTLP_AS_MILLISECONDS, 1, 1, 28, 31, 0xB0754C9F,
     "gen_ai.latency.time_in_queue", "\012\034gen_ai.latency.time_in_queue\022"},
    {OTLP_QUEUE_WAIT_TIME_MS, OTLP_AS_DOUBLE, 0, 1, 29, 32, 0x10025D4A,
     "infertrace.queue_wait_time_ms", "\012\035infertrace.queue_wait_time_ms\022"},
    {OTLP_BATCH_FILL_RATIO, OTLP_AS_DOUBLE, 0, 0, 27, 30, 0xC73AE616,
     "infertrace.batch_fill_ratio", "\012\033infertrace.batch_fill_ratio\022"},
    {OTLP_TIME_TO_FIRST_TOKEN_MS, OTLP_AS_CONSTANT, 1, 1, 21, 27, 0x1375CB3F,
     "gen_ai.request.stream", "\012\025gen_ai.request.stream\022\002\020\001"},
    {OTLP_TIME_TO_FIRST_TOKEN_MS, OTLP_AS_MILLISECONDS, 1, 1, 35, 38, 0xEF8F9AC7,
     "gen_ai.response.time_to_first_chunk", "\012#gen_ai.response.time_to_first_chunk\022"},
    {OTLP_TIME_TO_FIRST_TOKEN_MS, OTLP_AS_MILLISECONDS, 1, 1, 34, 37, 0x5110C972,
     "gen_ai.latency.time_to_first_token", "\012\042gen_ai.latency.time_to_first_token\022"},
    {OTLP_TIME_TO_FIRST_TOKEN_MS, OTLP_AS_EVENT, 2, 1, 24, 24, 0xEB8862D8,
     "First Token Stream Event", "First Token Stream Event"},
    {OTLP_TIME_TO_FIRST_TOKEN_MS, OTLP_AS_ISO_TIME, 4, 1, 42, 45, 0x20E21DC5,
     "langfuse.observation.completion_start_time", "\012*langfuse.observation.completion_start_time\022"},
    {OTLP_TIME_TO_FIRST_TOKEN_MS, OTLP_AS_DOUBLE, 0, 1, 33, 36, 0xB7EACD67,
     "infertrace.time_to_first_token_ms", "\012!infertrace.time_to_first_token_ms\022"},
    {OTLP_INTER_TOKEN_LATENCY_MS, OTLP_AS_DOUBLE, 0, 0, 33, 36, 0x33D77BD0,
     "infertrace.inter_token_latency_ms", "\012!infertrace.inter_token_latency_ms\022"},
    {OTLP_REQUEST_ID, OTLP_AS_TEXT, 1, 1, 18, 21, 0x06077E00,
     "gen_ai.response.id", "\012\022gen_ai.response.id\022"},
    {OTLP_REQUEST_ID, OTLP_AS_TEXT, 0, 1, 21, 24, 0xAEA79361,
     "infertrace.request_id", "\012\025infertrace.request_id\022"},
    {OTLP_FINISH_REASON, OTLP_AS_LIST, 1, 1, 30, 33, 0x9215E2B0,
     "gen_ai.response.finish_reasons", "\012\036gen_ai.response.finish_reasons\022"},
    {OTLP_FINISH_REASON, OTLP_AS_TEXT, 0, 1, 24, 27, 0x4A38874E,
     "infertrace.finish_reason", "\012\030infertrace.finish_reason\022"},
    {OTLP_CACHED_INPUT_TOKENS, OTLP_AS_INT, 1, 3, 36, 39, 0x3D96205F,
     "gen_ai.usage.cache_read.input_tokens", "\012$gen_ai.usage.cache_read.input_tokens\022"},
    {OTLP_CACHED_INPUT_TOKENS, OTLP_AS_INT, 2, 3, 41, 44, 0x6F123505,
     "llm.token_count.prompt_details.cache_read", "\012)llm.token_count.prompt_details.cache_read\022"},
    {OTLP_CACHED_INPUT_TOKENS, OTLP_AS_INT, 0, 3, 30, 33, 0x0421DB46,
     "infertrace.cached_input_tokens", "\012\036infertrace.cached_input_tokens\022"},
    {OTLP_REASONING_OUTPUT_TOKENS, OTLP_AS_INT, 1, 3, 36, 39, 0x231E9619,
     "gen_ai.usage.reasoning.output_tokens", "\012$gen_ai.usage.reasoning.output_tokens\022"},
    {OTLP_REASONING_OUTPUT_TOKENS, OTLP_AS_INT, 2, 3, 44, 47, 0xDDB5BA76,
     "llm.token_count.completion_details.reasoning", "\012,llm.token_count.completion_details.reasoning\022"},
    {OTLP_REASONING_OUTPUT_TOKENS, OTLP_AS_INT, 0, 3, 34, 37, 0x2CD88359,
     "infertrace.reasoning_output_tokens", "\012\042infertrace.reasoning_output_tokens\022"},
    {OTLP_PREEMPTION_COUNT, OTLP_AS_INT, 0, 0, 27, 30, 0xBE93DBDD,
     "infertrace.preemption_count", "\012\033infertrace.preemption_count\022"},
    {OTLP_SCHEDULED_AFTER_MS, OTLP_AS_DOUBLE, 0, 0, 29, 32, 0x7A4F1095,
     "infertrace.scheduled_after_ms", "\012\035infertrace.scheduled_after_ms\022"},
    {OTLP_MAX_INTER_TOKEN_LATENCY_MS, OTLP_AS_DOUBLE, 0, 0, 37, 40, 0xAD90DACF,
     "infertrace.max_inter_token_latency_ms", "\012%infertrace.max_inter_token_latency_ms\022"},
    {OTLP_TOKEN_INTERVALS, OTLP_AS_INTERVALS, 0, 0, 26, 29, 0x9DB871B2,
     "infertrace.token_intervals", "\012\032infertrace.token_intervals\022"},
    {OTLP_ENGINE, OTLP_AS_TEXT, 0, 0, 17, 20, 0xACD6CA44,
     "infertrace.engine", "\012\021infertrace.engine\022"},
    {OTLP_STEP_INDEX, OTLP_AS_INT, 0, 0, 21, 24, 0x2F7C5B77,
     "infertrace.step_index", "\012\025infertrace.step_index\022"},
    {OTLP_FIRST_STEP, OTLP_AS_INT, 0, 0, 21, 24, 0xF295CC7B,
     "infertrace.first_step", "\012\025infertrace.first_step\022"},
    {OTLP_LAST_STEP, OTLP_AS_INT, 0, 0, 20, 23, 0x00D1980D,
     "infertrace.last_step", "\012\024infertrace.last_step\022"},
    {OTLP_STEP_COUNT, OTLP_AS_INT, 0, 0, 21, 24, 0xC1F956B8,
     "infertrace.step_count", "\012\025infertrace.step_count\022"},
    {OTLP_PREFILL_TOKENS, OTLP_AS_INT, 0, 0, 25, 28, 0xC1EC0ED1,
     "infertrace.prefill_tokens", "\012\031infertrace.prefill_tokens\022"},
    {OTLP_DECODE_TOKENS, OTLP_AS_INT, 0, 0, 24, 27, 0x705BAB6B,
     "infertrace.decode_tokens", "\012\030infertrace.decode_tokens\022"},
    {OTLP_KV_CACHE_USAGE, OTLP_AS_DOUBLE, 0, 0, 25, 28, 0xE0432BE2,
     "infertrace.kv_cache_usage", "\012\031infertrace.kv_cache_usage\022"},
    {OTLP_MEMBERSHIP, OTLP_AS_TEXT, 0, 0, 21, 24, 0x89C3D05A,
     "infertrace.membership", "\012\025infertrace.membership\022"},
    {OTLP_GPU_UTILIZATION_PERCENT, OTLP_AS_DOUBLE, 0, 0, 34, 37, 0xECF0BD6D,
     "infertrace.gpu_utilization_percent", "\012\042infertrace.gpu_utilization_percent\022"},
    {OTLP_GPU_MEMORY_USED_BYTES, OTLP_AS_INT, 0, 0, 32, 35, 0x9CBEC8EE,
     "infertrace.gpu_memory_used_bytes", "\012 infertrace.gpu_memory_used_bytes\022"},
    {OTLP_GPU_MEMORY_TOTAL_BYTES, OTLP_AS_INT, 0, 0, 33, 36, 0x674AB543,
     "infertrace.gpu_memory_total_bytes", "\012!infertrace.gpu_memory_total_bytes\022"},
    {OTLP_GPU_DEVICE_ID, OTLP_AS_TEXT, 0, 0, 24, 27, 0x3F297F1D,
     "infertrace.gpu_device_id", "\012\030infertrace.gpu_device_id\022"},
    {OTLP_CPU_UTILIZATION_PERCENT, OTLP_AS_DOUBLE, 0, 0, 34, 37, 0x36728AA1,
     "infertrace.cpu_utilization_percent", "\012\042infertrace.cpu_utilization_percent\022"},
    {OTLP_MEMORY_HEAP_BYTES, OTLP_AS_INT, 0, 0, 28, 31, 0xDFF9AC94,
     "infertrace.memory_heap_bytes", "\012\034infertrace.memory_heap_bytes\022"},
    {OTLP_SAMPLE_AGE_MS, OTLP_AS_DOUBLE, 0, 0, 24, 27, 0x8DB0CB89,
     "infertrace.sample_age_ms", "\012\030infertrace.sample_age_ms\022"},
    {OTLP_GPU_POWER_WATTS, OTLP_AS_DOUBLE, 0, 0, 26, 29, 0xED68D9D0,
     "infertrace.gpu_power_watts", "\012\032infertrace.gpu_power_watts\022"},
    {OTLP_GPU_TEMPERATURE_CELSIUS, OTLP_AS_DOUBLE, 0, 0, 34, 37, 0xF2837756,
     "infertrace.gpu_temperature_celsius", "\012\042infertrace.gpu_temperature_celsius\022"},
    {OTLP_DURATION_NANOS, OTLP_AS_NANOSECONDS, 1, 1, 18, 21, 0x31627BAC,
     "gen_ai.latency.e2e", "\012\022gen_ai.latency.e2e\022"},
    {OTLP_TOTAL_TOKENS, OTLP_AS_INT, 2, 2, 21, 24, 0x5F6CF16B,
     "llm.token_count.total", "\012\025llm.token_count.total\022"},
    {OTLP_USAGE, OTLP_AS_JSON, 4, 0, 34, 37, 0xC3AEA2B8,
     "langfuse.observation.usage_details", "\012\042langfuse.observation.usage_details\022"},
    {OTLP_OPERATION_NAME, OTLP_AS_TEXT, 7, 7, 25, 28, 0x93B95347,
     "infertrace.operation_name", "\012\031infertrace.operation_name\022"},
    {OTLP_ERROR_TYPE, OTLP_AS_TEXT, 7, 7, 10, 13, 0x427A34E5,
     "error.type", "\012\012error.type\022"},
    {OTLP_STATUS, OTLP_AS_TEXT, 7, 7, 17, 20, 0xC5F8A338,
     "infertrace.status", "\012\021infertrace.status\022"},
    {OTLP_INVALID_FIELD_COUNT, OTLP_AS_INT, 7, 7, 30, 33, 0x2CAD1636,
     "infertrace.invalid_field_count", "\012\036infertrace.invalid_field_count\022"},
};

#endif
