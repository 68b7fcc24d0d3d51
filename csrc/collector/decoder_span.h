/* Encoded spans into columns. A span is read whole before a column is touched, but for its
 * JSON, which is written as it is read and taken back if the span turns out to be bad.
 */
#ifndef INFERTRACE_DECODER_SPAN_H
#define INFERTRACE_DECODER_SPAN_H

#include "collector/decoder_columns.h"
#include "collector/decoder_intervals.h"
#include "common/wire_read.h"

/* Why a span cannot be stored; the order of infertrace.collector.ingest.span_validity.REASONS. */
enum {
    ACCEPTED,
    MALFORMED,
    BAD_TRACE_ID,
    BAD_SPAN_ID,
    BAD_PARENT,
    BAD_START,
    BAD_DURATION,
    BAD_END,
    BAD_STATUS
};

enum { NO_MEMORY = -2 }; /* beside -1, malformed */

static const unsigned char WIRE_OF_FORM[] = {
    0xFF,         WIRE_BYTES,   WIRE_BYTES,  WIRE_VARINT, WIRE_VARINT,
    WIRE_FIXED32, WIRE_FIXED64, WIRE_VARINT, WIRE_VARINT, WIRE_BYTES,
};
#define FIELD_COUNT(fields) (sizeof(fields) / sizeof(wire_field))

/* AttributeValue; the last of its fields that was set counts. */
typedef struct {
    enum {
        VALUE_NONE,
        VALUE_TEXT,
        VALUE_BOOL,
        VALUE_INT,
        VALUE_DOUBLE,
        VALUE_BYTES,
        VALUE_ARRAY,
        VALUE_MAP
    } kind;
    byte_slice text; /* or bytes */
    int64_t integer;
    double real;
    size_t first, last; /* members of an array or a map: places among the nodes, from 1 on */
} attribute_value;

typedef struct {
    byte_slice key;
    attribute_value value;
    size_t order;
} map_entry;

/* The entries of one map so far; of those with the same key, the last counts. */
typedef struct {
    map_entry *entries;
    size_t count;
    size_t capacity;
} map_entries;

/* A member of an array or of a map that is a value itself. */
typedef struct {
    byte_slice key;
    attribute_value value;
    size_t next;
} value_node;

/* Those of one span; names, not pointers, connect them, since they move when room is made. */
typedef struct {
    value_node *nodes;
    size_t count;
    size_t capacity;
} value_nodes;

typedef struct {
    uint64_t numbers[COLUMN_COUNT];
    byte_slice texts[COLUMN_COUNT];
    uint8_t seen[COLUMN_COUNT];  /* where it is 0, a number is stale */
    uint8_t found[COLUMN_COUNT]; /* those that were seen, in that order */
    size_t found_count;
    interval_counts intervals;
} span_fields;

typedef struct {
    column_set *columns;
    span_fields span;
    map_entries tags, attributes, scope_attributes, nested;
    value_nodes nodes;
    uint8_t forms[COLUMN_COUNT];      /* of the fields, by their columns */
    size_t events_start, links_start; /* in the texts of their columns */
} span_decoder;

/* The columns of the few fields that a span need not set, and that are read all the same. */
static inline int64_t number_of(const span_fields *span, int place) {
    return span->seen[place] ? (int64_t)span->numbers[place] : 0;
}

static inline byte_slice text_of(const span_fields *span, int place) {
    static const byte_slice none = {NULL, 0};
    return span->seen[place] ? span->texts[place] : none;
}

static inline void mark_seen(span_fields *span, int place) {
    if (!span->seen[place]) span->found[span->found_count++] = (uint8_t)place;
    span->seen[place] = 1;
}

static int read_known(wire_reader *r, wire_field f, span_fields *span, int depth) {
    uint64_t value;
    uint32_t half;
    int place = f.column;
    switch (f.form) {
    case FORM_TEXT:
        if (read_text(r, &span->texts[place]) < 0) return -1;
        break;
    case FORM_ID:
        if (read_slice(r, &span->texts[place]) < 0) return -1;
        break;
    case FORM_FLOAT:
        if (read_fixed32(r, &half) < 0) return -1;
        span->numbers[place] = half;
        break;
    case FORM_DOUBLE:
        if (read_fixed64(r, &span->numbers[place]) < 0) return -1;
        break;
    case FORM_INT64:
        if (read_varint(r, &span->numbers[place]) < 0) return -1;
        break;
    case FORM_INTERVALS:
        if (!span->seen[place]) span->intervals.offset = 0, span->intervals.count = 0;
        if (read_intervals(r, &span->intervals, depth) < 0) return -1;
        break;
    default:
        if (read_varint(r, &value) < 0) return -1;
        span->numbers[place] = (uint32_t)value;
    }
    mark_seen(span, place);
    return 0;
}

