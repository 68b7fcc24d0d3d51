# Encodes spans; see infertrace.recording.encoder for the order of the fields.

# Upper bound on the encoding of a span without attributes, excluding its texts.
cdef Py_ssize_t BASE_BYTES = 384 + FIELDS_BYTES  # with room to copy whole entries of field_cache.h
# The field `flags`: sampled, and the parent is known to be remote. Source: SpanFlags of
# opentelemetry/proto/trace/v1/trace.proto.
cdef const char* REMOTE_PARENT_FLAGS = b"\xc0\x01\x81\x06"
# Keys, tags and lengths around one map entry, event or link.
cdef Py_ssize_t ENTRY_BYTES = 48


cdef inline Py_ssize_t utf8_size(str text) except -1:
    cdef Py_ssize_t size
    infertrace_utf8(text, &size)
    return size


cdef inline uint8_t* put_text(uint8_t* p, uint8_t tag, str text) except NULL:
    cdef Py_ssize_t size
    cdef const char* data = infertrace_utf8(text, &size)
    return wire_bytes(p, tag, data, size)


cdef Py_ssize_t entries_bound(dict entries) except -1:
    cdef PyObject* key
    cdef PyObject* value
    cdef Py_ssize_t position = 0, bound = 0
    if entries is None:
        return 0
    while PyDict_Next(entries, &position, &key, &value):
        bound += ENTRY_BYTES + utf8_size(<str>key)
        if PyUnicode_CheckExact(<object>value):
            bound += utf8_size(<str>value)
    return bound


cdef uint8_t* put_tags(uint8_t* p, dict tags) except NULL:
    cdef PyObject* key
    cdef PyObject* value
    cdef uint8_t* start
    cdef Py_ssize_t position = 0
    while PyDict_Next(tags, &position, &key, &value):
        p[0] = TAGS_TAG
        start = p + 1
        p = put_text(start + 1, 0x0A, <str>key)
        p = put_text(p, 0x12, <str>value)
        p = wire_close(start, 1, p)
    return p


cdef uint8_t* put_attributes(uint8_t* p, uint8_t tag, dict attributes) except NULL:
    cdef PyObject* key
    cdef PyObject* value
    cdef uint8_t* start
    cdef uint8_t* value_start
    cdef Py_ssize_t position = 0
    if attributes is None:
        return p
    while PyDict_Next(attributes, &position, &key, &value):
        p[0] = tag
        start = p + 1
        p = put_text(start + 1, 0x0A, <str>key)
        p[0] = 0x12
        value_start = p + 1
        p = put_scalar(value_start + 1, <object>value)
        p = wire_close(value_start, 1, p)
        p = wire_close(start, 1, p)
    return p


cdef uint8_t* put_scalar(uint8_t* p, object value) except NULL:
    if PyUnicode_CheckExact(value):
        return put_text(p, 0x0A, <str>value)
    if value is True or value is False:
        return wire_uint(p, 0x10, value is True)
    if PyLong_CheckExact(value):
        return wire_uint(p, 0x18, <uint64_t><int64_t>value)
    p[0] = 0x21
    return wire_double(p + 1, PyFloat_AS_DOUBLE(value))


cdef Py_ssize_t extras_bound(Span span) except -1:
    cdef Extras extras = span.extras
    cdef Py_ssize_t bound = extras.inference_text_bytes()
    if extras.serving is not None:
        settle(span, extras.serving)
        bound += extras.serving.bound()
    if extras.status_message is not None:
        bound += utf8_size(extras.status_message)
    bound += entries_bound(extras.tags) + entries_bound(extras.attributes)
    for _, name, attributes in extras.events or ():
        bound += ENTRY_BYTES + utf8_size(<str>name) + entries_bound(<dict>attributes)
    for _, _, _, attributes in extras.links or ():
        bound += ENTRY_BYTES + entries_bound(<dict>attributes)
    return bound


cdef uint8_t* put_events(uint8_t* p, list events) except NULL:
    cdef uint8_t* start
    for time_ns, name, attributes in events:
        p[0] = EVENTS_TAG
        start = p + 1
        p = wire_uint(start + 1, 0x08, <uint64_t><int64_t>time_ns)
        p = put_text(p, 0x12, <str>name)
        p = put_attributes(p, 0x1A, <dict>attributes)
        p = wire_close(start, 1, p)
    return p


