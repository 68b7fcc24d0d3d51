from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SpanKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SPAN_KIND_UNSPECIFIED: _ClassVar[SpanKind]
    SPAN_KIND_INTERNAL: _ClassVar[SpanKind]
    SPAN_KIND_SERVER: _ClassVar[SpanKind]
    SPAN_KIND_CLIENT: _ClassVar[SpanKind]
    SPAN_KIND_PRODUCER: _ClassVar[SpanKind]
    SPAN_KIND_CONSUMER: _ClassVar[SpanKind]
SPAN_KIND_UNSPECIFIED: SpanKind
SPAN_KIND_INTERNAL: SpanKind
SPAN_KIND_SERVER: SpanKind
SPAN_KIND_CLIENT: SpanKind
SPAN_KIND_PRODUCER: SpanKind
SPAN_KIND_CONSUMER: SpanKind

class Span(_message.Message):
    __slots__ = ("trace_id", "span_id", "parent_span_id", "service_name", "operation_name", "start_time_unix_nano", "duration_nanos", "status", "tags", "inference", "resources", "status_message", "attributes", "events", "links", "invalid_field_count", "kind", "trace_state", "scope_name", "scope_version", "dropped_attributes_count", "dropped_events_count", "dropped_links_count", "flags", "status_code", "scope_attributes")
    class TagsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: AttributeValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[AttributeValue, _Mapping]] = ...) -> None: ...
    class ScopeAttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: AttributeValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[AttributeValue, _Mapping]] = ...) -> None: ...
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    SPAN_ID_FIELD_NUMBER: _ClassVar[int]
    PARENT_SPAN_ID_FIELD_NUMBER: _ClassVar[int]
    SERVICE_NAME_FIELD_NUMBER: _ClassVar[int]
    OPERATION_NAME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_UNIX_NANO_FIELD_NUMBER: _ClassVar[int]
    DURATION_NANOS_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    INFERENCE_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    STATUS_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    LINKS_FIELD_NUMBER: _ClassVar[int]
    INVALID_FIELD_COUNT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TRACE_STATE_FIELD_NUMBER: _ClassVar[int]
    SCOPE_NAME_FIELD_NUMBER: _ClassVar[int]
    SCOPE_VERSION_FIELD_NUMBER: _ClassVar[int]
    DROPPED_ATTRIBUTES_COUNT_FIELD_NUMBER: _ClassVar[int]
    DROPPED_EVENTS_COUNT_FIELD_NUMBER: _ClassVar[int]
    DROPPED_LINKS_COUNT_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    STATUS_CODE_FIELD_NUMBER: _ClassVar[int]
    SCOPE_ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    trace_id: bytes
    span_id: bytes
    parent_span_id: bytes
    service_name: str
    operation_name: str
    start_time_unix_nano: int
    duration_nanos: int
    status: str
    tags: _containers.ScalarMap[str, str]
    inference: InferenceContext
    resources: ResourceMetrics
    status_message: str
    attributes: _containers.MessageMap[str, AttributeValue]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    links: _containers.RepeatedCompositeFieldContainer[Link]
    invalid_field_count: int
    kind: SpanKind
    trace_state: str
    scope_name: str
    scope_version: str
    dropped_attributes_count: int
    dropped_events_count: int
    dropped_links_count: int
    flags: int
    status_code: int
    scope_attributes: _containers.MessageMap[str, AttributeValue]
    def __init__(self, trace_id: _Optional[bytes] = ..., span_id: _Optional[bytes] = ..., parent_span_id: _Optional[bytes] = ..., service_name: _Optional[str] = ..., operation_name: _Optional[str] = ..., start_time_unix_nano: _Optional[int] = ..., duration_nanos: _Optional[int] = ..., status: _Optional[str] = ..., tags: _Optional[_Mapping[str, str]] = ..., inference: _Optional[_Union[InferenceContext, _Mapping]] = ..., resources: _Optional[_Union[ResourceMetrics, _Mapping]] = ..., status_message: _Optional[str] = ..., attributes: _Optional[_Mapping[str, AttributeValue]] = ..., events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ..., links: _Optional[_Iterable[_Union[Link, _Mapping]]] = ..., invalid_field_count: _Optional[int] = ..., kind: _Optional[_Union[SpanKind, str]] = ..., trace_state: _Optional[str] = ..., scope_name: _Optional[str] = ..., scope_version: _Optional[str] = ..., dropped_attributes_count: _Optional[int] = ..., dropped_events_count: _Optional[int] = ..., dropped_links_count: _Optional[int] = ..., flags: _Optional[int] = ..., status_code: _Optional[int] = ..., scope_attributes: _Optional[_Mapping[str, AttributeValue]] = ...) -> None: ...

