/* An envelope of encoded spans into the bytes of an ExportTraceServiceRequest.
 *
 * Spans that follow one another and have a service and a scope in common are one ResourceSpans.
 * Sources: proto/span.proto; opentelemetry/proto/collector/trace/v1/trace_service.proto.
 */
#ifndef INFERTRACE_OTLP_REQUEST_WRITE_H
#define INFERTRACE_OTLP_REQUEST_WRITE_H

#include "otlp/span_write.h"

#define OTLP_SPAN_ROOM (OTLP_ATTRIBUTES_ROOM + 512)

typedef struct {
    uint8_t *data;
    size_t size, capacity;
} otlp_buffer;

typedef struct {
    byte_slice resource, producer, service; /* service: what the resource calls itself */
    byte_slice sdk_name, sdk_version;
    otlp_buffer out, scope, open_scope;
    otlp_entries entries;
    otlp_rows chosen;
    byte_slice open_service;
    int open_is_own;                    /* the open scope is that of the SDK */
    size_t resource_start, scope_start; /* where the lengths of what is open belong; 0: none is */
    int length_bytes;                   /* a guess */
    size_t span_count;                  /* written */
    int first_reason;
} otlp_request;

static int otlp_want(otlp_buffer *buffer, size_t room) {
    size_t wanted = buffer->size + room;
    uint8_t *grown;
    if (wanted <= buffer->capacity) return 0;
    if (wanted < 2 * buffer->capacity) wanted = 2 * buffer->capacity;
    grown = realloc(buffer->data, wanted);
    if (!grown) return OTLP_NO_MEMORY;
    buffer->data = grown;
    buffer->capacity = wanted;
    return 0;
}

static inline size_t otlp_room_for(size_t size) {
    return OTLP_GROWTH * size + OTLP_SPAN_ROOM;
}

static int otlp_same(byte_slice one, byte_slice other) {
    return one.size == other.size && (!one.size || !memcmp(one.data, other.data, one.size));
}

/* What follows the spans, up to where the bytes are damaged. */
static void otlp_read_trailer(otlp_request *request, wire_reader r) {
    wire_reader inside;
    uint32_t tag;
    while (r.at < r.end && read_tag(&r, &tag) == 0) {
        if ((tag & 7) != WIRE_BYTES) {
            if (skip_value(&r, tag, WIRE_MAX_DEPTH) < 0) return;
            continue;
        }
        if (read_sized(&r, &inside) < 0) return;
        if (tag == (2 << 3 | WIRE_BYTES)) request->producer = slice_of(inside);
        if (tag == (7 << 3 | WIRE_BYTES)) request->resource = slice_of(inside);
    }
}

static uint8_t *otlp_put_text_entry(uint8_t *p, const char *key, byte_slice text) {
    uint8_t *start;
    *p++ = 0x0A;
    start = p;
    p = wire_bytes(start + 1, 0x0A, key, strlen(key));
    *p++ = 0x12;
    p = wire_varint(p, 1 + wire_varint_size(text.size) + text.size);
    p = wire_bytes(p, 0x0A, text.data, text.size);
    return wire_close(start, 1, p);
}

/* Random bytes of a producer as a UUID is written. */
static byte_slice otlp_instance_id(char *out, byte_slice producer) {
    static const char digits[] = "0123456789abcdef";
    byte_slice text = {(const uint8_t *)out, 0};
    size_t i;
    for (i = 0; i < producer.size; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) out[text.size++] = '-';
        out[text.size++] = digits[producer.data[i] >> 4];
        out[text.size++] = digits[producer.data[i] & 15];
    }
    return text;
}