static int read_part(wire_reader *r, const wire_field *fields, size_t count, span_fields *span,
                     int depth) {
    while (r->at < r->end) {
        uint32_t tag, number;
        if (read_tag(r, &tag) < 0) return -1;
        number = tag >> 3;
        if (number < count && (tag & 7) == WIRE_OF_FORM[fields[number].form]) {
            if (read_known(r, fields[number], span, depth) < 0) return -1;
        } else if (skip_value(r, tag, depth) < 0) {
            return -1;
        }
    }
    return 0;
}

static int append_node(value_nodes *list, attribute_value *value, byte_slice key,
                       const attribute_value *member) {
    value_node *added;
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 32;
        value_node *moved = realloc(list->nodes, capacity * sizeof(value_node));
        if (moved == NULL) return NO_MEMORY;
        list->nodes = moved;
        list->capacity = capacity;
    }
    added = &list->nodes[list->count++];
    added->key = key;
    added->value = *member;
    added->next = 0;
    if (value->last)
        list->nodes[value->last - 1].next = list->count;
    else
        value->first = list->count;
    value->last = list->count;
    return 0;
}

static int read_value(wire_reader *r, attribute_value *value, value_nodes *nodes, int depth);

/* A KeyValue: a message, unlike the entry of a map. */
static int read_key_value(wire_reader *r, byte_slice *key, attribute_value *value,
                          value_nodes *nodes, int depth) {
    while (r->at < r->end) {
        uint32_t tag;
        wire_reader inside;
        int found;
        if (read_tag(r, &tag) < 0) return -1;
        if (tag == (1 << 3 | WIRE_BYTES)) {
            if (read_text(r, key) < 0) return -1;
        } else if (tag == (2 << 3 | WIRE_BYTES)) {
            if (depth <= 0 || read_sized(r, &inside) < 0) return -1;
            if ((found = read_value(&inside, value, nodes, depth - 1)) < 0) return found;
        } else if (skip_value(r, tag, depth) < 0) {
            return -1;
        }
    }
    return 0;
}

/* The members of an ArrayValue or a KeyValueList. A second message of the same kind adds to the
 * first one, as protobuf merges messages. */
static int read_members(wire_reader *r, attribute_value *value, value_nodes *nodes, int depth) {
    while (r->at < r->end) {
        uint32_t tag;
        wire_reader inside;
        byte_slice key = {NULL, 0};
        attribute_value member;
        int found;
        if (read_tag(r, &tag) < 0) return -1;
        if (tag != (1 << 3 | WIRE_BYTES)) {
            if (skip_value(r, tag, depth) < 0) return -1;
            continue;
        }
        if (depth <= 0 || read_sized(r, &inside) < 0) return -1;
        memset(&member, 0, sizeof member);
        found = value->kind == VALUE_ARRAY
                    ? read_value(&inside, &member, nodes, depth - 1)
                    : read_key_value(&inside, &key, &member, nodes, depth - 1);
        if (found < 0) return found;
        if ((found = append_node(nodes, value, key, &member)) < 0) return found;
    }
    return 0;
}

static int read_value(wire_reader *r, attribute_value *value, value_nodes *nodes, int depth) {
    while (r->at < r->end) {
        uint32_t tag;
        uint64_t bits;
        wire_reader inside;
        int kind, found;
        if (read_tag(r, &tag) < 0) return -1;
        switch (tag) {
        case 1 << 3 | WIRE_BYTES:
            if (read_text(r, &value->text) < 0) return -1;
            value->kind = VALUE_TEXT;
            break;
        case 2 << 3 | WIRE_VARINT:
        case 3 << 3 | WIRE_VARINT:
            if (read_varint(r, &bits) < 0) return -1;
            value->integer = (int64_t)bits;
            value->kind = tag >> 3 == 2 ? VALUE_BOOL : VALUE_INT;
            break;
        case 4 << 3 | WIRE_FIXED64:
            if (read_fixed64(r, &bits) < 0) return -1;
            memcpy(&value->real, &bits, sizeof bits);
            value->kind = VALUE_DOUBLE;
            break;
        case 5 << 3 | WIRE_BYTES:
            if (read_slice(r, &value->text) < 0) return -1;
            value->kind = VALUE_BYTES;
            break;
        case 6 << 3 | WIRE_BYTES:
        case 7 << 3 | WIRE_BYTES:
            kind = tag >> 3 == 6 ? VALUE_ARRAY : VALUE_MAP;
            if (depth <= 0 || read_sized(r, &inside) < 0) return -1;
            if ((int)value->kind != kind) value->first = value->last = 0;
            value->kind = kind;
            if ((found = read_members(&inside, value, nodes, depth - 1)) < 0) return found;
            break;
        default:
            if (skip_value(r, tag, depth) < 0) return -1;
        }
    }
    return 0;
}

