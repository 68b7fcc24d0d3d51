# Generated from proto/fields.toml by tools/generate.py, which is where to change it.
cdef enum:
    HAS_BATCH_SIZE = 1
    HAS_INPUT_TOKENS = 2
    HAS_OUTPUT_TOKENS = 4
    HAS_QUEUE_DEPTH = 8
    HAS_CACHED_INPUT_TOKENS = 16
    HAS_REASONING_OUTPUT_TOKENS = 32
    HAS_SEQUENCE_LENGTH = 64
    HAS_CACHE_HIT_RATE = 128
    HAS_QUEUE_WAIT_TIME_MS = 256
    HAS_BATCH_FILL_RATIO = 512
    HAS_TIME_TO_FIRST_TOKEN_MS = 1024
    HAS_INTER_TOKEN_LATENCY_MS = 2048
    HAS_PREEMPTION_COUNT = 4096
    HAS_STEP_COUNT = 8192
    HAS_PREFILL_TOKENS = 16384
    HAS_DECODE_TOKENS = 32768
    HAS_SCHEDULED_AFTER_MS = 65536
    HAS_MAX_INTER_TOKEN_LATENCY_MS = 131072
    HAS_KV_CACHE_USAGE = 262144
    HAS_STEP_INDEX = 524288
    HAS_FIRST_STEP = 1048576
    HAS_LAST_STEP = 2097152
    HAS_TOKEN_INTERVALS = 4194304
    HAS_ENGINE = 8388608
    HAS_MEMBERSHIP = 16777216

cdef enum:
    TRACE_ID_TAG = 0x000a
    SPAN_ID_TAG = 0x0012
    PARENT_SPAN_ID_TAG = 0x001a
    SERVICE_NAME_TAG = 0x0022
    OPERATION_NAME_TAG = 0x002a
    START_TIME_UNIX_NANO_TAG = 0x0030
    DURATION_NANOS_TAG = 0x0038
    STATUS_TAG = 0x0042
    STATUS_MESSAGE_TAG = 0x0062
    INFERENCE_TAG = 0x0052
    RESOURCES_TAG = 0x005a
    TAGS_TAG = 0x004a
    ATTRIBUTES_TAG = 0x006a
    EVENTS_TAG = 0x0072
    LINKS_TAG = 0x007a
    INVALID_FIELD_COUNT_TAG = 0x0180
    KIND_TAG = 0x0188
    TRACE_STATE_TAG = 0x0192
    SCOPE_NAME_TAG = 0x019a
    SCOPE_VERSION_TAG = 0x01a2
    SCOPE_ATTRIBUTES_TAG = 0x01d2
    DROPPED_ATTRIBUTES_COUNT_TAG = 0x01a8
    DROPPED_EVENTS_COUNT_TAG = 0x01b0
    DROPPED_LINKS_COUNT_TAG = 0x01b8
    STATUS_CODE_TAG = 0x01c8
    FLAGS_TAG = 0x01c0
    MODEL_NAME_TAG = 0x000a
    SAMPLE_AGE_MS_TAG = 0x003d

cdef enum:
    MAX_COLUMNS = 24  # with start_ns and duration_ns
    FIELDS_BYTES = 89  # of all fields, but for the letters of texts
    APART_BYTES = 94  # of those that are apart, in the same way


cdef inline uint8_t* put_numbers(uint8_t* p, Span span) noexcept:
    """Write the fields of a span that has nothing else: most spans."""
    cdef uint32_t present = span.present
    if present & HAS_BATCH_SIZE:
        p = wire_uint(p, 0x18, span.batch_size)
    if present & HAS_INPUT_TOKENS:
        p = wire_uint(p, 0x20, span.input_tokens)
    if present & HAS_OUTPUT_TOKENS:
        p = wire_uint(p, 0x28, span.output_tokens)
    if present & HAS_SEQUENCE_LENGTH:
        p = put_measure(p, 0x3D, span.sequence_length)
    if present & HAS_CACHE_HIT_RATE:
        p = put_measure(p, 0x45, span.cache_hit_rate)
    if present & HAS_QUEUE_DEPTH:
        p = wire_uint(p, 0x50, span.queue_depth)
    if present & HAS_QUEUE_WAIT_TIME_MS:
        p = put_measure(p, 0x5D, span.queue_wait_time_ms)
    if present & HAS_BATCH_FILL_RATIO:
        p = put_measure(p, 0x65, span.batch_fill_ratio)
    if present & HAS_TIME_TO_FIRST_TOKEN_MS:
        p = put_measure(p, 0x6D, span.time_to_first_token_ms)
    if present & HAS_INTER_TOKEN_LATENCY_MS:
        p = put_measure(p, 0x75, span.inter_token_latency_ms)
    if present & HAS_CACHED_INPUT_TOKENS:
        p[0] = 0x88
        p = wire_uint(p + 1, 0x01, span.cached_input_tokens)
    if present & HAS_REASONING_OUTPUT_TOKENS:
        p[0] = 0x90
        p = wire_uint(p + 1, 0x01, span.reasoning_output_tokens)
    return p


