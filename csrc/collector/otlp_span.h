/* Spans of OTLP as spans of ours, in one pass over their bytes. Whatever is unusual is left to
 * infertrace.collector.ingest.otlp.pure_translator, which writes the same bytes.
 * Source of OTLP's numbers: opentelemetry/proto/trace/v1/trace.proto; of ours: proto/span.proto.
 */
#ifndef INFERTRACE_OTLP_SPAN_H
#define INFERTRACE_OTLP_SPAN_H

#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "common/wire_read.h"
#include "common/wire_write.h"
#include "generated/dialect_sources.h"

enum { OTLP_USUAL = 0, OTLP_UNUSUAL = 1, OTLP_MALFORMED = -1, OTLP_NO_MEMORY = -2 };
enum { OTLP_TOO_MANY = -3 };

#define OTLP_MAX_VALUE_DEPTH 32 /* attribute_values.MAX_VALUE_DEPTH */

/* Tags of AttributeValue. */
enum { OUR_TEXT = 0x0A, OUR_INT = 0x18, OUR_DOUBLE = 0x21, OUR_ARRAY = 0x32 };
/* Of a histogram: infertrace.wire.token_intervals. */
enum { OTLP_LOWEST_BUCKET = -1, OTLP_HIGHEST_BUCKET = 511 };

typedef struct {
    byte_slice value; /* the body of an AttributeValue */
    uint64_t time;    /* of an event */
} found_source;

typedef struct {
    byte_slice text; /* or the members of an array of texts */
    int is_array;
    double real;
    uint64_t whole;
} target_value;

/* What infertrace itself says in OTLP beside the values of fields. */
typedef struct {
    byte_slice operation_name;
    int is_cancelled;
    uint64_t invalid_count;
} own_words;

typedef struct {
    uint8_t *data;
    size_t size;
    size_t capacity;
    size_t spans;
    size_t max_spans;
    /* Of the scope that is being translated. */
    byte_slice head, tail, framework;
    uint32_t cut_count; /* of what head and tail should say */
    /* Of the span that is being translated. */
    uint64_t present[SOURCE_WORDS];
    int has_sources;
    found_source found[SOURCE_COUNT];
    uint8_t has_value[TARGET_COUNT];
    target_value values[TARGET_COUNT];
    uint8_t
        resolved[TARGET_COUNT]; /* the targets that have a value, in the order of their sources */
    size_t resolved_count;
    uint64_t start, duration;
    own_words own;
} otlp_translation;

typedef struct {
    byte_slice trace_id, span_id, trace_state, parent, name, status, message;
    uint64_t kind, start, end, dropped_attributes, dropped_events, dropped_links, code;
    uint32_t flags;
    wire_reader attributes; /* from the first to the last one, with what lies between */
    int has_events, has_links;
} otlp_fields;

/* In the fewest bytes, as all known senders write it: then a copy is what would be written. */
static int read_minimal(wire_reader *r, uint64_t *value) {
    const uint8_t *start = r->at;
    if (read_varint(r, value) < 0) return -1;
    if (r->at - start > 1 && r->at[-1] == 0) return -1;
    return r->at - start == 10 && r->at[-1] > 1 ? -1 : 0;
}

static int read_minimal_sized(wire_reader *r, wire_reader *inside) {
    uint64_t size;
    if (read_minimal(r, &size) < 0 || size > (uint64_t)(r->end - r->at)) return -1;
    inside->at = r->at;
    inside->end = r->at += size;
    return 0;
}

/* The only field of a message. */
static int read_only(wire_reader *r, wire_reader *inside) {
    return read_minimal_sized(r, inside) < 0 || r->at != r->end ? -1 : 0;
}

static int renumber_key_value(wire_reader r, int depth, byte_slice *key, byte_slice *value);

