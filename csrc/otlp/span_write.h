/* Writes a span that was read as OTLP's Span, with its attributes by proto/conventions.toml.
 * Source of the numbers: opentelemetry/proto/trace/v1/trace.proto.
 */
#ifndef INFERTRACE_OTLP_SPAN_WRITE_H
#define INFERTRACE_OTLP_SPAN_WRITE_H

#include "otlp/span_read.h"

#define OTLP_ROW_COUNT (sizeof(OTLP_ROWS) / sizeof(otlp_row))
#define OTLP_ATTRIBUTE_TAG 0x4A
#define OTLP_PARENT_IS_REMOTE 0x300 /* it is known, and so it is */
/* Milliseconds that are a time; larger ones are no delay of a request. */
#define OTLP_MAX_DELAY_MS 1e12

/* The rows that apply, those of a source one after the other. */
typedef struct {
    const otlp_row *rows[OTLP_ROW_COUNT];
    uint8_t first[OTLP_SOURCE_COUNT + 1];
    const otlp_row *events[OTLP_ROW_COUNT]; /* those that make an event in place of an attribute */
    size_t event_count;
    uint64_t sources; /* a bit for each that has a row */
} otlp_rows;

/* The lowest bit of a number other than 0. */
static inline int otlp_lowest_bit(uint64_t bits) {
#if defined(__GNUC__)
    return __builtin_ctzll(bits);
#else
    int bit = 0;
    while (!(bits & 1)) {
        bits >>= 1;
        bit++;
    }
    return bit;
#endif
}

static void otlp_choose_rows(otlp_rows *chosen, unsigned conventions) {
    size_t i = 0, count = 0;
    int source;
    chosen->event_count = 0;
    chosen->sources = 0;
    for (source = 0; source < OTLP_SOURCE_COUNT; source++) {
        chosen->first[source] = (uint8_t)count;
        for (; i < OTLP_ROW_COUNT && OTLP_ROWS[i].source == source; i++) {
            const otlp_row *row = OTLP_ROWS + i;
            if (row->conventions ? !(row->conventions & conventions) : row->carried & conventions)
                continue;
            if (row->form == OTLP_AS_EVENT) {
                chosen->events[chosen->event_count++] = row;
                continue;
            }
            chosen->rows[count++] = row;
            chosen->sources |= OTLP_BIT(source);
        }
    }
    chosen->first[OTLP_SOURCE_COUNT] = (uint8_t)count;
}

static inline uint8_t *otlp_put_raw(uint8_t *p, const void *data, size_t size) {
    memcpy(p, data, size);
    return p + size;
}

/* Copies in whole words of the processor: most entries have at most 32 bytes. */
static inline uint8_t *otlp_put_row_entry(uint8_t *p, const otlp_row *row) {
    memcpy(p, row->entry, 32);
    if (row->entry_size > 32) memcpy(p + 32, row->entry + 32, OTLP_ENTRY_ROOM - 32);
    return p + row->entry_size;
}

static inline uint8_t *otlp_put_number(uint8_t *p, const otlp_row *row, uint8_t tag,
                                       uint64_t value) {
    int size = 1 + wire_varint_size(value);
    *p++ = OTLP_ATTRIBUTE_TAG;
    *p++ = (uint8_t)(row->entry_size + 1 + size);
    p = otlp_put_row_entry(p, row);
    *p++ = (uint8_t)size;
    return wire_uint(p, tag, value);
}

static inline uint8_t *otlp_put_double(uint8_t *p, const otlp_row *row, double value) {
    *p++ = OTLP_ATTRIBUTE_TAG;
    *p++ = (uint8_t)(row->entry_size + 10);
    p = otlp_put_row_entry(p, row);
    p[0] = 9;
    p[1] = 0x21;
    return wire_double(p + 2, value);
}

static inline uint8_t *otlp_put_text(uint8_t *p, const otlp_row *row, byte_slice text) {
    uint8_t *start, *value;
    *p++ = OTLP_ATTRIBUTE_TAG;
    start = p;
    p = otlp_put_row_entry(p + 1, row);
    value = p++;
    p = wire_bytes(p, 0x0A, text.data, text.size);
    return wire_close(start, 1, wire_close(value, 1, p));
}