cdef enum:
    APART_FROM_19 = 33550336


cdef uint8_t* put_apart_from_19(uint8_t* p, Serving serving, uint32_t present) except NULL:
    if present & HAS_PREEMPTION_COUNT:
        p[0] = 0x98
        p = wire_uint(p + 1, 0x01, serving.preemption_count)
    if present & HAS_SCHEDULED_AFTER_MS:
        p[0] = 0xA5
        p = put_measure(p + 1, 0x01, serving.scheduled_after_ms)
    if present & HAS_MAX_INTER_TOKEN_LATENCY_MS:
        p[0] = 0xAD
        p = put_measure(p + 1, 0x01, serving.max_inter_token_latency_ms)
    if present & HAS_TOKEN_INTERVALS:
        p[0] = 0xB2
        p = infertrace_put_intervals(p + 1, 0x01, &serving.times.intervals)
    if present & HAS_ENGINE:
        p[0] = 0xBA
        p = put_text(p + 1, 0x01, serving.engine)
    if present & HAS_STEP_INDEX:
        p[0] = 0xC0
        p = wire_uint(p + 1, 0x01, serving.step_index)
    if present & HAS_FIRST_STEP:
        p[0] = 0xC8
        p = wire_uint(p + 1, 0x01, serving.first_step)
    if present & HAS_LAST_STEP:
        p[0] = 0xD0
        p = wire_uint(p + 1, 0x01, serving.last_step)
    if present & HAS_STEP_COUNT:
        p[0] = 0xD8
        p = wire_uint(p + 1, 0x01, serving.step_count)
    if present & HAS_PREFILL_TOKENS:
        p[0] = 0xE0
        p = wire_uint(p + 1, 0x01, serving.prefill_tokens)
    if present & HAS_DECODE_TOKENS:
        p[0] = 0xE8
        p = wire_uint(p + 1, 0x01, serving.decode_tokens)
    if present & HAS_KV_CACHE_USAGE:
        p[0] = 0xF5
        p = put_measure(p + 1, 0x01, serving.kv_cache_usage)
    if present & HAS_MEMBERSHIP:
        p[0] = 0xFA
        p = put_text(p + 1, 0x01, serving.membership)
    return p


cdef uint8_t* put_all_fields(uint8_t* p, Span span) except NULL:
    cdef Extras extras = span.extras
    cdef uint32_t present = span.present
    if extras.model_version:
        p = put_text(p, 0x12, extras.model_version)
    if present & HAS_BATCH_SIZE:
        p = wire_uint(p, 0x18, span.batch_size)
    if present & HAS_INPUT_TOKENS:
        p = wire_uint(p, 0x20, span.input_tokens)
    if present & HAS_OUTPUT_TOKENS:
        p = wire_uint(p, 0x28, span.output_tokens)
    if extras.framework:
        p = put_text(p, 0x32, extras.framework)
    if present & HAS_SEQUENCE_LENGTH:
        p = put_measure(p, 0x3D, span.sequence_length)
    if present & HAS_CACHE_HIT_RATE:
        p = put_measure(p, 0x45, span.cache_hit_rate)
    if extras.pipeline_stage:
        p = put_text(p, 0x4A, extras.pipeline_stage)
    if present & HAS_QUEUE_DEPTH:
        p = wire_uint(p, 0x50, span.queue_depth)
    if present & HAS_QUEUE_WAIT_TIME_MS:
        p = put_measure(p, 0x5D, span.queue_wait_time_ms)
    if present & HAS_BATCH_FILL_RATIO:
        p = put_measure(p, 0x65, span.batch_fill_ratio)
    if present & HAS_TIME_TO_FIRST_TOKEN_MS:
        p = put_measure(p, 0x6D, span.time_to_first_token_ms)
    if present & HAS_INTER_TOKEN_LATENCY_MS:
        p = put_measure(p, 0x75, span.inter_token_latency_ms)
    if extras.request_id:
        p = put_text(p, 0x7A, extras.request_id)
    if extras.finish_reason:
        p[0] = 0x82
        p = put_text(p + 1, 0x01, extras.finish_reason)
    if present & HAS_CACHED_INPUT_TOKENS:
        p[0] = 0x88
        p = wire_uint(p + 1, 0x01, span.cached_input_tokens)
    if present & HAS_REASONING_OUTPUT_TOKENS:
        p[0] = 0x90
        p = wire_uint(p + 1, 0x01, span.reasoning_output_tokens)
    if present & APART_FROM_19:
        p = put_apart_from_19(p, extras.serving, present)
    return p


