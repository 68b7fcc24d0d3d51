/* What a translator reads of an encoded Span: where its texts are, its numbers, its attributes.
 * Source of the numbers: proto/span.proto.
 */
#ifndef INFERTRACE_OTLP_SPAN_READ_H
#define INFERTRACE_OTLP_SPAN_READ_H

#include <stddef.h>
#include <stdlib.h>

#include "generated/otlp_attributes.h"
#include "otlp/any_value.h"

/* Why a span is not sent; the order of infertrace.otlp.rejection_reasons.REASONS. */
enum {
    OTLP_ACCEPTED,
    OTLP_MALFORMED,
    OTLP_BAD_TRACE_ID,
    OTLP_BAD_SPAN_ID,
    OTLP_BAD_PARENT,
    OTLP_BAD_LINK,
    OTLP_BAD_START,
    OTLP_BAD_DURATION,
    OTLP_BAD_END,
    OTLP_BAD_STATUS,
    OTLP_NO_MEMORY
};

enum { OTLP_STATUS_OK, OTLP_STATUS_ERROR, OTLP_STATUS_CANCELLED };

/* A tag or an attribute. */
typedef struct {
    byte_slice key, value;
    uint32_t hash;
    uint8_t is_tag;
    uint8_t is_replaced; /* a later one has the same key */
} otlp_entry;

/* Kept from span to span, so that memory is taken once. */
typedef struct {
    otlp_entry *entries;
    size_t capacity, count;
    uint32_t *slots; /* by hash: the index of an entry, plus one */
    size_t slot_capacity, slot_mask;
} otlp_entries;

typedef union {
    byte_slice text;
    int64_t integer;
    double real;
} otlp_number_or_text;

typedef struct {
    byte_slice trace_id, span_id, parent, service, operation, status_text, status_message;
    byte_slice trace_state, scope_name, scope_version;
    int64_t start, duration;
    uint32_t dropped_attributes, dropped_events, dropped_links, flags;
    uint64_t kind, status_code;
    int status;
    int has_events, has_links, has_scope_attributes;
    uint64_t present; /* a bit for each source */
    otlp_number_or_text values[OTLP_SOURCE_COUNT];
} otlp_span;

#define OTLP_BIT(source) ((uint64_t)1 << (source))

/* RFC 9923, 32 bits. */
static inline uint32_t otlp_hash(byte_slice key) {
    uint32_t hash = 0x811C9DC5u;
    size_t i;
    for (i = 0; i < key.size; i++)
        hash = (hash ^ key.data[i]) * 0x01000193u;
    return hash;
}

static inline int otlp_is(byte_slice text, const char *expected, size_t size) {
    return text.size == size && memcmp(text.data, expected, size) == 0;
}

static inline byte_slice otlp_constant(const char *text) {
    byte_slice slice = {(const uint8_t *)text, strlen(text)};
    return slice;
}

static int otlp_add_entry(otlp_entries *all, wire_reader r, int is_tag) {
    otlp_entry *entry;
    if (all->count == all->capacity) {
        size_t capacity = all->capacity ? 2 * all->capacity : 64;
        entry = realloc(all->entries, capacity * sizeof(otlp_entry));
        if (!entry) return OTLP_NO_MEMORY;
        all->entries = entry;
        all->capacity = capacity;
    }
    entry = all->entries + all->count;
    if (otlp_read_entry(r, &entry->key, &entry->value) < 0) return OTLP_MALFORMED;
    if (is_tag) {
        const uint8_t *text = entry->value.data;
        if (!is_utf8(text, text + entry->value.size)) return OTLP_MALFORMED;
    }
    entry->hash = otlp_hash(entry->key);
    entry->is_tag = (uint8_t)is_tag;
    entry->is_replaced = 0;
    all->count++;
    return OTLP_ACCEPTED;
}

/* The slot of a key: that of the entry that has it, or an empty one. */
static uint32_t *otlp_slot(const otlp_entries *all, byte_slice key, uint32_t hash) {
    size_t at = hash & all->slot_mask;
    for (;; at = (at + 1) & all->slot_mask) {
        uint32_t *slot = all->slots + at;
        const otlp_entry *entry;
        if (!*slot) return slot;
        entry = all->entries + *slot - 1;
        if (entry->hash == hash && entry->key.size == key.size &&
            memcmp(entry->key.data, key.data, key.size) == 0)
            return slot;
    }
}

/* Find entries of the same key: the value of the last stands where the first was. */
static int otlp_index_entries(otlp_entries *all) {
    size_t slots = 16, i;
    while (slots < 2 * all->count)
        slots *= 2;
    if (slots > all->slot_capacity) {
        uint32_t *grown = realloc(all->slots, slots * sizeof(uint32_t));
        if (!grown) return OTLP_NO_MEMORY;
        all->slots = grown;
        all->slot_capacity = slots;
    }
    memset(all->slots, 0, slots * sizeof(uint32_t));
    all->slot_mask = slots - 1;
    for (i = 0; i < all->count; i++) {
        otlp_entry *entry = all->entries + i;
        uint32_t *slot = otlp_slot(all, entry->key, entry->hash);
        if (*slot) {
            all->entries[*slot - 1].value = entry->value;
            all->entries[*slot - 1].is_tag = entry->is_tag;
            entry->is_replaced = 1;
        } else {
            *slot = (uint32_t)(i + 1);
        }
    }
    return OTLP_ACCEPTED;
}