static int compare_entries(const void *a, const void *b) {
    const map_entry *one = a, *other = b;
    size_t least = one->key.size < other->key.size ? one->key.size : other->key.size;
    int order = least ? memcmp(one->key.data, other->key.data, least) : 0;
    if (order == 0 && one->key.size != other->key.size)
        order = one->key.size < other->key.size ? -1 : 1;
    if (order == 0) order = one->order < other->order ? -1 : 1;
    return order;
}

enum { FEW_ENTRIES = 16 };

/* Few are sorted where they are, which takes no memory; most maps are small, and many sorted. */
static void sort_entries(map_entries *list) {
    size_t i, place;
    if (list->count > FEW_ENTRIES) {
        qsort(list->entries, list->count, sizeof(map_entry), compare_entries);
        return;
    }
    for (i = 1; i < list->count; i++) {
        map_entry moved = list->entries[i];
        for (place = i; place && compare_entries(&list->entries[place - 1], &moved) > 0; place--)
            list->entries[place] = list->entries[place - 1];
        list->entries[place] = moved;
    }
}

/* Sort by key, and keep the last entry of each. */
static void settle_entries(map_entries *list) {
    size_t i, kept = 0;
    sort_entries(list);
    for (i = 0; i < list->count; i++) {
        map_entry *next = &list->entries[i];
        if (kept) {
            map_entry *last = &list->entries[kept - 1];
            if (last->key.size == next->key.size &&
                (next->key.size == 0 ||
                 memcmp(last->key.data, next->key.data, next->key.size) == 0)) {
                *last = *next;
                continue;
            }
        }
        if (kept != i) list->entries[kept] = *next;
        kept++;
    }
    list->count = kept;
}

static map_entry *new_entry(map_entries *list, size_t order) {
    if (list->count == list->capacity) {
        settle_entries(list); /* an endless row of the same key takes no memory */
        if (2 * list->count >= list->capacity) {
            size_t capacity = list->capacity ? 2 * list->capacity : 32;
            map_entry *moved = realloc(list->entries, capacity * sizeof(map_entry));
            if (moved == NULL) return NULL;
            list->entries = moved;
            list->capacity = capacity;
        }
    }
    memset(&list->entries[list->count], 0, sizeof(map_entry));
    list->entries[list->count].order = order;
    return &list->entries[list->count++];
}

/* One entry of a map<string, AttributeValue>, or without `nodes` of a map<string, string>. */
static int read_entry(wire_reader *r, map_entries *list, value_nodes *nodes, int depth) {
    wire_reader inside;
    map_entry *added;
    int is_text = nodes == NULL, has_unknown = 0, found;
    if (depth <= 0 || read_sized(r, &inside) < 0) return -1;
    added = new_entry(list, (size_t)(uintptr_t)inside.at);
    if (added == NULL) return NO_MEMORY;
    added->value.kind = is_text ? VALUE_TEXT : VALUE_NONE;
    while (inside.at < inside.end) {
        uint32_t tag;
        wire_reader value;
        if (read_tag(&inside, &tag) < 0) return -1;
        if (tag == (1 << 3 | WIRE_BYTES)) {
            if (read_text(&inside, &added->key) < 0) return -1;
        } else if (tag == (2 << 3 | WIRE_BYTES) && is_text) {
            if (read_text(&inside, &added->value.text) < 0) return -1;
        } else if (tag == (2 << 3 | WIRE_BYTES)) {
            if (depth <= 1 || read_sized(&inside, &value) < 0) return -1;
            found = read_value(&value, &added->value, nodes, depth - 2);
            if (found < 0) return found;
        } else if (skip_value(&inside, tag, depth - 1) < 0) {
            return -1;
        } else {
            has_unknown = 1;
        }
    }
    /* To upb, an entry with a field that it does not know is unknown as a whole. */
    if (has_unknown) list->count--;
    return 0;
}