class AttributeValue(_message.Message):
    __slots__ = ("string_value", "bool_value", "int_value", "double_value", "bytes_value", "array_value", "key_value_list")
    STRING_VALUE_FIELD_NUMBER: _ClassVar[int]
    BOOL_VALUE_FIELD_NUMBER: _ClassVar[int]
    INT_VALUE_FIELD_NUMBER: _ClassVar[int]
    DOUBLE_VALUE_FIELD_NUMBER: _ClassVar[int]
    BYTES_VALUE_FIELD_NUMBER: _ClassVar[int]
    ARRAY_VALUE_FIELD_NUMBER: _ClassVar[int]
    KEY_VALUE_LIST_FIELD_NUMBER: _ClassVar[int]
    string_value: str
    bool_value: bool
    int_value: int
    double_value: float
    bytes_value: bytes
    array_value: ArrayValue
    key_value_list: KeyValueList
    def __init__(self, string_value: _Optional[str] = ..., bool_value: bool = ..., int_value: _Optional[int] = ..., double_value: _Optional[float] = ..., bytes_value: _Optional[bytes] = ..., array_value: _Optional[_Union[ArrayValue, _Mapping]] = ..., key_value_list: _Optional[_Union[KeyValueList, _Mapping]] = ...) -> None: ...

class ArrayValue(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedCompositeFieldContainer[AttributeValue]
    def __init__(self, values: _Optional[_Iterable[_Union[AttributeValue, _Mapping]]] = ...) -> None: ...

class KeyValueList(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedCompositeFieldContainer[KeyValue]
    def __init__(self, values: _Optional[_Iterable[_Union[KeyValue, _Mapping]]] = ...) -> None: ...

class KeyValue(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: AttributeValue
    def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[AttributeValue, _Mapping]] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("time_unix_nano", "name", "attributes", "dropped_attributes_count")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: AttributeValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[AttributeValue, _Mapping]] = ...) -> None: ...
    TIME_UNIX_NANO_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    DROPPED_ATTRIBUTES_COUNT_FIELD_NUMBER: _ClassVar[int]
    time_unix_nano: int
    name: str
    attributes: _containers.MessageMap[str, AttributeValue]
    dropped_attributes_count: int
    def __init__(self, time_unix_nano: _Optional[int] = ..., name: _Optional[str] = ..., attributes: _Optional[_Mapping[str, AttributeValue]] = ..., dropped_attributes_count: _Optional[int] = ...) -> None: ...

class Link(_message.Message):
    __slots__ = ("trace_id", "span_id", "attributes", "trace_state", "dropped_attributes_count", "flags")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: AttributeValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[AttributeValue, _Mapping]] = ...) -> None: ...
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    SPAN_ID_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    TRACE_STATE_FIELD_NUMBER: _ClassVar[int]
    DROPPED_ATTRIBUTES_COUNT_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    trace_id: bytes
    span_id: bytes
    attributes: _containers.MessageMap[str, AttributeValue]
    trace_state: str
    dropped_attributes_count: int
    flags: int
    def __init__(self, trace_id: _Optional[bytes] = ..., span_id: _Optional[bytes] = ..., attributes: _Optional[_Mapping[str, AttributeValue]] = ..., trace_state: _Optional[str] = ..., dropped_attributes_count: _Optional[int] = ..., flags: _Optional[int] = ...) -> None: ...

class TokenIntervals(_message.Message):
    __slots__ = ("offset", "counts")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    offset: int
    counts: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, offset: _Optional[int] = ..., counts: _Optional[_Iterable[int]] = ...) -> None: ...