cdef uint8_t* put_links(uint8_t* p, list links) except NULL:
    cdef uint8_t* start
    for trace_high, trace_low, span_id, attributes in links:
        p[0] = LINKS_TAG
        start = p + 1
        p = start + 1
        p[0] = 0x0A
        p[1] = 16
        p = wire_id(wire_id(p + 2, trace_high), trace_low)
        p[0] = 0x12
        p[1] = 8
        p = wire_id(p + 2, span_id)
        p = put_attributes(p, 0x1A, <dict>attributes)
        p = wire_close(start, 1, p)
    return p


cdef inline uint8_t* put_measure(uint8_t* p, uint8_t tag, float value) noexcept:
    p[0] = tag
    return wire_float(p + 1, value)


cdef inline uint8_t* put_inference(uint8_t* p, Span span) except NULL:
    cdef uint8_t* start
    if (
        span.model is None
        and not span.present
        and (span.extras is None or not span.extras.has_inference_text())
    ):
        return p
    p[0] = INFERENCE_TAG
    start = p + 1
    p = start + 1
    if span.model is not None:
        p = infertrace_put_repeated(span.recorder.models, p, MODEL_NAME_TAG, span.model)
    p = put_fields(p, span)
    return wire_close(start, 1, p)


cdef uint8_t* put_origin(uint8_t* p, uint8_t origin) noexcept:
    if origin > PARENT_IS_REMOTE:
        p[0] = KIND_TAG & 0xFF
        p[1] = KIND_TAG >> 8
        p[2] = origin >> 1
        p += 3
    if origin & PARENT_IS_REMOTE:
        memcpy(p, REMOTE_PARENT_FLAGS, 4)
        p += 4
    return p


cdef uint8_t* put_span(uint8_t* p, Span span) except NULL:
    """Write a finished span as one entry of SendSpanBatchRequest.spans."""
    # Attribute chains, not locals: Cython counts a reference for each local.
    cdef uint8_t* start
    cdef int start_size
    cdef double age_ms
    p[0] = 0x0A
    start = p + 1
    p = start + span.recorder.length_size
    p[0] = TRACE_ID_TAG
    p[1] = 16
    p = wire_id(wire_id(p + 2, span.trace_high), span.trace_low)
    p[0] = SPAN_ID_TAG
    p[1] = 8
    p = wire_id(p + 2, span.id)
    if span.parent_id:
        p[0] = PARENT_SPAN_ID_TAG
        p[1] = 8
        p = wire_id(p + 2, span.parent_id)
    memcpy(p, span.recorder.service_data, span.recorder.service_size)
    p += span.recorder.service_size
    p = infertrace_put_repeated(span.recorder.operations, p, OPERATION_NAME_TAG, span.operation)
    p[0] = START_TIME_UNIX_NANO_TAG
    p = wire_time(p + 1, <uint64_t>(span.start + span.recorder.anchor))
    if span.duration:
        p = wire_uint(p, DURATION_NANOS_TAG, <uint64_t>span.duration)
    if span.status == STATUS_OK:
        memcpy(p, b"\x42\x02OK", 4)
        p += 4
    elif span.status == STATUS_ERROR:
        p = wire_bytes(p, STATUS_TAG, b"ERROR", 5)
    else:
        p = wire_bytes(p, STATUS_TAG, b"CANCELLED", 9)
    if span.extras is not None and span.extras.tags is not None:
        p = put_tags(p, span.extras.tags)
    p = put_inference(p, span)
    if span.recorder.sample_data is not NULL:
        memcpy(p, span.recorder.sample_data, span.recorder.sample_size)
        p += span.recorder.sample_size
        age_ms = <double>(span.start + span.duration - span.recorder.sampled_at) / 1e6
        p = wire_float(p, <float>(age_ms if age_ms > 0 else 0.0))
    if span.extras is not None:
        if span.extras.status_message:
            p = put_text(p, STATUS_MESSAGE_TAG, span.extras.status_message)
        p = put_attributes(p, ATTRIBUTES_TAG, span.extras.attributes)
        if span.extras.events is not None:
            p = put_events(p, span.extras.events)
        if span.extras.links is not None:
            p = put_links(p, span.extras.links)
    if span.invalid_fields:
        p[0] = INVALID_FIELD_COUNT_TAG & 0xFF
        p[1] = INVALID_FIELD_COUNT_TAG >> 8
        p = wire_varint(p + 2, span.invalid_fields)
    if span.origin:
        p = put_origin(p, span.origin)
    # Most spans of a program are alike: guess that the next length takes as many bytes.
    start_size = span.recorder.length_size
    span.recorder.length_size = wire_varint_size(p - start - start_size)
    return wire_close(start, start_size, p)