cdef inline uint8_t* put_fields(uint8_t* p, Span span) except NULL:
    """Write the fields of InferenceContext but for the model's name."""
    if span.extras is None:
        return put_numbers(p, span)
    return put_all_fields(p, span)


cdef int bind(Span span, str name, Column* column) except -1:
    """Let a column fill its field of `span`."""
    column.upper = FLOAT32_MAX
    if name == "batch_size":
        column.field = &span.batch_size
        column.presence = HAS_BATCH_SIZE
        column.form = COLUMN_COUNTS
    elif name == "input_tokens":
        column.field = &span.input_tokens
        column.presence = HAS_INPUT_TOKENS
        column.form = COLUMN_COUNTS
    elif name == "output_tokens":
        column.field = &span.output_tokens
        column.presence = HAS_OUTPUT_TOKENS
        column.form = COLUMN_COUNTS
    elif name == "queue_depth":
        column.field = &span.queue_depth
        column.presence = HAS_QUEUE_DEPTH
        column.form = COLUMN_COUNTS
    elif name == "cached_input_tokens":
        column.field = &span.cached_input_tokens
        column.presence = HAS_CACHED_INPUT_TOKENS
        column.form = COLUMN_COUNTS
    elif name == "reasoning_output_tokens":
        column.field = &span.reasoning_output_tokens
        column.presence = HAS_REASONING_OUTPUT_TOKENS
        column.form = COLUMN_COUNTS
    elif name == "sequence_length":
        column.field = &span.sequence_length
        column.presence = HAS_SEQUENCE_LENGTH
        column.form = COLUMN_MEASURES
    elif name == "cache_hit_rate":
        column.field = &span.cache_hit_rate
        column.presence = HAS_CACHE_HIT_RATE
        column.form = COLUMN_MEASURES
        column.upper = 1.0
    elif name == "queue_wait_time_ms":
        column.field = &span.queue_wait_time_ms
        column.presence = HAS_QUEUE_WAIT_TIME_MS
        column.form = COLUMN_MEASURES
    elif name == "batch_fill_ratio":
        column.field = &span.batch_fill_ratio
        column.presence = HAS_BATCH_FILL_RATIO
        column.form = COLUMN_MEASURES
        column.upper = 1.0
    elif name == "time_to_first_token_ms":
        column.field = &span.time_to_first_token_ms
        column.presence = HAS_TIME_TO_FIRST_TOKEN_MS
        column.form = COLUMN_MEASURES
    elif name == "inter_token_latency_ms":
        column.field = &span.inter_token_latency_ms
        column.presence = HAS_INTER_TOKEN_LATENCY_MS
        column.form = COLUMN_MEASURES
    elif name == "preemption_count":
        column.field = &span.serving().preemption_count
        column.presence = HAS_PREEMPTION_COUNT
        column.form = COLUMN_COUNTS
    elif name == "step_count":
        column.field = &span.serving().step_count
        column.presence = HAS_STEP_COUNT
        column.form = COLUMN_COUNTS
    elif name == "prefill_tokens":
        column.field = &span.serving().prefill_tokens
        column.presence = HAS_PREFILL_TOKENS
        column.form = COLUMN_COUNTS
    elif name == "decode_tokens":
        column.field = &span.serving().decode_tokens
        column.presence = HAS_DECODE_TOKENS
        column.form = COLUMN_COUNTS
    elif name == "scheduled_after_ms":
        column.field = &span.serving().scheduled_after_ms
        column.presence = HAS_SCHEDULED_AFTER_MS
        column.form = COLUMN_MEASURES
    elif name == "max_inter_token_latency_ms":
        column.field = &span.serving().max_inter_token_latency_ms
        column.presence = HAS_MAX_INTER_TOKEN_LATENCY_MS
        column.form = COLUMN_MEASURES
    elif name == "kv_cache_usage":
        column.field = &span.serving().kv_cache_usage
        column.presence = HAS_KV_CACHE_USAGE
        column.form = COLUMN_MEASURES
        column.upper = 1.0
    elif name == "step_index":
        column.field = &span.serving().step_index
        column.presence = HAS_STEP_INDEX
        column.form = COLUMN_ORDINALS
    elif name == "first_step":
        column.field = &span.serving().first_step
        column.presence = HAS_FIRST_STEP
        column.form = COLUMN_ORDINALS
    elif name == "last_step":
        column.field = &span.serving().last_step
        column.presence = HAS_LAST_STEP
        column.form = COLUMN_ORDINALS
    return 0