/* Gives an AnyValue that lies in the output the numbers of AttributeValue. */
static int renumber_value(wire_reader r, int depth) {
    uint8_t *tag = (uint8_t *)r.at;
    wire_reader inside, member;
    uint64_t ignored;
    if (r.at == r.end) return OTLP_USUAL;
    switch (*r.at++) {
    case 0x0A:
        return read_only(&r, &inside) == 0 && is_utf8(inside.at, inside.end) ? OTLP_USUAL
                                                                             : OTLP_UNUSUAL;
    case 0x10: return r.end - r.at == 1 && *r.at <= 1 ? OTLP_USUAL : OTLP_UNUSUAL;
    case 0x18: return read_minimal(&r, &ignored) == 0 && r.at == r.end ? OTLP_USUAL : OTLP_UNUSUAL;
    case 0x21: return r.end - r.at == 8 ? OTLP_USUAL : OTLP_UNUSUAL;
    case 0x3A: *tag = 0x2A; return read_only(&r, &inside) == 0 ? OTLP_USUAL : OTLP_UNUSUAL;
    case 0x2A:
    case 0x32:
        *tag += 8;
        if (depth >= OTLP_MAX_VALUE_DEPTH || read_only(&r, &inside) < 0) return OTLP_UNUSUAL;
        while (inside.at < inside.end) {
            byte_slice ignored_key, ignored_value;
            if (*inside.at++ != 0x0A || read_minimal_sized(&inside, &member) < 0)
                return OTLP_UNUSUAL;
            if (*tag == OUR_ARRAY
                    ? renumber_value(member, depth + 1)
                    : renumber_key_value(member, depth + 1, &ignored_key, &ignored_value))
                return OTLP_UNUSUAL;
        }
        return OTLP_USUAL;
    default: return OTLP_UNUSUAL;
    }
}

/* The key, and where the value lies. */
static int read_key_value_parts(wire_reader r, byte_slice *key, wire_reader *value) {
    wire_reader name;
    if (r.at == r.end || *r.at++ != 0x0A || read_minimal_sized(&r, &name) < 0) return OTLP_UNUSUAL;
    if (!is_utf8(name.at, name.end)) return OTLP_UNUSUAL;
    if (r.at == r.end || *r.at++ != 0x12 || read_only(&r, value) < 0) return OTLP_UNUSUAL;
    *key = slice_of(name);
    return OTLP_USUAL;
}

static int renumber_key_value(wire_reader r, int depth, byte_slice *key, byte_slice *value) {
    wire_reader inside;
    if (read_key_value_parts(r, key, &inside)) return OTLP_UNUSUAL;
    *value = slice_of(inside);
    return renumber_value(inside, depth);
}

/* A KeyValue as the entry of a map; `key` and `value` lie in the output. */
static int put_attribute(uint8_t **out, uint8_t tag, wire_reader body, byte_slice *key,
                         byte_slice *value) {
    wire_reader copy;
    size_t size = (size_t)(body.end - body.at);
    *out = wire_bytes(*out, tag, body.at, size);
    copy.end = *out;
    copy.at = *out - size;
    return renumber_key_value(copy, 0, key, value);
}

static inline int is_present(const otlp_translation *t, int source) {
    return (int)(t->present[source >> 6] >> (source & 63) & 1);
}

static inline void mark_present(otlp_translation *t, int source) {
    if (!t->has_sources) memset(t->present, 0, sizeof t->present);
    t->has_sources = 1;
    t->present[source >> 6] |= (uint64_t)1 << (source & 63);
}

/* The text in the body of an AttributeValue that begins with OUR_TEXT, or with an array. */
static byte_slice body_of(byte_slice value) {
    wire_reader r = {value.data + 1, value.data + value.size};
    byte_slice body = {NULL, 0};
    read_slice(&r, &body);
    return body;
}

#define IS_TEXT(slice, literal)                                                                    \
    ((slice).size == sizeof(literal) - 1 && memcmp((slice).data, literal, sizeof(literal) - 1) == 0)

static void note_own_words(own_words *own, byte_slice key, byte_slice value) {
    static const byte_slice none = {NULL, 0};
    byte_slice text = value.size && *value.data == OUR_TEXT ? body_of(value) : none;
    if (IS_TEXT(key, "infertrace.operation_name")) {
        own->operation_name = text;
    } else if (IS_TEXT(key, "infertrace.status")) {
        own->is_cancelled = IS_TEXT(text, "CANCELLED");
    } else if (IS_TEXT(key, "infertrace.invalid_field_count")) {
        wire_reader r = {value.data + 1, value.data + value.size};
        own->invalid_count = 0;
        if (value.size && *value.data == OUR_INT) read_varint(&r, &own->invalid_count);
        if (own->invalid_count > UINT32_MAX) own->invalid_count = 0;
    }
}

/* Whether two texts of one size are equal. Names of one size often differ in the end only, so that
 * is what is compared first: a call for each would cost more than what it finds. */
static inline int are_equal(const char *name, const uint8_t *text, size_t size) {
    uint64_t one, other;
    if (size < sizeof one) return memcmp(name, text, size) == 0;
    memcpy(&one, name + size - sizeof one, sizeof one);
    memcpy(&other, text + size - sizeof other, sizeof other);
    return one == other && memcmp(name, text, size - sizeof one) == 0;
}