static int write_value(text_buffer *t, const attribute_value *value, const value_nodes *nodes);

/* A map with the one key "$bytes" would read as bytes, so it gets another "$"; and so does that. */
static int is_escaped(const map_entries *list) {
    const uint8_t *p, *end;
    if (list->count != 1 || list->entries[0].key.size < 6) return 0;
    p = list->entries[0].key.data;
    end = p + list->entries[0].key.size - 5;
    if (memcmp(end, "bytes", 5) != 0) return 0;
    while (p < end && *p == '$')
        p++;
    return p == end;
}

static int write_entries(text_buffer *t, map_entries *list, const value_nodes *nodes,
                         int is_nested) {
    size_t i;
    settle_entries(list);
    if (TEXT_LITERAL(t, "{") < 0) return -1;
    for (i = 0; i < list->count; i++) {
        const map_entry *e = &list->entries[i];
        size_t start;
        if (i && TEXT_LITERAL(t, ",") < 0) return -1;
        start = t->size;
        if (is_nested && is_escaped(list) && TEXT_LITERAL(t, "\"") < 0) return -1;
        if (json_string(t, e->key.data, e->key.size) < 0 || TEXT_LITERAL(t, ":") < 0) return -1;
        if (is_nested && is_escaped(list)) t->data[start + 1] = '$';
        if (write_value(t, &e->value, nodes) < 0) return -1;
    }
    return TEXT_LITERAL(t, "}");
}

static int write_members(text_buffer *t, const attribute_value *value, const value_nodes *nodes) {
    map_entries list = {NULL, 0, 0};
    size_t place;
    int found = 0;
    if (value->kind == VALUE_ARRAY) {
        if (TEXT_LITERAL(t, "[") < 0) return -1;
        for (place = value->first; place; place = nodes->nodes[place - 1].next) {
            if (place != value->first && TEXT_LITERAL(t, ",") < 0) return -1;
            if (write_value(t, &nodes->nodes[place - 1].value, nodes) < 0) return -1;
        }
        return TEXT_LITERAL(t, "]");
    }
    for (place = value->first; place; place = nodes->nodes[place - 1].next) {
        map_entry *added = new_entry(&list, place);
        if (added == NULL) {
            found = -1;
            break;
        }
        added->key = nodes->nodes[place - 1].key;
        added->value = nodes->nodes[place - 1].value;
    }
    if (found == 0) found = write_entries(t, &list, nodes, 1);
    free(list.entries);
    return found;
}

static int write_value(text_buffer *t, const attribute_value *value, const value_nodes *nodes) {
    switch (value->kind) {
    case VALUE_TEXT: return json_string(t, value->text.data, value->text.size);
    case VALUE_BOOL: return value->integer ? TEXT_LITERAL(t, "true") : TEXT_LITERAL(t, "false");
    case VALUE_INT: return json_integer(t, value->integer);
    case VALUE_DOUBLE: return json_double(t, value->real);
    case VALUE_BYTES:
        if (TEXT_LITERAL(t, "{\"$bytes\":") < 0) return -1;
        if (json_base64(t, value->text.data, value->text.size) < 0) return -1;
        return TEXT_LITERAL(t, "}");
    case VALUE_ARRAY:
    case VALUE_MAP: return write_members(t, value, nodes);
    default: return TEXT_LITERAL(t, "null");
    }
}

/* A count or flags under a key, where they are not 0. */
static int write_total(text_buffer *t, const char *key, uint64_t value) {
    if ((uint32_t)value == 0) return 0;
    if (TEXT_LITERAL(t, ",\"") < 0 || text_put(t, key, strlen(key)) < 0) return -1;
    if (TEXT_LITERAL(t, "\":") < 0) return -1;
    return json_integer(t, (int64_t)(uint32_t)value);
}

/* What an Event and a Link end with. */
static int write_rest(span_decoder *d, text_buffer *t, uint64_t dropped) {
    if (d->nested.count) {
        if (TEXT_LITERAL(t, ",\"attributes\":") < 0) return -1;
        if (write_entries(t, &d->nested, &d->nodes, 0) < 0) return -1;
    }
    if (write_total(t, "dropped_attributes_count", dropped) < 0) return -1;
    return TEXT_LITERAL(t, "}");
}

static int begin_member(text_buffer *t, size_t start) {
    return t->size == start ? TEXT_LITERAL(t, "[") : TEXT_LITERAL(t, ",");
}