static inline int otlp_has_key(const otlp_entries *all, const otlp_row *row) {
    byte_slice key = {(const uint8_t *)row->key, row->key_size};
    return all->count && *otlp_slot(all, key, row->hash);
}

static inline void otlp_set_text(otlp_span *span, int source, byte_slice text) {
    span->values[source].text = text;
    if (text.size)
        span->present |= OTLP_BIT(source);
    else
        span->present &= ~OTLP_BIT(source);
}

static inline void otlp_set_integer(otlp_span *span, int source, int64_t value) {
    span->values[source].integer = value;
    span->present |= OTLP_BIT(source);
}

static int otlp_read_fields(otlp_span *span, wire_reader r, const otlp_field *fields,
                            size_t field_count) {
    static const uint8_t wire_types[] = {
        [OTLP_READ_NONE] = 0xFF,           [OTLP_READ_TEXT] = WIRE_BYTES,
        [OTLP_READ_INT32] = WIRE_VARINT,   [OTLP_READ_INT64] = WIRE_VARINT,
        [OTLP_READ_UINT32] = WIRE_VARINT,  [OTLP_READ_FLOAT] = WIRE_FIXED32,
        [OTLP_READ_DOUBLE] = WIRE_FIXED64, [OTLP_READ_INTERVALS] = WIRE_BYTES,
    };
    while (r.at < r.end) {
        uint32_t tag, bits;
        uint64_t number;
        float real;
        otlp_field field = {0, OTLP_READ_NONE};
        if (read_tag(&r, &tag) < 0) return -1;
        if (tag >> 3 < field_count) field = fields[tag >> 3];
        if (wire_types[field.read] != (tag & 7)) {
            if (skip_value(&r, tag, WIRE_MAX_DEPTH) < 0) return -1;
            continue;
        }
        switch (field.read) {
        case OTLP_READ_TEXT: {
            byte_slice text;
            if (read_text(&r, &text) < 0) return -1;
            otlp_set_text(span, field.source, text);
            break;
        }
        case OTLP_READ_INTERVALS: /* read again where it is written */
            if (read_slice(&r, &span->values[field.source].text) < 0) return -1;
            span->present |= OTLP_BIT(field.source);
            break;
        case OTLP_READ_FLOAT:
            if (read_fixed32(&r, &bits) < 0) return -1;
            memcpy(&real, &bits, sizeof real);
            span->values[field.source].real = (double)real;
            span->present |= OTLP_BIT(field.source);
            break;
        case OTLP_READ_DOUBLE:
            if (read_fixed64(&r, &number) < 0) return -1;
            memcpy(&span->values[field.source].real, &number, sizeof number);
            span->present |= OTLP_BIT(field.source);
            break;
        default:
            if (read_varint(&r, &number) < 0) return -1;
            if (field.read == OTLP_READ_INT32)
                otlp_set_integer(span, field.source, (int32_t)(uint32_t)number);
            else if (field.read == OTLP_READ_UINT32)
                otlp_set_integer(span, field.source, (int64_t)(uint32_t)number);
            else
                otlp_set_integer(span, field.source, (int64_t)number);
        }
    }
    return 0;
}

#define OTLP_FIELD_COUNT(fields) (sizeof(fields) / sizeof(otlp_field))