/* Of two attributes with the same key, the last one counts. */
static int note_attribute(otlp_translation *t, byte_slice key, byte_slice value) {
    size_t i;
    if (IS_TEXT(key, "langfuse.observation.level")) return OTLP_UNUSUAL;
    if (key.size <= KEYS_LONGEST) {
        for (i = KEYS_START[key.size]; i < KEYS_START[key.size + 1]; i++) {
            int source = KEYS_BY_SIZE[i];
            if (!are_equal(DIALECT_SOURCES[source].name, key.data, key.size)) continue;
            mark_present(t, source);
            t->found[source].value = value;
        }
    }
    if (key.size > 11 && memcmp(key.data, "infertrace.", 11) == 0)
        note_own_words(&t->own, key, value);
    return OTLP_USUAL;
}

/* Of two events with the same name, the first one counts. */
static void note_event(otlp_translation *t, byte_slice name, uint64_t time) {
    size_t i;
    if (name.size > EVENTS_LONGEST) return;
    for (i = EVENTS_START[name.size]; i < EVENTS_START[name.size + 1]; i++) {
        int source = EVENTS_BY_SIZE[i];
        if (memcmp(DIALECT_SOURCES[source].name, name.data, name.size) != 0) continue;
        if (t->has_sources && is_present(t, source)) continue;
        mark_present(t, source);
        t->found[source].time = time;
    }
}

static int read_fields(wire_reader r, otlp_fields *f) {
    int statuses = 0;
    memset(f, 0, sizeof *f);
    while (r.at < r.end) {
        const uint8_t *start = r.at;
        wire_reader ignored;
        uint32_t tag;
        int found;
        if (read_tag(&r, &tag) < 0) return OTLP_UNUSUAL;
        switch (tag) {
        case 9 << 3 | WIRE_BYTES:
            found = read_sized(&r, &ignored);
            if (f->attributes.at == NULL) f->attributes.at = start;
            f->attributes.end = r.at;
            break;
        case 11 << 3 | WIRE_BYTES: found = read_sized(&r, &ignored), f->has_events = 1; break;
        case 13 << 3 | WIRE_BYTES: found = read_sized(&r, &ignored), f->has_links = 1; break;
        case 1 << 3 | WIRE_BYTES: found = read_slice(&r, &f->trace_id); break;
        case 2 << 3 | WIRE_BYTES: found = read_slice(&r, &f->span_id); break;
        case 3 << 3 | WIRE_BYTES: found = read_slice(&r, &f->trace_state); break;
        case 4 << 3 | WIRE_BYTES: found = read_slice(&r, &f->parent); break;
        case 5 << 3 | WIRE_BYTES: found = read_slice(&r, &f->name); break;
        case 6 << 3 | WIRE_VARINT: found = read_varint(&r, &f->kind); break;
        case 7 << 3 | WIRE_FIXED64: found = read_fixed64(&r, &f->start); break;
        case 8 << 3 | WIRE_FIXED64: found = read_fixed64(&r, &f->end); break;
        case 10 << 3 | WIRE_VARINT: found = read_varint(&r, &f->dropped_attributes); break;
        case 12 << 3 | WIRE_VARINT: found = read_varint(&r, &f->dropped_events); break;
        case 14 << 3 | WIRE_VARINT: found = read_varint(&r, &f->dropped_links); break;
        case 15 << 3 | WIRE_BYTES: found = statuses++ ? -1 : read_slice(&r, &f->status); break;
        case 16 << 3 | WIRE_FIXED32: found = read_fixed32(&r, &f->flags); break;
        default: found = skip_value(&r, tag, WIRE_MAX_DEPTH);
        }
        if (found < 0) return OTLP_UNUSUAL;
    }
    if (f->start > INT64_MAX || f->end > INT64_MAX) return OTLP_UNUSUAL;
    return OTLP_USUAL;
}

static int read_status(otlp_fields *f) {
    wire_reader r = {f->status.data, f->status.data + f->status.size};
    if (f->status.size == 0) return OTLP_USUAL;
    while (r.at < r.end) {
        uint32_t tag;
        int found;
        if (read_tag(&r, &tag) < 0) return OTLP_UNUSUAL;
        switch (tag) {
        case 2 << 3 | WIRE_BYTES: found = read_slice(&r, &f->message); break;
        case 3 << 3 | WIRE_VARINT: found = read_varint(&r, &f->code); break;
        default: found = skip_value(&r, tag, WIRE_MAX_DEPTH);
        }
        if (found < 0) return OTLP_UNUSUAL;
    }
    return OTLP_USUAL;
}