class InferenceContext(_message.Message):
    __slots__ = ("model_name", "model_version", "batch_size", "input_tokens", "output_tokens", "framework", "sequence_length", "cache_hit_rate", "pipeline_stage", "queue_depth", "queue_wait_time_ms", "batch_fill_ratio", "time_to_first_token_ms", "inter_token_latency_ms", "request_id", "finish_reason", "cached_input_tokens", "reasoning_output_tokens", "preemption_count", "scheduled_after_ms", "max_inter_token_latency_ms", "token_intervals", "engine", "step_index", "first_step", "last_step", "step_count", "prefill_tokens", "decode_tokens", "kv_cache_usage", "membership")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    FRAMEWORK_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_LENGTH_FIELD_NUMBER: _ClassVar[int]
    CACHE_HIT_RATE_FIELD_NUMBER: _ClassVar[int]
    PIPELINE_STAGE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_DEPTH_FIELD_NUMBER: _ClassVar[int]
    QUEUE_WAIT_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    BATCH_FILL_RATIO_FIELD_NUMBER: _ClassVar[int]
    TIME_TO_FIRST_TOKEN_MS_FIELD_NUMBER: _ClassVar[int]
    INTER_TOKEN_LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    CACHED_INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REASONING_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PREEMPTION_COUNT_FIELD_NUMBER: _ClassVar[int]
    SCHEDULED_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_INTER_TOKEN_LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_INTERVALS_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    STEP_INDEX_FIELD_NUMBER: _ClassVar[int]
    FIRST_STEP_FIELD_NUMBER: _ClassVar[int]
    LAST_STEP_FIELD_NUMBER: _ClassVar[int]
    STEP_COUNT_FIELD_NUMBER: _ClassVar[int]
    PREFILL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DECODE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_USAGE_FIELD_NUMBER: _ClassVar[int]
    MEMBERSHIP_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    model_version: str
    batch_size: int
    input_tokens: int
    output_tokens: int
    framework: str
    sequence_length: float
    cache_hit_rate: float
    pipeline_stage: str
    queue_depth: int
    queue_wait_time_ms: float
    batch_fill_ratio: float
    time_to_first_token_ms: float
    inter_token_latency_ms: float
    request_id: str
    finish_reason: str
    cached_input_tokens: int
    reasoning_output_tokens: int
    preemption_count: int
    scheduled_after_ms: float
    max_inter_token_latency_ms: float
    token_intervals: TokenIntervals
    engine: str
    step_index: int
    first_step: int
    last_step: int
    step_count: int
    prefill_tokens: int
    decode_tokens: int
    kv_cache_usage: float
    membership: str
    def __init__(self, model_name: _Optional[str] = ..., model_version: _Optional[str] = ..., batch_size: _Optional[int] = ..., input_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., framework: _Optional[str] = ..., sequence_length: _Optional[float] = ..., cache_hit_rate: _Optional[float] = ..., pipeline_stage: _Optional[str] = ..., queue_depth: _Optional[int] = ..., queue_wait_time_ms: _Optional[float] = ..., batch_fill_ratio: _Optional[float] = ..., time_to_first_token_ms: _Optional[float] = ..., inter_token_latency_ms: _Optional[float] = ..., request_id: _Optional[str] = ..., finish_reason: _Optional[str] = ..., cached_input_tokens: _Optional[int] = ..., reasoning_output_tokens: _Optional[int] = ..., preemption_count: _Optional[int] = ..., scheduled_after_ms: _Optional[float] = ..., max_inter_token_latency_ms: _Optional[float] = ..., token_intervals: _Optional[_Union[TokenIntervals, _Mapping]] = ..., engine: _Optional[str] = ..., step_index: _Optional[int] = ..., first_step: _Optional[int] = ..., last_step: _Optional[int] = ..., step_count: _Optional[int] = ..., prefill_tokens: _Optional[int] = ..., decode_tokens: _Optional[int] = ..., kv_cache_usage: _Optional[float] = ..., membership: _Optional[str] = ...) -> None: ...

