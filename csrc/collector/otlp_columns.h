/* Spans of OTLP straight into columns: what otlp_span.h and decoder_span.h make of them one after
 * the other, without the bytes in between. Only what OTLP encodes otherwise than we do, such as
 * events, is encoded on the way, one at a time.
 */
#ifndef INFERTRACE_OTLP_COLUMNS_H
#define INFERTRACE_OTLP_COLUMNS_H

#include "collector/decoder_span.h"
#include "collector/otlp_span.h"

enum { OTLP_TOO_MANY_NESTED = -4 };

/* Where a value of a dialect goes, and what it is there. */
typedef struct {
    uint8_t column;
    uint8_t kind;
} target_column;

typedef struct {
    otlp_translation translation; /* its bytes are those of what is encoded of one span */
    span_decoder *decoder;
    uint8_t *reasons; /* why each span was left out, 0 where it was not */
    size_t nested;    /* events and links so far */
    size_t max_nested;
    target_column targets[TARGET_COUNT];
} otlp_decoding;

static inline void take_text(span_fields *span, int column, byte_slice text) {
    span->texts[column] = text;
    mark_seen(span, column);
}

static inline int take_checked_text(span_fields *span, int column, byte_slice text) {
    if (text.size == 0) return OTLP_USUAL;
    if (!is_utf8(text.data, text.data + text.size)) return OTLP_UNUSUAL;
    take_text(span, column, text);
    return OTLP_USUAL;
}

static inline void take_number(span_fields *span, int column, uint64_t value) {
    span->numbers[column] = value;
    mark_seen(span, column);
}

/* A number of 32 bits; 0 is absent. */
static inline void take_count(span_fields *span, int column, uint64_t value) {
    if ((uint32_t)value) take_number(span, column, (uint32_t)value);
}

static inline void take_status(span_fields *span, const char *status) {
    byte_slice text = {(const uint8_t *)status, strlen(status)};
    take_text(span, STATUS, text);
}

/* Whether OTLP encodes a value as we do: texts, booleans and numbers. */
static inline int is_alike(wire_reader value) {
    return value.at < value.end && (*value.at == 0x0A || *value.at == 0x10 ||
                                    *value.at == OUR_INT || *value.at == OUR_DOUBLE);
}

/* One that renumber_value found usual. */
static void take_alike(attribute_value *to, byte_slice value) {
    wire_reader r = {value.data + 1, value.data + value.size};
    uint64_t bits = 0;
    switch (*value.data) {
    case OUR_TEXT:
        to->kind = VALUE_TEXT;
        read_slice(&r, &to->text);
        break;
    case OUR_DOUBLE:
        to->kind = VALUE_DOUBLE;
        read_fixed64(&r, &bits);
        memcpy(&to->real, &bits, sizeof bits);
        break;
    default:
        to->kind = *value.data == OUR_INT ? VALUE_INT : VALUE_BOOL;
        read_varint(&r, &bits);
        to->integer = (int64_t)bits;
    }
}

/* A value that OTLP encodes otherwise stays encoded as ours until the span is in the columns. */
static int take_attribute(otlp_decoding *o, wire_reader body) {
    otlp_translation *t = &o->translation;
    span_decoder *d = o->decoder;
    wire_reader inside;
    byte_slice key, value;
    map_entry *added;
    int are_alike, found;
    if (read_key_value_parts(body, &key, &inside)) return OTLP_UNUSUAL;
    are_alike = is_alike(inside);
    if (!are_alike) {
        size_t size = (size_t)(inside.end - inside.at);
        uint8_t *copy = t->data + t->size;
        memcpy(copy, inside.at, size);
        inside.at = copy;
        inside.end = copy + size;
        t->size += size;
    }
    if (renumber_value(inside, 0)) return OTLP_UNUSUAL;
    value = slice_of(inside);
    if (note_attribute(t, key, value)) return OTLP_UNUSUAL;
    added = new_entry(&d->attributes, (size_t)(uintptr_t)body.at);
    if (added == NULL) return OTLP_NO_MEMORY;
    added->key = key;
    if (are_alike) {
        take_alike(&added->value, value);
        return OTLP_USUAL;
    }
    found = read_value(&inside, &added->value, &d->nodes, WIRE_MAX_DEPTH - 2);
    if (found == NO_MEMORY) return OTLP_NO_MEMORY;
    return found < 0 ? OTLP_UNUSUAL : OTLP_USUAL;
}

/* An event or a link: `number` of OTLP. */
static int take_nested(otlp_decoding *o, wire_reader body, uint32_t number) {
    otlp_translation *t = &o->translation;
    span_decoder *d = o->decoder;
    uint8_t *start = t->data + t->size, *end = start;
    wire_reader encoded;
    int found;
    if (o->nested++ >= o->max_nested) return OTLP_TOO_MANY_NESTED;
    found = number == 11 ? put_event(t, &end, body) : put_link(&end, body);
    if (found) return found;
    encoded.at = start + 1;
    encoded.end = end;
    found = number == 11 ? read_event(d, &encoded, &d->columns->columns[EVENTS].text,
                                      d->events_start, WIRE_MAX_DEPTH)
                         : read_link(d, &encoded, &d->columns->columns[LINKS].text, d->links_start,
                                     WIRE_MAX_DEPTH);
    if (found == NO_MEMORY) return OTLP_NO_MEMORY;
    return found < 0 ? OTLP_UNUSUAL : OTLP_USUAL;
}