/* A text with commas as an array of several. */
static uint8_t *otlp_put_list(uint8_t *p, const otlp_row *row, byte_slice text) {
    const uint8_t *at = text.data, *end = text.data + text.size;
    uint8_t *start, *value, *list;
    *p++ = OTLP_ATTRIBUTE_TAG;
    start = p;
    p = otlp_put_row_entry(p + 1, row);
    value = p++;
    *p++ = 0x2A;
    list = p++;
    for (;;) {
        const uint8_t *comma = memchr(at, ',', (size_t)(end - at));
        size_t size = (size_t)((comma ? comma : end) - at);
        *p++ = 0x0A;
        p = wire_varint(p, 1 + wire_varint_size(size) + size);
        p = wire_bytes(p, 0x0A, at, size);
        if (!comma) break;
        at = comma + 1;
    }
    return wire_close(start, 1, wire_close(value, 1, wire_close(list, 1, p)));
}

static uint8_t *otlp_put_array_number(uint8_t *p, uint64_t value) {
    *p++ = 0x0A;
    *p++ = (uint8_t)(1 + wire_varint_size(value));
    return wire_uint(p, 0x18, value);
}

/* A histogram as an array of integers: the bucket of the first count, and the counts. NULL where
 * it is malformed. */
static uint8_t *otlp_put_intervals(uint8_t *p, const otlp_row *row, byte_slice message) {
    wire_reader r = {message.data, message.data + message.size}, counts;
    uint8_t *start, *value, *list;
    uint64_t number, offset = 0;
    uint32_t tag;
    *p++ = OTLP_ATTRIBUTE_TAG;
    start = p;
    p = otlp_put_row_entry(p + 1, row);
    value = p++;
    *p++ = 0x2A;
    list = p++;
    while (r.at < r.end) {
        if (read_tag(&r, &tag) < 0) return NULL;
        if (tag != 0x08) {
            if (skip_value(&r, tag, WIRE_MAX_DEPTH) < 0) return NULL;
        } else if (read_varint(&r, &offset) < 0) {
            return NULL;
        }
    }
    offset = (uint32_t)offset;
    p = otlp_put_array_number(p, offset >> 1 ^ (0 - (offset & 1)));
    for (r.at = message.data; r.at < r.end;) {
        read_tag(&r, &tag);
        if (tag == 0x10) {
            read_varint(&r, &number);
            p = otlp_put_array_number(p, (uint32_t)number);
        } else if (tag == 0x12) {
            read_sized(&r, &counts);
            while (counts.at < counts.end) {
                if (read_varint(&counts, &number) < 0) return NULL;
                p = otlp_put_array_number(p, (uint32_t)number);
            }
        } else {
            skip_value(&r, tag, WIRE_MAX_DEPTH);
        }
    }
    return wire_close(start, 1, wire_close(value, 1, wire_close(list, 1, p)));
}

static size_t otlp_decimal(char *out, uint64_t value, int least_digits) {
    char digits[20];
    int count = 0, i;
    while (value || count < least_digits) {
        digits[count++] = (char)('0' + value % 10);
        value /= 10;
    }
    for (i = 0; i < count; i++)
        out[i] = digits[count - 1 - i];
    return (size_t)count;
}

/* RFC 3339, UTC, nine decimals; 30 bytes. The days as a date: H. Hinnant, "chrono-Compatible
 * Low-Level Date Algorithms", civil_from_days. */
static size_t otlp_iso_time(char *out, uint64_t unix_nanos) {
    uint64_t seconds = unix_nanos / 1000000000u, days = seconds / 86400u;
    unsigned clock = (unsigned)(seconds % 86400u);
    unsigned since = (unsigned)(days + 719468u), era = since / 146097u;
    unsigned day_of_era = since - era * 146097u;
    unsigned year_of_era =
        (day_of_era - day_of_era / 1460u + day_of_era / 36524u - day_of_era / 146096u) / 365u;
    unsigned day_of_year =
        day_of_era - (365u * year_of_era + year_of_era / 4u - year_of_era / 100u);
    unsigned shifted = (5u * day_of_year + 2u) / 153u;
    unsigned month = shifted < 10u ? shifted + 3u : shifted - 9u;
    unsigned year = year_of_era + era * 400u + (month <= 2u);
    const struct {
        uint64_t value;
        int digits;
        char before;
    } parts[] = {
        {year, 4, 0},
        {month, 2, '-'},
        {day_of_year - (153u * shifted + 2u) / 5u + 1u, 2, '-'},
        {clock / 3600u, 2, 'T'},
        {clock / 60u % 60u, 2, ':'},
        {clock % 60u, 2, ':'},
        {unix_nanos % 1000000000u, 9, '.'},
    };
    char *p = out;
    size_t i;
    for (i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (parts[i].before) *p++ = parts[i].before;
        p += otlp_decimal(p, parts[i].value, parts[i].digits);
    }
    *p++ = 'Z';
    return (size_t)(p - out);
}