static int read_event(span_decoder *d, wire_reader *r, text_buffer *t, size_t start, int depth) {
    wire_reader inside;
    uint64_t time = 0, dropped = 0;
    byte_slice name = {NULL, 0};
    int found;
    if (depth <= 0 || read_sized(r, &inside) < 0) return -1;
    d->nested.count = 0;
    while (inside.at < inside.end) {
        uint32_t tag;
        found = 0;
        if (read_tag(&inside, &tag) < 0) return -1;
        switch (tag) {
        case 1 << 3 | WIRE_VARINT: found = read_varint(&inside, &time); break;
        case 2 << 3 | WIRE_BYTES: found = read_text(&inside, &name); break;
        case 3 << 3 | WIRE_BYTES:
            found = read_entry(&inside, &d->nested, &d->nodes, depth - 1);
            break;
        case 4 << 3 | WIRE_VARINT: found = read_varint(&inside, &dropped); break;
        default: found = skip_value(&inside, tag, depth - 1);
        }
        if (found < 0) return found;
    }
    if (begin_member(t, start) < 0) return NO_MEMORY;
    if (TEXT_LITERAL(t, "{\"time\":") < 0 || json_time(t, (int64_t)time) < 0) return NO_MEMORY;
    if (TEXT_LITERAL(t, ",\"name\":") < 0 || json_string(t, name.data, name.size) < 0)
        return NO_MEMORY;
    return write_rest(d, t, dropped) < 0 ? NO_MEMORY : 0;
}

static int read_link(span_decoder *d, wire_reader *r, text_buffer *t, size_t start, int depth) {
    wire_reader inside;
    uint64_t dropped = 0, flags = 0;
    byte_slice trace_id = {NULL, 0}, span_id = {NULL, 0}, trace_state = {NULL, 0};
    int found;
    if (depth <= 0 || read_sized(r, &inside) < 0) return -1;
    d->nested.count = 0;
    while (inside.at < inside.end) {
        uint32_t tag;
        found = 0;
        if (read_tag(&inside, &tag) < 0) return -1;
        switch (tag) {
        case 1 << 3 | WIRE_BYTES: found = read_slice(&inside, &trace_id); break;
        case 2 << 3 | WIRE_BYTES: found = read_slice(&inside, &span_id); break;
        case 3 << 3 | WIRE_BYTES:
            found = read_entry(&inside, &d->nested, &d->nodes, depth - 1);
            break;
        case 4 << 3 | WIRE_BYTES: found = read_text(&inside, &trace_state); break;
        case 5 << 3 | WIRE_VARINT: found = read_varint(&inside, &dropped); break;
        case 6 << 3 | WIRE_VARINT: found = read_varint(&inside, &flags); break;
        default: found = skip_value(&inside, tag, depth - 1);
        }
        if (found < 0) return found;
    }
    if (begin_member(t, start) < 0) return NO_MEMORY;
    if (TEXT_LITERAL(t, "{\"trace_id\":") < 0 || json_hex(t, trace_id.data, trace_id.size) < 0)
        return NO_MEMORY;
    if (TEXT_LITERAL(t, ",\"span_id\":") < 0 || json_hex(t, span_id.data, span_id.size) < 0)
        return NO_MEMORY;
    if (trace_state.size) {
        if (TEXT_LITERAL(t, ",\"trace_state\":") < 0) return NO_MEMORY;
        if (json_string(t, trace_state.data, trace_state.size) < 0) return NO_MEMORY;
    }
    if (write_total(t, "flags", flags) < 0) return NO_MEMORY;
    return write_rest(d, t, dropped) < 0 ? NO_MEMORY : 0;
}

/* Forget the span before, and remember where the lists of this one begin. */
static void begin_span(span_decoder *d) {
    memset(d->span.seen, 0, sizeof d->span.seen);
    d->span.found_count = 0;
    d->tags.count = d->attributes.count = d->scope_attributes.count = d->nodes.count = 0;
    d->events_start = d->columns->columns[EVENTS].text.size;
    d->links_start = d->columns->columns[LINKS].text.size;
}

static void take_back_lists(span_decoder *d) {
    d->columns->columns[EVENTS].text.size = d->events_start;
    d->columns->columns[LINKS].text.size = d->links_start;
}