static inline int put_text(uint8_t **p, uint8_t tag, byte_slice text) {
    if (text.size == 0) return OTLP_USUAL;
    if (!is_utf8(text.data, text.data + text.size)) return OTLP_UNUSUAL;
    *p = wire_bytes(*p, tag, text.data, text.size);
    return OTLP_USUAL;
}

/* A number of 32 bits in a field above 15 and below 32; 0 is absent. */
static inline uint8_t *put_high_number(uint8_t *p, uint8_t tag, uint64_t value) {
    if ((uint32_t)value == 0) return p;
    *p++ = tag;
    return wire_uint(p, 1, (uint32_t)value);
}

static uint8_t *put_small_number(uint8_t *p, uint8_t tag, uint64_t value) {
    return (uint32_t)value ? wire_uint(p, tag, (uint32_t)value) : p;
}

static inline uint8_t *put_slice(uint8_t *p, byte_slice bytes) {
    if (bytes.size) memcpy(p, bytes.data, bytes.size);
    return p + bytes.size;
}

/* The attributes of an event or a link, after what else it has. */
static int put_attributes(uint8_t **p, wire_reader r, uint32_t wanted) {
    while (r.at < r.end) {
        uint32_t tag;
        wire_reader body;
        byte_slice key, value;
        if (read_tag(&r, &tag) < 0) return OTLP_UNUSUAL;
        if (tag != wanted) {
            if (skip_value(&r, tag, WIRE_MAX_DEPTH) < 0) return OTLP_UNUSUAL;
            continue;
        }
        if (read_sized(&r, &body) < 0) return OTLP_UNUSUAL;
        if (put_attribute(p, 0x1A, body, &key, &value)) return OTLP_UNUSUAL;
    }
    return OTLP_USUAL;
}

static int put_event(otlp_translation *t, uint8_t **out, wire_reader body) {
    wire_reader r = body;
    uint64_t time = 0, dropped = 0;
    byte_slice name = {NULL, 0};
    uint8_t *p = *out, *start;
    while (r.at < r.end) {
        uint32_t tag;
        int found;
        if (read_tag(&r, &tag) < 0) return OTLP_UNUSUAL;
        switch (tag) {
        case 1 << 3 | WIRE_FIXED64: found = read_fixed64(&r, &time); break;
        case 2 << 3 | WIRE_BYTES: found = read_slice(&r, &name); break;
        case 4 << 3 | WIRE_VARINT: found = read_varint(&r, &dropped); break;
        default: found = skip_value(&r, tag, WIRE_MAX_DEPTH);
        }
        if (found < 0) return OTLP_UNUSUAL;
    }
    if (time > INT64_MAX || !is_utf8(name.data, name.data + name.size)) return OTLP_UNUSUAL;
    note_event(t, name, time);
    *p++ = 0x72;
    start = p;
    p = wire_uint(p + 2, 0x08, time);
    p = wire_uint(p, 0x12, name.size);
    p = put_slice(p, name);
    if (put_attributes(&p, body, 3 << 3 | WIRE_BYTES)) return OTLP_UNUSUAL;
    p = put_small_number(p, 0x20, dropped);
    *out = wire_close(start, 2, p);
    return OTLP_USUAL;
}

static int put_link(uint8_t **out, wire_reader body) {
    wire_reader r = body;
    uint64_t dropped = 0;
    uint32_t flags = 0;
    byte_slice trace_id = {NULL, 0}, span_id = {NULL, 0}, trace_state = {NULL, 0};
    uint8_t *p = *out, *start;
    while (r.at < r.end) {
        uint32_t tag;
        int found;
        if (read_tag(&r, &tag) < 0) return OTLP_UNUSUAL;
        switch (tag) {
        case 1 << 3 | WIRE_BYTES: found = read_slice(&r, &trace_id); break;
        case 2 << 3 | WIRE_BYTES: found = read_slice(&r, &span_id); break;
        case 3 << 3 | WIRE_BYTES: found = read_slice(&r, &trace_state); break;
        case 5 << 3 | WIRE_VARINT: found = read_varint(&r, &dropped); break;
        case 6 << 3 | WIRE_FIXED32: found = read_fixed32(&r, &flags); break;
        default: found = skip_value(&r, tag, WIRE_MAX_DEPTH);
        }
        if (found < 0) return OTLP_UNUSUAL;
    }
    *p++ = 0x7A;
    start = p;
    p = put_slice(wire_uint(p + 2, 0x0A, trace_id.size), trace_id);
    p = put_slice(wire_uint(p, 0x12, span_id.size), span_id);
    if (put_attributes(&p, body, 4 << 3 | WIRE_BYTES)) return OTLP_UNUSUAL;
    if (put_text(&p, 0x22, trace_state)) return OTLP_UNUSUAL;
    p = put_small_number(p, 0x28, dropped);
    p = put_small_number(p, 0x30, flags);
    *out = wire_close(start, 2, p);
    return OTLP_USUAL;
}