class ResourceMetrics(_message.Message):
    __slots__ = ("gpu_utilization_percent", "gpu_memory_used_bytes", "gpu_memory_total_bytes", "gpu_device_id", "cpu_utilization_percent", "memory_heap_bytes", "sample_age_ms", "gpu_power_watts", "gpu_temperature_celsius")
    GPU_UTILIZATION_PERCENT_FIELD_NUMBER: _ClassVar[int]
    GPU_MEMORY_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    GPU_MEMORY_TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    GPU_DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    CPU_UTILIZATION_PERCENT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_HEAP_BYTES_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    GPU_POWER_WATTS_FIELD_NUMBER: _ClassVar[int]
    GPU_TEMPERATURE_CELSIUS_FIELD_NUMBER: _ClassVar[int]
    gpu_utilization_percent: float
    gpu_memory_used_bytes: int
    gpu_memory_total_bytes: int
    gpu_device_id: str
    cpu_utilization_percent: float
    memory_heap_bytes: int
    sample_age_ms: float
    gpu_power_watts: float
    gpu_temperature_celsius: float
    def __init__(self, gpu_utilization_percent: _Optional[float] = ..., gpu_memory_used_bytes: _Optional[int] = ..., gpu_memory_total_bytes: _Optional[int] = ..., gpu_device_id: _Optional[str] = ..., cpu_utilization_percent: _Optional[float] = ..., memory_heap_bytes: _Optional[int] = ..., sample_age_ms: _Optional[float] = ..., gpu_power_watts: _Optional[float] = ..., gpu_temperature_celsius: _Optional[float] = ...) -> None: ...

class SendSpanRequest(_message.Message):
    __slots__ = ("span",)
    SPAN_FIELD_NUMBER: _ClassVar[int]
    span: Span
    def __init__(self, span: _Optional[_Union[Span, _Mapping]] = ...) -> None: ...

class SendSpanResponse(_message.Message):
    __slots__ = ("accepted",)
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    accepted: bool
    def __init__(self, accepted: bool = ...) -> None: ...

class SendSpanBatchRequest(_message.Message):
    __slots__ = ("spans", "producer_id", "batch_sequence", "first_span_sequence", "produced_count", "dropped_counts", "resource", "final")
    class DroppedCountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    SPANS_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_ID_FIELD_NUMBER: _ClassVar[int]
    BATCH_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    FIRST_SPAN_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    PRODUCED_COUNT_FIELD_NUMBER: _ClassVar[int]
    DROPPED_COUNTS_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    spans: _containers.RepeatedCompositeFieldContainer[Span]
    producer_id: bytes
    batch_sequence: int
    first_span_sequence: int
    produced_count: int
    dropped_counts: _containers.ScalarMap[str, int]
    resource: Resource
    final: bool
    def __init__(self, spans: _Optional[_Iterable[_Union[Span, _Mapping]]] = ..., producer_id: _Optional[bytes] = ..., batch_sequence: _Optional[int] = ..., first_span_sequence: _Optional[int] = ..., produced_count: _Optional[int] = ..., dropped_counts: _Optional[_Mapping[str, int]] = ..., resource: _Optional[_Union[Resource, _Mapping]] = ..., final: bool = ...) -> None: ...

class Resource(_message.Message):
    __slots__ = ("attributes",)
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: AttributeValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[AttributeValue, _Mapping]] = ...) -> None: ...
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    attributes: _containers.MessageMap[str, AttributeValue]
    def __init__(self, attributes: _Optional[_Mapping[str, AttributeValue]] = ...) -> None: ...

class SendSpanBatchResponse(_message.Message):
    __slots__ = ("accepted_count", "rejected_count", "rejection_reason")
    ACCEPTED_COUNT_FIELD_NUMBER: _ClassVar[int]
    REJECTED_COUNT_FIELD_NUMBER: _ClassVar[int]
    REJECTION_REASON_FIELD_NUMBER: _ClassVar[int]
    accepted_count: int
    rejected_count: int
    rejection_reason: str
    def __init__(self, accepted_count: _Optional[int] = ..., rejected_count: _Optional[int] = ..., rejection_reason: _Optional[str] = ...) -> None: ...