/* When something happened that many milliseconds after the start; 0 where that is no time. */
static uint64_t otlp_time_after(const otlp_span *span, double milliseconds) {
    uint64_t nanos;
    if (!(milliseconds >= 0 && milliseconds <= OTLP_MAX_DELAY_MS)) return 0;
    nanos = (uint64_t)(milliseconds * 1e6);
    return nanos > (uint64_t)(INT64_MAX - span->start) ? 0 : (uint64_t)span->start + nanos;
}

static size_t otlp_put_usage(char *out, const otlp_span *span) {
    static const struct {
        int source;
        const char *name;
    } parts[] = {
        {OTLP_INPUT_TOKENS, "\"input\":"},
        {OTLP_OUTPUT_TOKENS, "\"output\":"},
        {OTLP_TOTAL_TOKENS, "\"total\":"},
    };
    char *p = out;
    size_t i;
    for (i = 0; i < sizeof parts / sizeof *parts; i++) {
        int64_t value = span->values[parts[i].source].integer;
        size_t size = strlen(parts[i].name);
        if (!(span->present & OTLP_BIT(parts[i].source))) continue;
        *p = p == out ? '{' : ',';
        memcpy(p + 1, parts[i].name, size);
        p += 1 + size;
        if (value < 0) *p++ = '-';
        p += otlp_decimal(p, (uint64_t)(value < 0 ? -value : value), 1);
    }
    *p++ = '}';
    return (size_t)(p - out);
}

/* NULL where the value is malformed. */
static uint8_t *otlp_put_row(uint8_t *p, const otlp_row *row, const otlp_span *span) {
    const otlp_number_or_text *value = span->values + row->source;
    char made[128];
    byte_slice text = {(const uint8_t *)made, 0};
    uint64_t time;
    switch (row->form) {
    case OTLP_AS_TEXT: return otlp_put_text(p, row, value->text);
    case OTLP_AS_LIST: return otlp_put_list(p, row, value->text);
    case OTLP_AS_INTERVALS: return otlp_put_intervals(p, row, value->text);
    case OTLP_AS_INT: return otlp_put_number(p, row, 0x18, (uint64_t)value->integer);
    case OTLP_AS_DOUBLE: return otlp_put_double(p, row, value->real);
    case OTLP_AS_MILLISECONDS: return otlp_put_double(p, row, value->real / 1e3);
    case OTLP_AS_NANOSECONDS: return otlp_put_double(p, row, (double)value->integer / 1e9);
    case OTLP_AS_CONSTANT: return wire_bytes(p, OTLP_ATTRIBUTE_TAG, row->entry, row->entry_size);
    case OTLP_AS_ISO_TIME:
        time = otlp_time_after(span, value->real);
        if (!time) return p;
        text.size = otlp_iso_time(made, time);
        return otlp_put_text(p, row, text);
    case OTLP_AS_JSON: text.size = otlp_put_usage(made, span); return otlp_put_text(p, row, text);
    default: return p; /* an event is no attribute */
    }
}

static uint8_t *otlp_put_attributes(uint8_t *p, const otlp_span *span, const otlp_entries *given,
                                    const otlp_rows *chosen) {
    size_t i;
    uint64_t present;
    for (i = 0; i < given->count; i++) {
        const otlp_entry *entry = given->entries + i;
        uint8_t *start;
        if (entry->is_replaced) continue;
        if (!entry->is_tag) {
            p = otlp_put_entry(p, OTLP_ATTRIBUTE_TAG, entry->key, entry->value,
                               OTLP_MAX_VALUE_DEPTH);
            if (!p) return NULL;
            continue;
        }
        *p++ = OTLP_ATTRIBUTE_TAG;
        start = p;
        p = wire_bytes(start + 1, 0x0A, entry->key.data, entry->key.size);
        *p++ = 0x12;
        p = wire_varint(p, 1 + wire_varint_size(entry->value.size) + entry->value.size);
        p = wire_bytes(p, 0x0A, entry->value.data, entry->value.size);
        p = wire_close(start, 1, p);
    }
    for (present = span->present & chosen->sources; present; present &= present - 1) {
        int source = otlp_lowest_bit(present);
        size_t row;
        for (row = chosen->first[source]; row < chosen->first[source + 1]; row++)
            if (!otlp_has_key(given, chosen->rows[row])) {
                p = otlp_put_row(p, chosen->rows[row], span);
                if (!p) return NULL;
            }
    }
    return p;
}