/* What is repeated, in the order in which it came: `number` of OTLP. */
static int put_repeated(otlp_translation *t, uint8_t **p, wire_reader r, uint32_t number) {
    while (r.at < r.end) {
        uint32_t tag;
        wire_reader body;
        byte_slice key, value;
        int found = OTLP_USUAL;
        if (read_tag(&r, &tag) < 0) return OTLP_UNUSUAL;
        if (tag != (number << 3 | WIRE_BYTES)) {
            if (skip_value(&r, tag, WIRE_MAX_DEPTH) < 0) return OTLP_UNUSUAL;
            continue;
        }
        if (read_sized(&r, &body) < 0) return OTLP_UNUSUAL;
        if (number == 9) {
            found = put_attribute(p, 0x6A, body, &key, &value);
            if (found == OTLP_USUAL) found = note_attribute(t, key, value);
        } else {
            found = number == 11 ? put_event(t, p, body) : put_link(p, body);
        }
        if (found) return found;
    }
    return OTLP_USUAL;
}

/* A number that is neither negative nor infinite. */
static int real_of(byte_slice value, double *number) {
    wire_reader r = {value.data, value.data + value.size};
    uint64_t bits;
    if (*r.at == OUR_DOUBLE) {
        r.at++;
        read_fixed64(&r, &bits);
        memcpy(number, &bits, sizeof bits);
    } else if (*r.at == OUR_INT) {
        r.at++;
        read_varint(&r, &bits);
        *number = (double)(int64_t)bits;
    } else {
        return OTLP_UNUSUAL;
    }
    return isfinite(*number) && *number >= 0 ? OTLP_USUAL : OTLP_UNUSUAL;
}

enum { SOURCE_ABSENT = 2 };

static int read_text_source(target_value *value, byte_slice given, char not_first) {
    byte_slice text;
    if (*given.data != OUR_TEXT) return OTLP_UNUSUAL;
    text = body_of(given);
    if (text.size == 0) return SOURCE_ABSENT;
    if (not_first && *text.data == (uint8_t)not_first) return OTLP_UNUSUAL;
    value->text = text;
    value->is_array = 0;
    return OTLP_USUAL;
}

static int read_reasons(target_value *value, byte_slice given) {
    wire_reader r, member;
    byte_slice members;
    if (*given.data != OUR_ARRAY) return read_text_source(value, given, '[');
    members = body_of(given);
    if (members.size <= 4) return OTLP_UNUSUAL; /* none, or an empty one */
    r.at = members.data;
    r.end = members.data + members.size;
    while (r.at < r.end) {
        r.at++;
        read_sized(&r, &member);
        if (member.at == member.end || *member.at != OUR_TEXT) return OTLP_UNUSUAL;
    }
    value->text = members;
    value->is_array = 1;
    return OTLP_USUAL;
}

/* An integer of an array, from `lowest` to `highest`. */
static int read_array_number(wire_reader *r, int64_t lowest, int64_t highest, int64_t *number) {
    wire_reader member;
    uint64_t value;
    if (r->at == r->end) return OTLP_UNUSUAL;
    r->at++;
    read_sized(r, &member);
    if (member.at == member.end || *member.at++ != OUR_INT) return OTLP_UNUSUAL;
    read_varint(&member, &value);
    *number = (int64_t)value;
    return *number >= lowest && *number <= highest ? OTLP_USUAL : OTLP_UNUSUAL;
}

/* The bucket of the first count, and the counts. */
static int read_histogram(target_value *value, byte_slice given) {
    wire_reader r;
    int64_t bucket, count;
    if (*given.data != OUR_ARRAY) return OTLP_UNUSUAL;
    value->text = body_of(given);
    r.at = value->text.data;
    r.end = r.at + value->text.size;
    if (read_array_number(&r, OTLP_LOWEST_BUCKET, OTLP_HIGHEST_BUCKET, &bucket))
        return OTLP_UNUSUAL;
    if (r.at == r.end) return OTLP_UNUSUAL;
    for (; r.at < r.end; bucket++) {
        if (bucket > OTLP_HIGHEST_BUCKET) return OTLP_UNUSUAL;
        if (read_array_number(&r, 0, UINT32_MAX, &count)) return OTLP_UNUSUAL;
    }
    return OTLP_USUAL;
}