static int otlp_read_span_field(otlp_span *span, otlp_entries *entries, wire_reader *r,
                                uint32_t tag) {
    wire_reader inside;
    uint64_t number;
    int bad;
#define SIZED_INTO(slice)                                                                          \
    if (read_sized(r, &inside) < 0) return OTLP_MALFORMED;                                         \
    slice = slice_of(inside);                                                                      \
    return OTLP_ACCEPTED
#define TEXT_INTO(slice) return read_text(r, &(slice)) < 0 ? OTLP_MALFORMED : OTLP_ACCEPTED
#define NUMBER_INTO(field, type)                                                                   \
    if (read_varint(r, &number) < 0) return OTLP_MALFORMED;                                        \
    field = (type)number;                                                                          \
    return OTLP_ACCEPTED
    switch (tag) {
    case 1 << 3 | WIRE_BYTES: SIZED_INTO(span->trace_id);
    case 2 << 3 | WIRE_BYTES: SIZED_INTO(span->span_id);
    case 3 << 3 | WIRE_BYTES: SIZED_INTO(span->parent);
    case 4 << 3 | WIRE_BYTES: TEXT_INTO(span->service);
    case 5 << 3 | WIRE_BYTES: TEXT_INTO(span->operation);
    case 6 << 3 | WIRE_VARINT: NUMBER_INTO(span->start, int64_t);
    case 7 << 3 | WIRE_VARINT: NUMBER_INTO(span->duration, int64_t);
    case 8 << 3 | WIRE_BYTES: TEXT_INTO(span->status_text);
    case 9 << 3 | WIRE_BYTES:
    case 13 << 3 | WIRE_BYTES:
        if (read_sized(r, &inside) < 0) return OTLP_MALFORMED;
        return otlp_add_entry(entries, inside, tag == (9 << 3 | WIRE_BYTES));
    case 10 << 3 | WIRE_BYTES:
        bad = read_sized(r, &inside) < 0 ||
              otlp_read_fields(span, inside, OTLP_INFERENCE_FIELDS,
                               OTLP_FIELD_COUNT(OTLP_INFERENCE_FIELDS)) < 0;
        return bad ? OTLP_MALFORMED : OTLP_ACCEPTED;
    case 11 << 3 | WIRE_BYTES:
        bad = read_sized(r, &inside) < 0 ||
              otlp_read_fields(span, inside, OTLP_RESOURCE_FIELDS,
                               OTLP_FIELD_COUNT(OTLP_RESOURCE_FIELDS)) < 0;
        return bad ? OTLP_MALFORMED : OTLP_ACCEPTED;
    case 12 << 3 | WIRE_BYTES: TEXT_INTO(span->status_message);
    case 14 << 3 | WIRE_BYTES: /* read where they are written */
        span->has_events = 1;
        return read_sized(r, &inside) < 0 ? OTLP_MALFORMED : OTLP_ACCEPTED;
    case 15 << 3 | WIRE_BYTES:
        span->has_links = 1;
        return read_sized(r, &inside) < 0 ? OTLP_MALFORMED : OTLP_ACCEPTED;
    case 16 << 3 | WIRE_VARINT:
        if (read_varint(r, &number) < 0) return OTLP_MALFORMED;
        if ((uint32_t)number)
            otlp_set_integer(span, OTLP_INVALID_FIELD_COUNT, (int64_t)(uint32_t)number);
        else
            span->present &= ~OTLP_BIT(OTLP_INVALID_FIELD_COUNT);
        return OTLP_ACCEPTED;
    case 17 << 3 | WIRE_VARINT: NUMBER_INTO(span->kind, uint32_t);
    case 18 << 3 | WIRE_BYTES: TEXT_INTO(span->trace_state);
    case 19 << 3 | WIRE_BYTES: TEXT_INTO(span->scope_name);
    case 20 << 3 | WIRE_BYTES: TEXT_INTO(span->scope_version);
    case 21 << 3 | WIRE_VARINT: NUMBER_INTO(span->dropped_attributes, uint32_t);
    case 22 << 3 | WIRE_VARINT: NUMBER_INTO(span->dropped_events, uint32_t);
    case 23 << 3 | WIRE_VARINT: NUMBER_INTO(span->dropped_links, uint32_t);
    case 24 << 3 | WIRE_VARINT: NUMBER_INTO(span->flags, uint32_t);
    case 25 << 3 | WIRE_VARINT: NUMBER_INTO(span->status_code, uint32_t);
    case 26 << 3 | WIRE_BYTES:
        span->has_scope_attributes = 1;
        return read_sized(r, &inside) < 0 ? OTLP_MALFORMED : OTLP_ACCEPTED;
    default: return skip_value(r, tag, WIRE_MAX_DEPTH) < 0 ? OTLP_MALFORMED : OTLP_ACCEPTED;
    }
#undef SIZED_INTO
#undef TEXT_INTO
#undef NUMBER_INTO
}

static int otlp_is_id(byte_slice id, size_t size) {
    static const uint8_t zeros[16] = {0};
    return id.size == size && memcmp(id.data, zeros, size) != 0;
}

static int otlp_judge_span(otlp_span *span) {
    if (!otlp_is_id(span->trace_id, 16)) return OTLP_BAD_TRACE_ID;
    if (!otlp_is_id(span->span_id, 8)) return OTLP_BAD_SPAN_ID;
    if (span->parent.size && !otlp_is_id(span->parent, 8)) return OTLP_BAD_PARENT;
    if (span->start <= 0) return OTLP_BAD_START;
    if (span->duration < 0) return OTLP_BAD_DURATION;
    if (span->duration > INT64_MAX - span->start) return OTLP_BAD_END;
    if (!span->status_text.size || otlp_is(span->status_text, "OK", 2))
        span->status = OTLP_STATUS_OK;
    else if (otlp_is(span->status_text, "ERROR", 5))
        span->status = OTLP_STATUS_ERROR;
    else if (otlp_is(span->status_text, "CANCELLED", 9))
        span->status = OTLP_STATUS_CANCELLED;
    else
        return OTLP_BAD_STATUS;
    return OTLP_ACCEPTED;
}

static int otlp_read_span(otlp_span *span, otlp_entries *entries, wire_reader r) {
    memset(span, 0, offsetof(otlp_span, values));
    entries->count = 0;
    while (r.at < r.end) {
        uint32_t tag;
        int reason;
        if (read_tag(&r, &tag) < 0) return OTLP_MALFORMED;
        reason = otlp_read_span_field(span, entries, &r, tag);
        if (reason) return reason;
    }
    if (entries->count) {
        int reason = otlp_index_entries(entries);
        if (reason) return reason;
    }
    return otlp_judge_span(span);
}

#endif