/* Fields of a Span, which may be some of them. */
static int read_span_fields(span_decoder *d, wire_reader r) {
    span_fields *span = &d->span;
    column *columns = d->columns->columns;
    int depth = WIRE_MAX_DEPTH, found;
    while (r.at < r.end) {
        uint32_t tag, number;
        wire_reader part;
        if (read_tag(&r, &tag) < 0) return -1;
        number = tag >> 3;
        if (number < FIELD_COUNT(SPAN_FIELDS) &&
            (tag & 7) == WIRE_OF_FORM[SPAN_FIELDS[number].form]) {
            if (read_known(&r, SPAN_FIELDS[number], span, depth) < 0) return -1;
            continue;
        }
        found = 0;
        switch (tag) {
        case 9 << 3 | WIRE_BYTES: found = read_entry(&r, &d->tags, NULL, depth); break;
        case 13 << 3 | WIRE_BYTES: found = read_entry(&r, &d->attributes, &d->nodes, depth); break;
        case 26 << 3 | WIRE_BYTES:
            found = read_entry(&r, &d->scope_attributes, &d->nodes, depth);
            break;
        case 10 << 3 | WIRE_BYTES:
            if (read_sized(&r, &part) < 0) return -1;
            found =
                read_part(&part, INFERENCE_FIELDS, FIELD_COUNT(INFERENCE_FIELDS), span, depth - 1);
            break;
        case 11 << 3 | WIRE_BYTES:
            if (read_sized(&r, &part) < 0) return -1;
            found =
                read_part(&part, RESOURCE_FIELDS, FIELD_COUNT(RESOURCE_FIELDS), span, depth - 1);
            break;
        case 14 << 3 | WIRE_BYTES:
            found = read_event(d, &r, &columns[EVENTS].text, d->events_start, depth);
            break;
        case 15 << 3 | WIRE_BYTES:
            found = read_link(d, &r, &columns[LINKS].text, d->links_start, depth);
            break;
        default: found = skip_value(&r, tag, depth);
        }
        if (found < 0) return found;
    }
    return 0;
}

static int is_id(byte_slice id, size_t size) {
    size_t i;
    if (id.size != size) return 0;
    for (i = 0; i < size; i++) {
        if (id.data[i]) return 1;
    }
    return 0;
}

static int judge_span(const span_fields *span) {
    int64_t start = number_of(span, START_TIME), duration = number_of(span, DURATION_NANOS);
    byte_slice parent = text_of(span, PARENT_SPAN_ID), status = text_of(span, STATUS);
    if (!is_id(text_of(span, TRACE_ID), 16)) return BAD_TRACE_ID;
    if (!is_id(text_of(span, SPAN_ID), 8)) return BAD_SPAN_ID;
    if (parent.size && !is_id(parent, 8)) return BAD_PARENT;
    if (start <= 0) return BAD_START;
    if (duration < 0) return BAD_DURATION;
    if (duration > INT64_MAX - start) return BAD_END;
    if (status.size == 0 || (status.size == 2 && memcmp(status.data, "OK", 2) == 0) ||
        (status.size == 5 && memcmp(status.data, "ERROR", 5) == 0) ||
        (status.size == 9 && memcmp(status.data, "CANCELLED", 9) == 0)) {
        return ACCEPTED;
    }
    return BAD_STATUS;
}

static inline int put_id(column_set *set, int place, byte_slice id) {
    uint64_t value = 0;
    int i;
    for (i = 0; i < 8; i++)
        value = value << 8 | id.data[i];
    return column_put(set, place, &value, sizeof value);
}

/* A measured value that is not a number was not measured, and JSON cannot say it. */
static inline int put_number(column_set *set, const span_fields *span, wire_field f) {
    uint64_t bits = span->numbers[f.column];
    if (f.form == FORM_FLOAT) {
        uint32_t half = (uint32_t)bits;
        if ((half & 0x7F800000u) == 0x7F800000u) return 0;
        return column_put(set, f.column, &half, sizeof half);
    }
    if (f.form == FORM_DOUBLE && (bits & 0x7FF0000000000000u) == 0x7FF0000000000000u) return 0;
    if (f.form == FORM_TOTAL && bits == 0) return 0;
    if (f.form == FORM_ENUM && (uint32_t)bits == 0) return 0;
    if (f.form == FORM_INT32 || f.form == FORM_ENUM) {
        uint32_t half = (uint32_t)bits;
        return column_put(set, f.column, &half, sizeof half);
    }
    return column_put(set, f.column, &bits, sizeof bits);
}

static int put_intervals(column_set *set, int place, const interval_counts *all) {
    uint8_t written[INTERVALS_BYTES];
    return column_put_text(set, place, written, (size_t)(write_intervals(written, all) - written));
}