static uint8_t *otlp_put_event(uint8_t *p, wire_reader r) {
    wire_reader again = r, inside;
    uint8_t *start;
    uint64_t number, time = 0, dropped = 0;
    byte_slice name = {r.at, 0};
    while (r.at < r.end) {
        uint32_t tag;
        int bad;
        if (read_tag(&r, &tag) < 0) return NULL;
        switch (tag) {
        case 0x08: bad = read_varint(&r, &time); break;
        case 0x12: bad = read_text(&r, &name); break;
        case 0x1A: bad = read_sized(&r, &inside); break;
        case 0x20:
            bad = read_varint(&r, &number);
            if (!bad) dropped = (uint32_t)number;
            break;
        default: bad = skip_value(&r, tag, WIRE_MAX_DEPTH);
        }
        if (bad < 0) return NULL;
    }
    *p++ = 0x5A;
    start = p++;
    if (time) p = wire_fixed64(p, 0x09, time);
    if (name.size) p = wire_bytes(p, 0x12, name.data, name.size);
    p = otlp_put_map(p, again, 0x1A, 0x1A);
    if (!p) return NULL;
    if (dropped) p = wire_uint(p, 0x20, dropped);
    return wire_close(start, 1, p);
}

/* Sets *is_bad where an id is none. */
static uint8_t *otlp_put_link(uint8_t *p, wire_reader r, int *is_bad) {
    wire_reader again = r, inside = r;
    uint8_t *start;
    uint64_t number;
    uint32_t dropped = 0, flags = 0;
    byte_slice trace_id = {r.at, 0}, span_id = {r.at, 0}, state = {r.at, 0};
    while (r.at < r.end) {
        uint32_t tag;
        int bad;
        if (read_tag(&r, &tag) < 0) return NULL;
        switch (tag) {
        case 0x0A:
        case 0x12:
            bad = read_sized(&r, &inside);
            *(tag == 0x0A ? &trace_id : &span_id) = slice_of(inside);
            break;
        case 0x1A: bad = read_sized(&r, &inside); break;
        case 0x22: bad = read_text(&r, &state); break;
        case 0x28:
        case 0x30:
            bad = read_varint(&r, &number);
            if (!bad) *(tag == 0x28 ? &dropped : &flags) = (uint32_t)number;
            break;
        default: bad = skip_value(&r, tag, WIRE_MAX_DEPTH);
        }
        if (bad < 0) return NULL;
    }
    if (!otlp_is_id(trace_id, 16) || !otlp_is_id(span_id, 8)) {
        *is_bad = 1;
        return NULL;
    }
    *p++ = 0x6A;
    start = p++;
    p = wire_bytes(p, 0x0A, trace_id.data, 16);
    p = wire_bytes(p, 0x12, span_id.data, 8);
    if (state.size) p = wire_bytes(p, 0x1A, state.data, state.size);
    p = otlp_put_map(p, again, 0x1A, 0x22);
    if (!p) return NULL;
    if (dropped) p = wire_uint(p, 0x28, dropped);
    if (flags) p = wire_fixed32(p, 0x35, flags);
    return wire_close(start, 1, p);
}

/* The events or the links of a span, which has been read once. */
static uint8_t *otlp_put_each(uint8_t *p, wire_reader r, uint32_t wanted, int *is_bad_link) {
    wire_reader inside;
    uint32_t tag;
    while (p && r.at < r.end) {
        if (read_tag(&r, &tag) < 0) return NULL;
        if (tag != wanted) {
            if (skip_value(&r, tag, WIRE_MAX_DEPTH) < 0) return NULL;
            continue;
        }
        if (read_sized(&r, &inside) < 0) return NULL;
        p = wanted == (14 << 3 | WIRE_BYTES) ? otlp_put_event(p, inside)
                                             : otlp_put_link(p, inside, is_bad_link);
    }
    return p;
}