cdef int set_object(Span span, str name, object value) except -1:
    """Set a text or a histogram; None takes out what another row has set."""
    if name == "model_version":
        span.set_model_version("" if value is None else value)
    elif name == "framework":
        span.set_framework("" if value is None else value)
    elif name == "pipeline_stage":
        span.set_pipeline_stage("" if value is None else value)
    elif name == "request_id":
        span.set_request_id("" if value is None else value)
    elif name == "finish_reason":
        span.set_finish_reason("" if value is None else value)
    elif name == "token_intervals":
        span.set_request(token_intervals=value)
    elif name == "engine":
        span.set_engine("" if value is None else value)
    elif name == "membership":
        span.set_request(membership="" if value is None else value)
    return 0


# The keywords of start_span, in the order of the enum below.
cdef tuple START_KEYWORDS = (
    "model_name", "operation_name", "parent", "links", "tags", "attributes", "model_version",
    "framework", "pipeline_stage", "request_id", "finish_reason", "engine", "membership",
    "batch_size", "input_tokens", "output_tokens", "queue_depth", "cached_input_tokens",
    "reasoning_output_tokens", "sequence_length", "cache_hit_rate", "queue_wait_time_ms",
    "batch_fill_ratio", "time_to_first_token_ms", "inter_token_latency_ms", "preemption_count",
    "step_count", "prefill_tokens", "decode_tokens", "scheduled_after_ms",
    "max_inter_token_latency_ms", "kv_cache_usage", "step_index", "first_step", "last_step",
    "token_intervals", "kind",
)

cdef enum StartKeyword:
    KEYWORD_MODEL_NAME
    KEYWORD_OPERATION_NAME
    KEYWORD_PARENT
    KEYWORD_LINKS
    KEYWORD_TAGS
    KEYWORD_ATTRIBUTES
    KEYWORD_MODEL_VERSION
    KEYWORD_FRAMEWORK
    KEYWORD_PIPELINE_STAGE
    KEYWORD_REQUEST_ID
    KEYWORD_FINISH_REASON
    KEYWORD_ENGINE
    KEYWORD_MEMBERSHIP
    KEYWORD_BATCH_SIZE
    KEYWORD_INPUT_TOKENS
    KEYWORD_OUTPUT_TOKENS
    KEYWORD_QUEUE_DEPTH
    KEYWORD_CACHED_INPUT_TOKENS
    KEYWORD_REASONING_OUTPUT_TOKENS
    KEYWORD_SEQUENCE_LENGTH
    KEYWORD_CACHE_HIT_RATE
    KEYWORD_QUEUE_WAIT_TIME_MS
    KEYWORD_BATCH_FILL_RATIO
    KEYWORD_TIME_TO_FIRST_TOKEN_MS
    KEYWORD_INTER_TOKEN_LATENCY_MS
    KEYWORD_PREEMPTION_COUNT
    KEYWORD_STEP_COUNT
    KEYWORD_PREFILL_TOKENS
    KEYWORD_DECODE_TOKENS
    KEYWORD_SCHEDULED_AFTER_MS
    KEYWORD_MAX_INTER_TOKEN_LATENCY_MS
    KEYWORD_KV_CACHE_USAGE
    KEYWORD_STEP_INDEX
    KEYWORD_FIRST_STEP
    KEYWORD_LAST_STEP
    KEYWORD_TOKEN_INTERVALS
    KEYWORD_KIND
    START_KEYWORD_COUNT