static int read_seconds(const otlp_translation *t, target_value *value, byte_slice given) {
    /* Each step is rounded as Python rounds it. */
    volatile double limit_s = (double)t->duration / 1e9, ms;
    double number;
    if (real_of(given, &number)) return OTLP_UNUSUAL;
    limit_s = limit_s * 1.05;
    limit_s = limit_s + 0.01;
    if (t->duration && number > limit_s) return OTLP_UNUSUAL;
    ms = number * 1e3;
    if (ms > (double)FLT_MAX) return OTLP_UNUSUAL;
    value->real = ms;
    return OTLP_USUAL;
}

static int read_event_source(const otlp_translation *t, target_value *value, uint64_t time) {
    if (time < t->start) return SOURCE_ABSENT;
    value->real = (double)(int64_t)(time - t->start) / 1e6;
    return OTLP_USUAL;
}

static int read_share(const otlp_translation *t, const dialect_source *source,
                      target_value *value) {
    double share;
    if (!t->has_value[source->one] || !t->has_value[source->other]) return SOURCE_ABSENT;
    if (t->values[source->other].whole == 0) return SOURCE_ABSENT;
    share = (double)t->values[source->one].whole / (double)t->values[source->other].whole;
    value->real = share < 1.0 ? share : 1.0;
    return OTLP_USUAL;
}

static int read_number_source(const otlp_translation *t, int form, target_value *value,
                              byte_slice given) {
    wire_reader r = {given.data + 1, given.data + given.size};
    switch (form) {
    case AS_COUNT:
    case AS_SIZE:
        if (*given.data != OUR_INT) return OTLP_UNUSUAL;
        read_varint(&r, &value->whole);
        if (form == AS_COUNT) return value->whole <= INT32_MAX ? OTLP_USUAL : OTLP_UNUSUAL;
        return value->whole != (uint64_t)INT64_MIN ? OTLP_USUAL : OTLP_UNUSUAL;
    case AS_SECONDS: return read_seconds(t, value, given);
    case AS_PER_TOKEN:
        if (!t->has_value[TARGET_OUTPUT_TOKENS] || t->values[TARGET_OUTPUT_TOKENS].whole < 2)
            return SOURCE_ABSENT;
        if (read_seconds(t, value, given)) return OTLP_UNUSUAL;
        value->real /= (double)(t->values[TARGET_OUTPUT_TOKENS].whole - 1);
        return OTLP_USUAL;
    default: break;
    }
    if (real_of(given, &value->real)) return OTLP_UNUSUAL; /* a negative reading, too */
    if (form == AS_RATIO && value->real > 1.0) return OTLP_UNUSUAL;
    return form == AS_READING || value->real <= (double)FLT_MAX ? OTLP_USUAL : OTLP_UNUSUAL;
}

static int read_source(const otlp_translation *t, int place, target_value *value) {
    const dialect_source *source = &DIALECT_SOURCES[place];
    byte_slice given;
    if (source->form == AS_SHARE) return read_share(t, source, value);
    if (source->form == AS_SCOPE) {
        if (t->framework.size == 0) return SOURCE_ABSENT;
        value->text = t->framework;
        value->is_array = 0;
        return OTLP_USUAL;
    }
    if (source->form == AS_EVENT) return read_event_source(t, value, t->found[place].time);
    if (source->form == AS_OTHER) return OTLP_UNUSUAL;
    given = t->found[place].value;
    if (given.size == 0) return SOURCE_ABSENT; /* an empty value */
    switch (source->form) {
    case AS_TEXT:
    case AS_LABEL: return read_text_source(value, given, 0);
    case AS_JSON_TEXT: return read_text_source(value, given, '"');
    case AS_REASONS: return read_reasons(value, given);
    case AS_INTERVALS: return read_histogram(value, given);
    default: return read_number_source(t, source->form, value, given);
    }
}

static int lowest_bit(uint64_t bits) {
#if defined(__GNUC__)
    return __builtin_ctzll(bits);
#else
    int place = 0;
    while (!(bits >> place & 1))
        place++;
    return place;
#endif
}