/* Events that are made of a measure. */
static uint8_t *otlp_put_made_events(uint8_t *p, const otlp_span *span, const otlp_rows *chosen) {
    size_t i;
    for (i = 0; i < chosen->event_count; i++) {
        const otlp_row *row = chosen->events[i];
        uint64_t time;
        if (!(span->present & OTLP_BIT(row->source))) continue;
        time = otlp_time_after(span, span->values[row->source].real);
        if (!time) continue;
        *p++ = 0x5A;
        *p++ = (uint8_t)(9 + 2 + row->entry_size);
        p = wire_fixed64(p, 0x09, time);
        p = wire_bytes(p, 0x12, row->entry, row->entry_size);
    }
    return p;
}

/* The value of `exception.type` in the last event named `exception`; empty if there is none. Where an
 * event cannot be read, the span is rejected as it is written. */
static byte_slice otlp_exception_type(wire_reader r) {
    byte_slice found = {r.at, 0};
    wire_reader event, inside;
    uint32_t tag;
    while (r.at < r.end && read_tag(&r, &tag) == 0) {
        byte_slice name = {r.at, 0}, type = {r.at, 0}, key, value, kind;
        if (tag != (14 << 3 | WIRE_BYTES)) {
            if (skip_value(&r, tag, WIRE_MAX_DEPTH) < 0) break;
            continue;
        }
        if (read_sized(&r, &event) < 0) break;
        while (event.at < event.end && read_tag(&event, &tag) == 0) {
            if (tag == 0x12) {
                if (read_text(&event, &name) < 0) break;
            } else if (tag == 0x1A) {
                if (read_sized(&event, &inside) < 0) break;
                if (otlp_read_entry(inside, &key, &value) < 0) break;
                kind = otlp_single_text(value);
                if (otlp_is(key, "exception.type", 14) && kind.size) type = kind;
            } else if (skip_value(&event, tag, WIRE_MAX_DEPTH) < 0) {
                break;
            }
        }
        if (otlp_is(name, "exception", 9) && type.size) found = type;
    }
    return found;
}

static int otlp_is_inference(byte_slice name) {
    return !name.size || otlp_is(name, "inference", 9);
}

/* Computes what OTLP wants and no single field of ours holds: the operation, totals, the error. */
static void otlp_derive(otlp_span *span, wire_reader encoded) {
    const uint64_t tokens = OTLP_BIT(OTLP_INPUT_TOKENS) | OTLP_BIT(OTLP_OUTPUT_TOKENS);
    const uint64_t latencies =
        OTLP_BIT(OTLP_TIME_TO_FIRST_TOKEN_MS) | OTLP_BIT(OTLP_QUEUE_WAIT_TIME_MS);
    const uint64_t generating =
        tokens | OTLP_BIT(OTLP_TIME_TO_FIRST_TOKEN_MS) | OTLP_BIT(OTLP_INTER_TOKEN_LATENCY_MS);
    if (span->present & OTLP_BIT(OTLP_MODEL_NAME)) {
        byte_slice operation = span->operation;
        if (otlp_is_inference(operation))
            operation = otlp_constant(span->present & generating ? "text_completion" : "inference");
        otlp_set_text(span, OTLP_OPERATION, operation);
    }
    if (span->present & latencies) otlp_set_integer(span, OTLP_DURATION_NANOS, span->duration);
    if (span->present & tokens) {
        int64_t total = 0;
        if (span->present & OTLP_BIT(OTLP_INPUT_TOKENS))
            total += span->values[OTLP_INPUT_TOKENS].integer;
        if (span->present & OTLP_BIT(OTLP_OUTPUT_TOKENS))
            total += span->values[OTLP_OUTPUT_TOKENS].integer;
        otlp_set_integer(span, OTLP_TOTAL_TOKENS, total);
        span->present |= OTLP_BIT(OTLP_USAGE);
    }
    if (span->status == OTLP_STATUS_CANCELLED) {
        otlp_set_text(span, OTLP_ERROR_TYPE, otlp_constant("cancelled"));
        otlp_set_text(span, OTLP_STATUS, span->status_text);
    } else if (span->status == OTLP_STATUS_ERROR && !span->status_code) {
        byte_slice type = {encoded.at, 0};
        if (span->has_events) type = otlp_exception_type(encoded);
        otlp_set_text(span, OTLP_ERROR_TYPE, type.size ? type : otlp_constant("_OTHER"));
    }
}