/* The attributes of the resource, with another service where a span names one. */
static uint8_t *otlp_put_resource(uint8_t *p, const otlp_request *request, byte_slice service) {
    wire_reader r = {request->resource.data, request->resource.data + request->resource.size};
    uint8_t *begun = p;
    char made[36];
    int is_other = service.size && !otlp_same(service, request->service), has_instance = 0;
    if (is_other) p = otlp_put_text_entry(p, "service.name", service);
    while (r.at < r.end) {
        wire_reader inside;
        byte_slice key, value;
        uint32_t tag;
        if (read_tag(&r, &tag) < 0) goto damaged;
        if (tag != 0x0A) {
            if (skip_value(&r, tag, WIRE_MAX_DEPTH) < 0) goto damaged;
            continue;
        }
        if (read_sized(&r, &inside) < 0 || otlp_read_entry(inside, &key, &value) < 0) goto damaged;
        if (is_other && otlp_is(key, "service.name", 12)) continue;
        if (otlp_is(key, "service.instance.id", 19)) has_instance = 1;
        p = otlp_put_entry(p, 0x0A, key, value, OTLP_MAX_VALUE_DEPTH);
        if (!p) goto damaged;
    }
    goto complete;
damaged: /* the spans can be read all the same */
    p = begun;
    has_instance = 0;
    if (service.size) p = otlp_put_text_entry(p, "service.name", service);
complete:
    if (!has_instance && request->producer.size == 16)
        p = otlp_put_text_entry(p, "service.instance.id",
                                otlp_instance_id(made, request->producer));
    return p;
}

/* The text of `service.name` in the resource. */
static void otlp_find_service(otlp_request *request) {
    wire_reader r = {request->resource.data, request->resource.data + request->resource.size};
    wire_reader inside;
    byte_slice key, value;
    uint32_t tag;
    while (r.at < r.end && read_tag(&r, &tag) == 0) {
        if (tag != 0x0A) {
            if (skip_value(&r, tag, WIRE_MAX_DEPTH) < 0) return;
            continue;
        }
        if (read_sized(&r, &inside) < 0 || otlp_read_entry(inside, &key, &value) < 0) return;
        value = otlp_single_text(value);
        if (otlp_is(key, "service.name", 12) && value.size) request->service = value;
    }
}

/* The InstrumentationScope of a span, into `request->scope`; an error of the span, or 0. */
static int otlp_make_scope(otlp_request *request, const otlp_span *span, wire_reader encoded) {
    otlp_buffer *scope = &request->scope;
    int is_own = !span->scope_name.size;
    byte_slice name = is_own ? request->sdk_name : span->scope_name;
    byte_slice version = is_own ? request->sdk_version : span->scope_version;
    size_t attributes = span->has_scope_attributes ? (size_t)(encoded.end - encoded.at) : 0;
    uint8_t *p;
    scope->size = 0;
    if (otlp_want(scope, otlp_room_for(name.size + version.size + attributes)))
        return OTLP_NO_MEMORY;
    p = wire_bytes(scope->data, 0x0A, name.data, name.size);
    if (version.size) p = wire_bytes(p, 0x12, version.data, version.size);
    if (span->has_scope_attributes) p = otlp_put_map(p, encoded, 26 << 3 | WIRE_BYTES, 0x1A);
    if (!p) return OTLP_MALFORMED;
    scope->size = (size_t)(p - scope->data);
    return OTLP_ACCEPTED;
}

static void otlp_close(otlp_request *request, size_t *start) {
    otlp_buffer *out = &request->out;
    uint8_t *end;
    if (!*start) return;
    end = wire_close(out->data + *start, request->length_bytes, out->data + out->size);
    out->size = (size_t)(end - out->data);
    *start = 0;
}

/* Open a length-delimited field, whose length is not known yet. */
static void otlp_open(otlp_request *request, uint8_t tag, size_t *start) {
    otlp_buffer *out = &request->out;
    out->data[out->size++] = tag;
    *start = out->size;
    out->size += (size_t)request->length_bytes;
}