/* The sources lie by target, and some need the target of earlier ones. */
static int resolve_fields(otlp_translation *t) {
    int word;
    memset(t->has_value, 0, sizeof t->has_value);
    t->resolved_count = 0;
    for (word = 0; word < SOURCE_WORDS; word++) {
        uint64_t bits = ASKED_OF_EACH_SPAN[word] | (t->has_sources ? t->present[word] : 0);
        for (; bits; bits &= bits - 1) {
            int place = 64 * word + lowest_bit(bits), found;
            int target = DIALECT_SOURCES[place].target;
            if (t->has_value[target]) continue;
            found = read_source(t, place, &t->values[target]);
            if (found == OTLP_UNUSUAL) return OTLP_UNUSUAL;
            if (found != OTLP_USUAL) continue;
            t->has_value[target] = 1;
            t->resolved[t->resolved_count++] = (uint8_t)target;
        }
    }
    return OTLP_USUAL;
}

static uint8_t *put_array_text(uint8_t *p, byte_slice members) {
    wire_reader r = {members.data, members.data + members.size}, member;
    uint8_t *start = p;
    p += 2;
    while (r.at < r.end) {
        if (r.at != members.data) *p++ = ',';
        r.at++;
        read_sized(&r, &member);
        p = put_slice(p, body_of(slice_of(member)));
    }
    return wire_close(start, 2, p);
}

static uint8_t *put_histogram(uint8_t *p, byte_slice members) {
    wire_reader r = {members.data, members.data + members.size};
    uint8_t *start = p, *counts;
    int64_t number;
    p += 2;
    read_array_number(&r, OTLP_LOWEST_BUCKET, OTLP_HIGHEST_BUCKET, &number);
    if (number) p = wire_uint(p, 0x08, (uint64_t)(number > 0 ? 2 * number : -2 * number - 1));
    *p++ = 0x12;
    counts = p;
    p += 2;
    while (r.at < r.end) {
        read_array_number(&r, 0, UINT32_MAX, &number);
        p = wire_varint(p, (uint64_t)number);
    }
    return wire_close(start, 2, wire_close(counts, 2, p));
}

static uint8_t *put_context(const otlp_translation *t, uint8_t *p, uint8_t tag,
                            const context_field *fields, size_t count) {
    uint8_t *start = p;
    size_t i;
    *p++ = tag;
    p += 2;
    for (i = 0; i < count; i++) {
        const context_field *f = &fields[i];
        const target_value *value = &t->values[f->target];
        if (!t->has_value[f->target]) continue;
        *p++ = (uint8_t)f->tag;
        if (f->tag >> 8) *p++ = (uint8_t)(f->tag >> 8);
        switch (f->kind) {
        case KIND_OF_TEXT:
            if (value->is_array)
                p = put_array_text(p, value->text);
            else
                p = put_slice(wire_varint(p, value->text.size), value->text);
            break;
        case KIND_OF_INTERVALS: p = put_histogram(p, value->text); break;
        case KIND_OF_COUNT:
        case KIND_OF_SIZE: p = wire_varint(p, value->whole); break;
        case KIND_OF_MEASURE: p = wire_float(p, (float)value->real); break;
        default: p = wire_double(p, value->real);
        }
    }
    return p == start + 3 ? start : wire_close(start + 1, 2, p);
}

#define CONTEXT_COUNT(fields) (sizeof(fields) / sizeof(context_field))
/* What a span takes beyond what it is made of, its head and its tail. */
#define OTLP_SPAN_BYTES 1024

static void begin_translation(otlp_translation *t, const otlp_fields *f) {
    t->has_sources = 0;
    memset(&t->own, 0, sizeof t->own);
    t->start = f->start;
    t->duration = f->end > f->start ? f->end - f->start : 0;
}