/* The name of the span, and under which attribute its operation is kept where that is another. */
static uint8_t *otlp_put_name(uint8_t *p, otlp_span *span) {
    const uint64_t model = OTLP_BIT(OTLP_MODEL_NAME);
    byte_slice name = span->operation, other;
    if (!(span->present & model) || span->scope_name.size || !otlp_is_inference(name))
        return name.size ? wire_bytes(p, 0x2A, name.data, name.size) : p;
    other = span->values[OTLP_MODEL_NAME].text;
    otlp_set_text(span, OTLP_OPERATION_NAME, name);
    name = span->values[OTLP_OPERATION].text;
    *p++ = 0x2A;
    p = wire_varint(p, name.size + 1 + other.size);
    p = otlp_put_raw(p, name.data, name.size);
    *p++ = ' ';
    return otlp_put_raw(p, other.data, other.size);
}

static uint8_t *otlp_put_status(uint8_t *p, const otlp_span *span) {
    uint8_t *start;
    unsigned code = span->status == OTLP_STATUS_OK ? span->status_code == 1 : 2;
    if (!code && !span->status_message.size) return p;
    *p++ = 0x7A;
    start = p++;
    if (span->status_message.size)
        p = wire_bytes(p, 0x12, span->status_message.data, span->status_message.size);
    if (code) p = wire_uint(p, 0x18, code);
    return wire_close(start, 1, p);
}

static uint8_t *otlp_put_kind(uint8_t *p, const otlp_span *span) {
    uint64_t kind = span->kind;
    if (!kind) kind = (span->flags & OTLP_PARENT_IS_REMOTE) == OTLP_PARENT_IS_REMOTE ? 2 : 1;
    return wire_uint(p, 0x30, kind);
}

static uint8_t *otlp_put_count(uint8_t *p, uint8_t tag, uint32_t count) {
    return count ? wire_uint(p, tag, count) : p;
}

/* One entry of ScopeSpans.spans; returns NULL, and sets *reason, where the span cannot be sent. */
static uint8_t *otlp_put_span(uint8_t *p, otlp_span *span, const otlp_entries *given,
                              wire_reader encoded, const otlp_rows *chosen, int *reason) {
    uint8_t *start;
    int is_bad_link = 0;
    *reason = OTLP_MALFORMED;
    otlp_derive(span, encoded);
    *p++ = 0x12;
    start = p;
    p = wire_bytes(p + 2, 0x0A, span->trace_id.data, 16);
    p = wire_bytes(p, 0x12, span->span_id.data, 8);
    if (span->trace_state.size)
        p = wire_bytes(p, 0x1A, span->trace_state.data, span->trace_state.size);
    if (span->parent.size) p = wire_bytes(p, 0x22, span->parent.data, 8);
    p = otlp_put_name(p, span);
    p = otlp_put_kind(p, span);
    p = wire_fixed64(p, 0x39, (uint64_t)span->start);
    p = wire_fixed64(p, 0x41, (uint64_t)(span->start + span->duration));
    p = otlp_put_attributes(p, span, given, chosen);
    if (!p) return NULL;
    p = otlp_put_count(p, 0x50, span->dropped_attributes);
    if (span->has_events) p = otlp_put_each(p, encoded, 14 << 3 | WIRE_BYTES, &is_bad_link);
    if (!p) return NULL;
    p = otlp_put_made_events(p, span, chosen);
    p = otlp_put_count(p, 0x60, span->dropped_events);
    if (span->has_links) p = otlp_put_each(p, encoded, 15 << 3 | WIRE_BYTES, &is_bad_link);
    if (!p) {
        if (is_bad_link) *reason = OTLP_BAD_LINK;
        return NULL;
    }
    p = otlp_put_count(p, 0x70, span->dropped_links);
    p = otlp_put_status(p, span);
    if (span->flags) {
        *p++ = 0x85;
        p = wire_fixed32(p, 0x01, span->flags);
    }
    *reason = OTLP_ACCEPTED;
    return wire_close(start, 2, p);
}

#endif