/* A histogram that is none is left out, and counts as an invalid field of its span. */
static void judge_intervals(span_fields *span) {
    uint64_t invalid = (uint64_t)number_of(span, INVALID_FIELD_COUNT);
    if (!span->seen[TOKEN_INTERVALS] || are_intervals(&span->intervals)) return;
    span->seen[TOKEN_INTERVALS] = 0;
    span->numbers[INVALID_FIELD_COUNT] = invalid < UINT32_MAX ? invalid + 1 : invalid;
    mark_seen(span, INVALID_FIELD_COUNT);
}

/* What was seen and not put yet. */
static int put_fields(column_set *set, const span_fields *span, const uint8_t *forms) {
    size_t i;
    for (i = 0; i < span->found_count; i++) {
        wire_field f = {span->found[i], forms[span->found[i]]};
        if (f.form == FORM_ID || !span->seen[f.column]) continue;
        if (f.form == FORM_INTERVALS) {
            if (put_intervals(set, f.column, &span->intervals) < 0) return -1;
        } else if (f.form == FORM_TEXT) {
            byte_slice text = span->texts[f.column];
            if (text.size && column_put_text(set, f.column, text.data, text.size) < 0) return -1;
        } else if (put_number(set, span, f) < 0) {
            return -1;
        }
    }
    return 0;
}

static int put_status(column_set *set, const span_fields *span) {
    byte_slice status = text_of(span, STATUS);
    if (status.size) return column_put_text(set, STATUS, status.data, status.size);
    return column_put_text(set, STATUS, (const uint8_t *)"OK", 2);
}

static int put_map(column_set *set, int place, map_entries *list, const value_nodes *nodes) {
    text_buffer *t = &set->columns[place].text;
    size_t start = t->size;
    if (list->count == 0) return 0;
    if (write_entries(t, list, nodes, 0) < 0) return -1;
    return column_put_appended(set, place, start);
}

static int put_list(column_set *set, int place, size_t start) {
    text_buffer *t = &set->columns[place].text;
    if (t->size == start) return 0;
    if (TEXT_LITERAL(t, "]") < 0) return -1;
    return column_put_appended(set, place, start);
}

static int put_span(span_decoder *d) {
    column_set *set = d->columns;
    span_fields *span = &d->span;
    int64_t start = number_of(span, START_TIME), duration = number_of(span, DURATION_NANOS);
    if (column_put(set, TRACE_ID, span->texts[TRACE_ID].data, 16) < 0) return -1;
    if (put_id(set, SPAN_ID, span->texts[SPAN_ID]) < 0) return -1;
    if (text_of(span, PARENT_SPAN_ID).size &&
        put_id(set, PARENT_SPAN_ID, span->texts[PARENT_SPAN_ID]) < 0)
        return -1;
    if (column_put(set, START_TIME, &start, sizeof start) < 0) return -1;
    if (column_put(set, DURATION_NANOS, &duration, sizeof duration) < 0) return -1;
    if (put_status(set, span) < 0) return -1;
    /* These were put, whether they were sent or not. */
    span->seen[START_TIME] = span->seen[DURATION_NANOS] = span->seen[STATUS] = 0;
    judge_intervals(span);
    if (put_fields(set, span, d->forms) < 0) return -1;
    if (put_map(set, TAGS, &d->tags, NULL) < 0) return -1;
    if (put_map(set, ATTRIBUTES, &d->attributes, &d->nodes) < 0) return -1;
    if (put_map(set, SCOPE_ATTRIBUTES, &d->scope_attributes, &d->nodes) < 0) return -1;
    if (put_list(set, EVENTS, d->events_start) < 0) return -1;
    if (put_list(set, LINKS, d->links_start) < 0) return -1;
    set->rows++;
    return 0;
}

/* What was read of a span, into the columns; `found` says how that went. Why the span was left
 * out, 0 where it was not; NO_MEMORY. */
static int settle_span(span_decoder *d, int found) {
    int reason;
    if (found == NO_MEMORY) return NO_MEMORY;
    reason = found < 0 ? MALFORMED : judge_span(&d->span);
    if (reason == ACCEPTED) return put_span(d) < 0 ? NO_MEMORY : ACCEPTED;
    take_back_lists(d);
    return reason;
}

static int decode_span(span_decoder *d, const uint8_t *data, size_t size) {
    wire_reader r = {data, data + size};
    begin_span(d);
    return settle_span(d, read_span_fields(d, r));
}

/* The top level of a request. Spans and the rest are counted before room is made for any. */
enum { SCAN_CUT = 1, SCAN_NOT_PROTOBUF, SCAN_SPANS, SCAN_OTHERS };