/* Have the ResourceSpans and the ScopeSpans of this span open. */
static int otlp_open_groups(otlp_request *request, const otlp_span *span) {
    otlp_buffer *out = &request->out, *scope = &request->scope, swapped;
    uint8_t *start, *p;
    int is_same = request->resource_start && otlp_same(request->open_service, span->service);
    if (is_same && request->open_scope.size == scope->size &&
        memcmp(request->open_scope.data, scope->data, scope->size) == 0)
        return OTLP_ACCEPTED;
    if (otlp_want(out, otlp_room_for(request->resource.size + span->service.size + scope->size)))
        return OTLP_NO_MEMORY;
    otlp_close(request, &request->scope_start);
    if (!is_same) {
        otlp_close(request, &request->resource_start);
        otlp_open(request, 0x0A, &request->resource_start);
        p = out->data + out->size;
        *p = 0x0A;
        start = p + 1;
        p = wire_close(start, 1, otlp_put_resource(start + 1, request, span->service));
        out->size = (size_t)(p - out->data);
        request->open_service = span->service;
    }
    otlp_open(request, 0x12, &request->scope_start);
    p = wire_bytes(out->data + out->size, 0x0A, scope->data, scope->size);
    out->size = (size_t)(p - out->data);
    swapped = request->open_scope;
    request->open_scope = request->scope;
    request->scope = swapped;
    return OTLP_ACCEPTED;
}

static int otlp_translate_span(otlp_request *request, wire_reader encoded) {
    otlp_buffer *out = &request->out;
    otlp_span span;
    uint8_t *p;
    /* What is open stays so if the span turns out to be bad, even without spans. */
    int reason = otlp_read_span(&span, &request->entries, encoded);
    int is_own = !span.scope_name.size && !span.has_scope_attributes;
    if (reason) return reason;
    if (!is_own || !request->open_is_own || !otlp_same(request->open_service, span.service)) {
        reason = otlp_make_scope(request, &span, encoded);
        if (!reason) reason = otlp_open_groups(request, &span);
        if (reason) return reason;
        request->open_is_own = is_own;
    }
    if (otlp_want(out, otlp_room_for((size_t)(encoded.end - encoded.at)))) return OTLP_NO_MEMORY;
    p = otlp_put_span(out->data + out->size, &span, &request->entries, encoded, &request->chosen,
                      &reason);
    if (!p) return reason;
    out->size = (size_t)(p - out->data);
    request->span_count++;
    return OTLP_ACCEPTED;
}

/* Translate an envelope; OTLP_NO_MEMORY, or 0. Without a span the request is empty. */
static int otlp_translate(otlp_request *request, const uint8_t *data, size_t size,
                          unsigned conventions) {
    wire_reader r = {data, data + size}, inside;
    int is_damaged = 1;
    otlp_read_trailer(request, r);
    otlp_find_service(request);
    otlp_choose_rows(&request->chosen, conventions);
    request->length_bytes = wire_varint_size(2 * size);
    if (otlp_want(&request->out, 6 * size)) return OTLP_NO_MEMORY; /* most spans grow less */
    for (;;) {
        uint32_t tag;
        int reason;
        if (r.at == r.end) {
            is_damaged = 0;
            break;
        }
        if (read_tag(&r, &tag) < 0) break;
        if (tag != 0x0A) {
            if (skip_value(&r, tag, WIRE_MAX_DEPTH) < 0) break;
            continue;
        }
        if (read_sized(&r, &inside) < 0) break;
        reason = otlp_translate_span(request, inside);
        if (reason == OTLP_NO_MEMORY) return OTLP_NO_MEMORY;
        if (reason && !request->first_reason) request->first_reason = reason;
    }
    if (is_damaged && !request->first_reason) request->first_reason = OTLP_MALFORMED;
    otlp_close(request, &request->scope_start);
    otlp_close(request, &request->resource_start);
    if (!request->span_count) request->out.size = 0;
    return OTLP_ACCEPTED;
}

static void otlp_free(otlp_request *request) {
    free(request->out.data);
    free(request->scope.data);
    free(request->open_scope.data);
    free(request->entries.entries);
    free(request->entries.slots);
}

#endif