/* What is repeated, in the order in which it came: `number` of OTLP. */
static int take_repeated(otlp_decoding *o, wire_reader r, uint32_t number) {
    while (r.at < r.end) {
        uint32_t tag;
        wire_reader body;
        int found;
        if (read_tag(&r, &tag) < 0) return OTLP_UNUSUAL;
        if (tag != (number << 3 | WIRE_BYTES)) {
            if (skip_value(&r, tag, WIRE_MAX_DEPTH) < 0) return OTLP_UNUSUAL;
            continue;
        }
        if (read_sized(&r, &body) < 0) return OTLP_UNUSUAL;
        found = number == 9 ? take_attribute(o, body) : take_nested(o, body, number);
        if (found) return found;
    }
    return OTLP_USUAL;
}

/* A text of several is joined, and stays there until the span is in the columns. */
static byte_slice joined_text(otlp_translation *t, const target_value *value) {
    wire_reader encoded = {t->data + t->size, put_array_text(t->data + t->size, value->text)};
    byte_slice text = {NULL, 0};
    read_slice(&encoded, &text);
    t->size = (size_t)(encoded.end - t->data);
    return text;
}

static void take_intervals(otlp_decoding *o, const target_value *value) {
    uint8_t *start = o->translation.data + o->translation.size;
    wire_reader encoded = {start, put_histogram(start, value->text)};
    interval_counts *all = &o->decoder->span.intervals;
    all->offset = 0;
    all->count = 0;
    read_intervals(&encoded, all, WIRE_MAX_DEPTH - 1);
    mark_seen(&o->decoder->span, TOKEN_INTERVALS);
}

/* The values that were resolved. */
static void take_resolved(otlp_decoding *o) {
    otlp_translation *t = &o->translation;
    span_fields *span = &o->decoder->span;
    size_t i;
    for (i = 0; i < t->resolved_count; i++) {
        const target_column *to = &o->targets[t->resolved[i]];
        const target_value *value = &t->values[t->resolved[i]];
        float measure;
        uint32_t half;
        uint64_t bits;
        switch (to->kind) {
        case KIND_OF_TEXT:
            take_text(span, to->column, value->is_array ? joined_text(t, value) : value->text);
            break;
        case KIND_OF_INTERVALS: take_intervals(o, value); break;
        case KIND_OF_COUNT:
        case KIND_OF_SIZE: take_number(span, to->column, value->whole); break;
        case KIND_OF_MEASURE:
            measure = (float)value->real;
            memcpy(&half, &measure, sizeof half);
            take_number(span, to->column, half);
            break;
        default: memcpy(&bits, &value->real, sizeof bits); take_number(span, to->column, bits);
        }
    }
}

/* Fields of ours that all spans of a resource or a scope have; they are well formed. */
static int take_shared(otlp_decoding *o, byte_slice fields) {
    wire_reader r = {fields.data, fields.data + fields.size};
    return read_span_fields(o->decoder, r) == NO_MEMORY ? OTLP_NO_MEMORY : OTLP_USUAL;
}

/* The same fields as translate_usual writes. */
static int take_usual(otlp_decoding *o, wire_reader whole) {
    otlp_translation *t = &o->translation;
    span_fields *span = &o->decoder->span;
    otlp_fields f;
    int found;
    if (read_fields(whole, &f) || read_status(&f)) return OTLP_UNUSUAL;
    begin_translation(t, &f);
    take_text(span, TRACE_ID, f.trace_id);
    take_text(span, SPAN_ID, f.span_id);
    if (f.parent.size) take_text(span, PARENT_SPAN_ID, f.parent);
    if ((found = take_shared(o, t->head))) return found;
    if (take_checked_text(span, OPERATION_NAME, f.name)) return OTLP_UNUSUAL;
    take_number(span, START_TIME, f.start);
    take_number(span, DURATION_NANOS, t->duration);
    if ((uint32_t)f.code == 1) take_status(span, "OK");
    if ((uint32_t)f.code == 2) take_status(span, "ERROR");
    if (take_checked_text(span, STATUS_MESSAGE, f.message)) return OTLP_UNUSUAL;
    if ((found = take_repeated(o, f.attributes, 9))) return found;
    if (f.has_events && (found = take_repeated(o, whole, 11))) return found;
    if (f.has_links && (found = take_repeated(o, whole, 13))) return found;
    if (t->own.operation_name.size) take_text(span, OPERATION_NAME, t->own.operation_name);
    if (t->own.is_cancelled) take_status(span, "CANCELLED");
    take_count(span, INVALID_FIELD_COUNT, (f.end < f.start) + t->own.invalid_count + t->cut_count);
    take_count(span, KIND, f.kind);
    if (take_checked_text(span, TRACE_STATE, f.trace_state)) return OTLP_UNUSUAL;
    take_count(span, DROPPED_ATTRIBUTES_COUNT, f.dropped_attributes);
    take_count(span, DROPPED_EVENTS_COUNT, f.dropped_events);
    take_count(span, DROPPED_LINKS_COUNT, f.dropped_links);
    take_count(span, FLAGS, f.flags);
    take_count(span, STATUS_CODE, f.code);
    if ((found = take_shared(o, t->tail))) return found;
    if (t->has_sources || t->framework.size) {
        if (resolve_fields(t)) return OTLP_UNUSUAL;
        take_resolved(o);
    }
    return OTLP_USUAL;
}