cdef int set_fields(
    Span span, PyObject** given, const int* keywords, Py_ssize_t count
) except -1:
    """Set the fields that were given as keywords; None leaves a field as it is."""
    cdef int keyword
    cdef Py_ssize_t number
    cdef PyObject* value
    cdef bint rare = False
    for number in range(count):
        keyword = keywords[number]
        value = given[keyword]
        if keyword < KEYWORD_LINKS or value == <PyObject*>None:
            continue
        if keyword == KEYWORD_BATCH_SIZE:
            span.put_count("batch_size", <object>value, &span.batch_size, HAS_BATCH_SIZE)
        elif keyword == KEYWORD_INPUT_TOKENS:
            span.put_count("input_tokens", <object>value, &span.input_tokens, HAS_INPUT_TOKENS)
        elif keyword == KEYWORD_OUTPUT_TOKENS:
            span.put_count("output_tokens", <object>value, &span.output_tokens, HAS_OUTPUT_TOKENS)
        elif keyword == KEYWORD_QUEUE_DEPTH:
            span.put_count("queue_depth", <object>value, &span.queue_depth, HAS_QUEUE_DEPTH)
        elif keyword == KEYWORD_CACHED_INPUT_TOKENS:
            span.put_count(
                "cached_input_tokens",
                <object>value,
                &span.cached_input_tokens,
                HAS_CACHED_INPUT_TOKENS,
            )
        elif keyword == KEYWORD_REASONING_OUTPUT_TOKENS:
            span.put_count(
                "reasoning_output_tokens",
                <object>value,
                &span.reasoning_output_tokens,
                HAS_REASONING_OUTPUT_TOKENS,
            )
        elif keyword == KEYWORD_SEQUENCE_LENGTH:
            span.put_measure(
                "sequence_length",
                <object>value,
                &span.sequence_length,
                FLOAT32_MAX,
                HAS_SEQUENCE_LENGTH,
            )
        elif keyword == KEYWORD_CACHE_HIT_RATE:
            span.put_measure(
                "cache_hit_rate",
                <object>value,
                &span.cache_hit_rate,
                1.0,
                HAS_CACHE_HIT_RATE,
            )
        elif keyword == KEYWORD_QUEUE_WAIT_TIME_MS:
            span.put_measure(
                "queue_wait_time_ms",
                <object>value,
                &span.queue_wait_time_ms,
                FLOAT32_MAX,
                HAS_QUEUE_WAIT_TIME_MS,
            )
        elif keyword == KEYWORD_BATCH_FILL_RATIO:
            span.put_measure(
                "batch_fill_ratio",
                <object>value,
                &span.batch_fill_ratio,
                1.0,
                HAS_BATCH_FILL_RATIO,
            )
        elif keyword == KEYWORD_TIME_TO_FIRST_TOKEN_MS:
            span.put_measure(
                "time_to_first_token_ms",
                <object>value,
                &span.time_to_first_token_ms,
                FLOAT32_MAX,
                HAS_TIME_TO_FIRST_TOKEN_MS,
            )
        elif keyword == KEYWORD_INTER_TOKEN_LATENCY_MS:
            span.put_measure(
                "inter_token_latency_ms",
                <object>value,
                &span.inter_token_latency_ms,
                FLOAT32_MAX,
                HAS_INTER_TOKEN_LATENCY_MS,
            )
        elif keyword == KEYWORD_PREEMPTION_COUNT:
            span.put_count(
                "preemption_count",
                <object>value,
                &span.serving().preemption_count,
                HAS_PREEMPTION_COUNT,
            )
        elif keyword == KEYWORD_STEP_COUNT:
            span.put_count("step_count", <object>value, &span.serving().step_count, HAS_STEP_COUNT)
        elif keyword == KEYWORD_PREFILL_TOKENS:
            span.put_count(
                "prefill_tokens",
                <object>value,
                &span.serving().prefill_tokens,
                HAS_PREFILL_TOKENS,
            )
        elif keyword == KEYWORD_DECODE_TOKENS:
            span.put_count(
                "decode_tokens",
                <object>value,
                &span.serving().decode_tokens,
                HAS_DECODE_TOKENS,
            )
        elif keyword == KEYWORD_SCHEDULED_AFTER_MS:
            span.put_measure(
                "scheduled_after_ms",
                <object>value,
                &span.serving().scheduled_after_ms,
                FLOAT32_MAX,
                HAS_SCHEDULED_AFTER_MS,
            )
        elif keyword == KEYWORD_MAX_INTER_TOKEN_LATENCY_MS:
            span.put_measure(
                "max_inter_token_latency_ms",
                <object>value,
                &span.serving().max_inter_token_latency_ms,
                FLOAT32_MAX,
                HAS_MAX_INTER_TOKEN_LATENCY_MS,
            )
        elif keyword == KEYWORD_KV_CACHE_USAGE:
            span.put_measure(
                "kv_cache_usage",
                <object>value,
                &span.serving().kv_cache_usage,
                1.0,
                HAS_KV_CACHE_USAGE,
            )
        elif keyword == KEYWORD_STEP_INDEX:
            span.put_ordinal(
                "step_index",
                <object>value,
                &span.serving().step_index,
                HAS_STEP_INDEX,
            )
        elif keyword == KEYWORD_FIRST_STEP:
            span.put_ordinal(
                "first_step",
                <object>value,
                &span.serving().first_step,
                HAS_FIRST_STEP,
            )
        elif keyword == KEYWORD_LAST_STEP:
            span.put_ordinal("last_step", <object>value, &span.serving().last_step, HAS_LAST_STEP)
        elif keyword == KEYWORD_MODEL_VERSION:
            span.set_model_version(<object>value)
        elif keyword == KEYWORD_FRAMEWORK:
            span.set_framework(<object>value)
        elif keyword == KEYWORD_PIPELINE_STAGE:
            span.set_pipeline_stage(<object>value)
        elif keyword == KEYWORD_REQUEST_ID:
            span.set_request_id(<object>value)
        elif keyword == KEYWORD_FINISH_REASON:
            span.set_finish_reason(<object>value)
        elif keyword == KEYWORD_TOKEN_INTERVALS:
            span.set_request(token_intervals=<object>value)
        elif keyword == KEYWORD_ENGINE:
            span.set_engine(<object>value)
        elif keyword == KEYWORD_MEMBERSHIP:
            span.set_request(membership=<object>value)
        elif keyword == KEYWORD_KIND:
            span.put_kind(<object>value)
        else:
            rare = True
    if rare:
        fill(
            span,
            object_or_none(given[<int>KEYWORD_TAGS]),
            object_or_none(given[<int>KEYWORD_ATTRIBUTES]),
            object_or_none(given[<int>KEYWORD_LINKS]),
        )
    return 0