static int skip_top(wire_reader *r) {
    uint64_t tag, size;
    if (read_varint(r, &tag) < 0) return r->at == r->end ? SCAN_CUT : SCAN_NOT_PROTOBUF;
    switch (tag & 7) {
    case WIRE_VARINT:
        if (read_varint(r, &size) < 0) return r->at == r->end ? SCAN_CUT : SCAN_NOT_PROTOBUF;
        return 0;
    case WIRE_BYTES:
        if (read_varint(r, &size) < 0) return r->at == r->end ? SCAN_CUT : SCAN_NOT_PROTOBUF;
        break;
    case WIRE_FIXED64: size = 8; break;
    case WIRE_FIXED32: size = 4; break;
    default: return SCAN_NOT_PROTOBUF;
    }
    if (size > (uint64_t)(r->end - r->at)) return SCAN_CUT;
    r->at += size;
    return 0;
}

static int scan_request(const uint8_t *data, size_t size, size_t max_spans, size_t max_others,
                        size_t *spans, size_t *others) {
    wire_reader r = {data, data + size};
    *spans = *others = 0;
    while (r.at < r.end) {
        int is_span = *r.at == (1 << 3 | WIRE_BYTES), found = skip_top(&r);
        if (found) return found;
        if (is_span && ++*spans > max_spans) return SCAN_SPANS;
        if (!is_span && ++*others > max_others) return SCAN_OTHERS;
    }
    return 0;
}

/* How many events and links the spans hold, as far as each is well formed. */
static size_t count_events_and_links(const uint8_t *data, size_t size) {
    wire_reader r = {data, data + size};
    size_t count = 0;
    while (r.at < r.end) {
        wire_reader start = r, span;
        uint64_t length;
        if (skip_top(&r)) break;
        if (*start.at != (1 << 3 | WIRE_BYTES)) continue;
        start.at++;
        read_varint(&start, &length);
        span.at = start.at;
        span.end = r.at;
        while (span.at < span.end) {
            count += *span.at == (14 << 3 | WIRE_BYTES) || *span.at == (15 << 3 | WIRE_BYTES);
            if (skip_top(&span)) break;
        }
    }
    return count;
}

/* Every span of a request that scan_request found good; `reasons` has room for each. NO_MEMORY
 * or 0. The rest of the request is copied to `others`, which has room for all of it. */
static int decode_request(span_decoder *d, const uint8_t *data, size_t size, uint8_t *reasons,
                          uint8_t *others, size_t *others_size) {
    wire_reader r = {data, data + size};
    size_t position = 0;
    *others_size = 0;
    while (r.at < r.end) {
        wire_reader start = r;
        uint64_t length;
        skip_top(&r);
        if (*start.at == (1 << 3 | WIRE_BYTES)) {
            int reason;
            start.at++;
            read_varint(&start, &length);
            reason = decode_span(d, start.at, (size_t)length);
            if (reason == NO_MEMORY) return NO_MEMORY;
            reasons[position++] = (uint8_t)reason;
        } else {
            memcpy(others + *others_size, start.at, (size_t)(r.at - start.at));
            *others_size += (size_t)(r.at - start.at);
        }
    }
    return 0;
}

static void note_forms(span_decoder *d, const wire_field *fields, size_t count) {
    size_t i;
    for (i = 0; i < count; i++) {
        if (fields[i].form != FORM_NONE) d->forms[fields[i].column] = fields[i].form;
    }
}

static span_decoder *decoder_new(size_t rows) {
    span_decoder *d = calloc(1, sizeof *d);
    int i;
    if (d == NULL) return NULL;
    d->columns = calloc(1, sizeof *d->columns);
    if (d->columns == NULL) {
        free(d);
        return NULL;
    }
    d->columns->capacity = rows ? rows : 1;
    for (i = 0; i < COLUMN_COUNT; i++)
        d->columns->columns[i].kind = COLUMN_KINDS[i];
    note_forms(d, SPAN_FIELDS, FIELD_COUNT(SPAN_FIELDS));
    note_forms(d, INFERENCE_FIELDS, FIELD_COUNT(INFERENCE_FIELDS));
    note_forms(d, RESOURCE_FIELDS, FIELD_COUNT(RESOURCE_FIELDS));
    return d;
}

static void decoder_free(span_decoder *d) {
    columns_free(d->columns);
    free(d->tags.entries);
    free(d->attributes.entries);
    free(d->scope_attributes.entries);
    free(d->nested.entries);
    free(d->nodes.nodes);
    free(d);
}

#endif