/* The spans of a ScopeSpans, from where the reader is. OTLP_UNUSUAL: `span` is one to be
 * translated otherwise and given to decode_translated, and the reader stands after it. */
static int decode_spans(otlp_decoding *o, wire_reader *r, wire_reader *span) {
    otlp_translation *t = &o->translation;
    span_decoder *d = o->decoder;
    while (r->at < r->end) {
        int found = next_span(t, r, span), reason;
        size_t nested = o->nested;
        if (found <= 0) return found;
        if (t->spans > d->columns->capacity) return OTLP_TOO_MANY;
        t->size = 0;
        if (make_room(t, room_for(t, span)) < 0) return OTLP_NO_MEMORY;
        begin_span(d);
        found = take_usual(o, *span);
        if (found == OTLP_UNUSUAL) {
            take_back_lists(d);
            o->nested = nested;
        }
        if (found) return found;
        reason = settle_span(d, 0);
        if (reason == NO_MEMORY) return OTLP_NO_MEMORY;
        o->reasons[t->spans - 1] = (uint8_t)reason;
    }
    return OTLP_USUAL;
}

/* The span that was found to be unusual, as one of ours with its tag. */
static int decode_translated(otlp_decoding *o, const uint8_t *data, size_t size) {
    wire_reader r = {data + 1, data + size}, span;
    int reason;
    if (size == 0 || read_sized(&r, &span) < 0) return OTLP_MALFORMED;
    o->nested += count_events_and_links(data, size);
    if (o->nested > o->max_nested) return OTLP_TOO_MANY_NESTED;
    reason = decode_span(o->decoder, span.at, (size_t)(span.end - span.at));
    if (reason == NO_MEMORY) return OTLP_NO_MEMORY;
    o->reasons[o->translation.spans - 1] = (uint8_t)reason;
    return OTLP_USUAL;
}

/* How many messages lie in fields of the first of these numbers, in those of the second in them,
 * and so on; none beyond what is malformed. */
static size_t count_messages(wire_reader r, const uint32_t *numbers, size_t levels) {
    size_t count = 0;
    wire_reader message;
    while (find_message(&r, *numbers, &message) > 0)
        count += levels == 1 ? 1 : count_messages(message, numbers + 1, levels - 1);
    return count;
}

/* The spans of an ExportTraceServiceRequest. */
static size_t count_export_spans(const uint8_t *data, size_t size) {
    static const uint32_t numbers[] = {1, 2, 2};
    wire_reader r = {data, data + size};
    return count_messages(r, numbers, 3);
}

static void otlp_decoding_free(otlp_decoding *o) {
    if (o->decoder != NULL) decoder_free(o->decoder);
    free(o->translation.data);
    free(o->reasons);
    free(o);
}

/* `columns` are those of the fields, by their numbers. */
static void note_targets(otlp_decoding *o, const context_field *fields, size_t count,
                         const wire_field *columns) {
    size_t i;
    for (i = 0; i < count; i++) {
        uint32_t tag = fields[i].tag;
        target_column *to = &o->targets[fields[i].target];
        if (tag >> 8) tag = (tag & 0x7F) | (tag >> 8) << 7; /* a varint of two bytes */
        to->column = columns[tag >> 3].column;
        to->kind = fields[i].kind;
    }
}

/* For as many spans; NULL without memory. */
static otlp_decoding *otlp_decoding_new(size_t spans, size_t max_spans, size_t max_nested) {
    otlp_decoding *o = calloc(1, sizeof *o);
    if (o == NULL) return NULL;
    o->translation.max_spans = max_spans;
    o->max_nested = max_nested;
    o->decoder = decoder_new(spans < max_spans ? spans : max_spans);
    o->reasons = calloc(spans + 1, 1);
    if (o->decoder == NULL || o->reasons == NULL) {
        otlp_decoding_free(o);
        return NULL;
    }
    note_targets(o, INFERENCE_CONTEXT, CONTEXT_COUNT(INFERENCE_CONTEXT), INFERENCE_FIELDS);
    note_targets(o, RESOURCE_CONTEXT, CONTEXT_COUNT(RESOURCE_CONTEXT), RESOURCE_FIELDS);
    return o;
}

#endif