# What inspect.signature() reads.
cdef const char* START_SPAN_SIGNATURE = (
    b"start_span($self, model_name=None, operation_name='inference', *, parent=None, "
    b"links=None, tags=None, attributes=None, model_version=None, framework=None, "
    b"pipeline_stage=None, request_id=None, finish_reason=None, engine=None, membership=None, "
    b"batch_size=None, input_tokens=None, output_tokens=None, queue_depth=None, "
    b"cached_input_tokens=None, reasoning_output_tokens=None, sequence_length=None, "
    b"cache_hit_rate=None, queue_wait_time_ms=None, batch_fill_ratio=None, "
    b"time_to_first_token_ms=None, inter_token_latency_ms=None, preemption_count=None, "
    b"step_count=None, prefill_tokens=None, decode_tokens=None, scheduled_after_ms=None, "
    b"max_inter_token_latency_ms=None, kv_cache_usage=None, step_index=None, first_step=None, "
    b"last_step=None, token_intervals=None, kind=None)\n--\n\n"
)
cdef const char* START_STEP_SIGNATURE = (
    b"start_step($self, model_name=None, operation_name='step', *, prefill=None, decode=None, "
    b"capacity=None, parent=None, links=None, tags=None, attributes=None, model_version=None, "
    b"framework=None, pipeline_stage=None, request_id=None, finish_reason=None, engine=None, "
    b"membership=None, batch_size=None, input_tokens=None, output_tokens=None, "
    b"queue_depth=None, cached_input_tokens=None, reasoning_output_tokens=None, "
    b"sequence_length=None, cache_hit_rate=None, queue_wait_time_ms=None, "
    b"batch_fill_ratio=None, time_to_first_token_ms=None, inter_token_latency_ms=None, "
    b"preemption_count=None, step_count=None, prefill_tokens=None, decode_tokens=None, "
    b"scheduled_after_ms=None, max_inter_token_latency_ms=None, kv_cache_usage=None, "
    b"step_index=None, first_step=None, last_step=None, token_intervals=None, "
    b"kind=None)\n--\n\n"
)