static int translate_usual(otlp_translation *t, wire_reader span, uint8_t **out) {
    otlp_fields f;
    uint8_t *p = *out, *start;
    if (read_fields(span, &f) || read_status(&f)) return OTLP_UNUSUAL;
    begin_translation(t, &f);
    *p++ = 0x0A;
    start = p;
    p += 2;
    p = put_slice(wire_uint(p, 0x0A, f.trace_id.size), f.trace_id);
    p = put_slice(wire_uint(p, 0x12, f.span_id.size), f.span_id);
    if (f.parent.size) p = put_slice(wire_uint(p, 0x1A, f.parent.size), f.parent);
    p = put_slice(p, t->head);
    if (put_text(&p, 0x2A, f.name)) return OTLP_UNUSUAL;
    *p++ = 0x30;
    p = wire_time(p, f.start);
    if (t->duration) p = wire_uint(p, 0x38, t->duration);
    if ((uint32_t)f.code == 1) p = wire_bytes(p, 0x42, "OK", 2);
    if ((uint32_t)f.code == 2) p = wire_bytes(p, 0x42, "ERROR", 5);
    if (put_text(&p, 0x62, f.message)) return OTLP_UNUSUAL;
    if (put_repeated(t, &p, f.attributes, 9)) return OTLP_UNUSUAL;
    if (f.has_events && put_repeated(t, &p, span, 11)) return OTLP_UNUSUAL;
    if (f.has_links && put_repeated(t, &p, span, 13)) return OTLP_UNUSUAL;
    /* Of a field that is there twice, the last one counts. */
    if (t->own.operation_name.size)
        p = put_slice(wire_uint(p, 0x2A, t->own.operation_name.size), t->own.operation_name);
    if (t->own.is_cancelled) p = wire_bytes(p, 0x42, "CANCELLED", 9);
    p = put_high_number(p, 0x80, (f.end < f.start) + t->own.invalid_count + t->cut_count);
    p = put_high_number(p, 0x88, f.kind);
    if (f.trace_state.size) {
        *p++ = 0x92;
        if (put_text(&p, 0x01, f.trace_state)) return OTLP_UNUSUAL;
    }
    p = put_high_number(p, 0xA8, f.dropped_attributes);
    p = put_high_number(p, 0xB0, f.dropped_events);
    p = put_high_number(p, 0xB8, f.dropped_links);
    p = put_high_number(p, 0xC0, f.flags);
    p = put_high_number(p, 0xC8, f.code);
    p = put_slice(p, t->tail);
    if (t->has_sources || t->framework.size) {
        if (resolve_fields(t)) return OTLP_UNUSUAL;
        p = put_context(t, p, 0x52, INFERENCE_CONTEXT, CONTEXT_COUNT(INFERENCE_CONTEXT));
        p = put_context(t, p, 0x5A, RESOURCE_CONTEXT, CONTEXT_COUNT(RESOURCE_CONTEXT));
    }
    *out = wire_close(start, 2, p);
    return OTLP_USUAL;
}

static int make_room(otlp_translation *t, size_t more) {
    size_t wanted = t->size + more, capacity = t->capacity ? t->capacity : 1 << 16;
    uint8_t *moved;
    if (wanted <= t->capacity) return 0;
    while (capacity < wanted)
        capacity *= 2;
    moved = realloc(t->data, capacity);
    if (moved == NULL) return OTLP_NO_MEMORY;
    t->data = moved;
    t->capacity = capacity;
    return 0;
}

/* The next message in a field of that number. */
static int find_message(wire_reader *r, uint32_t number, wire_reader *message) {
    while (r->at < r->end) {
        uint32_t tag;
        if (read_tag(r, &tag) < 0) return OTLP_MALFORMED;
        if (tag == (number << 3 | WIRE_BYTES))
            return read_sized(r, message) < 0 ? OTLP_MALFORMED : 1;
        if (skip_value(r, tag, WIRE_MAX_DEPTH) < 0) return OTLP_MALFORMED;
    }
    return 0;
}

/* The next span of a ScopeSpans: 1, 0 where there is none, or an error. */
static int next_span(otlp_translation *t, wire_reader *r, wire_reader *span) {
    int found = find_message(r, 2, span);
    return found > 0 && t->spans++ >= t->max_spans ? OTLP_TOO_MANY : found;
}

/* Each attribute, event or link takes at most three times the room that it took. */
static size_t room_for(const otlp_translation *t, const wire_reader *span) {
    size_t shared = t->head.size + t->tail.size + t->framework.size;
    return 5 * (size_t)(span->end - span->at) + shared + OTLP_SPAN_BYTES;
}

/* The spans of a ScopeSpans, from where the reader is. OTLP_UNUSUAL: `span` is one to be
 * translated otherwise, and the reader stands after it. */
static int translate_spans(otlp_translation *t, wire_reader *r, wire_reader *span) {
    while (r->at < r->end) {
        uint8_t *p;
        int found = next_span(t, r, span);
        if (found <= 0) return found;
        if (make_room(t, room_for(t, span)) < 0) return OTLP_NO_MEMORY;
        p = t->data + t->size;
        if (translate_usual(t, *span, &p)) return OTLP_UNUSUAL;
        t->size = (size_t)(p - t->data);
    }
    return OTLP_USUAL;
}

static int append_span(otlp_translation *t, const uint8_t *data, size_t size) {
    if (make_room(t, size) < 0) return OTLP_NO_MEMORY;
    memcpy(t->data + t->size, data, size);
    t->size += size;
    return 0;
}

#endif
