/* Spans of OTLP in JSON as the same spans in protobuf, in two passes over their text: the first finds
 * the members of an object, the second writes them in the order of their numbers. Whatever is unusual
 * is left to infertrace.collector.ingest.pure_otlp_json, which writes the same bytes.
 * Sources: RFC 8259; opentelemetry/proto/trace/v1/trace.proto and common/v1/common.proto.
 */
#ifndef INFERTRACE_OTLP_JSON_H
#define INFERTRACE_OTLP_JSON_H

#include "collector/decoder_text.h"
#include "common/wire_read.h"
#include "common/wire_write.h"

enum { JSON_USUAL = 0, JSON_UNUSUAL = 1, JSON_END = 2, JSON_NO_MEMORY = -2 };

enum {
    JSON_MAX_DEPTH = 64,        /* of what is skipped; Python's own parser takes more */
    JSON_MAX_VALUE_DEPTH = 32,  /* pure_otlp_json.MAX_DEPTH */
    JSON_MAX_NUMBER_BYTES = 40, /* longer ones are unusual */
    JSON_MAX_DIGITS = 19        /* that fit into 64 bits, with few exceptions */
};

/* A text in JSON, without its quotes. */
typedef struct {
    byte_slice inside;
    int has_escapes;
} json_text;

/* Reads a double as Python does; `digits` ends with a NUL. */
typedef double (*json_double_reader)(const char *digits);

static inline void skip_space(wire_reader *r) {
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\n' || *r->at == '\r' || *r->at == '\t'))
        r->at++;
}

/* Whether the next byte that is no white space is this one, and if so, skip it. */
static inline int take_byte(wire_reader *r, uint8_t wanted) {
    skip_space(r);
    if (r->at == r->end || *r->at != wanted) return 0;
    r->at++;
    return 1;
}

static inline int hex_digit(uint8_t c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int skip_text(wire_reader *r, json_text *text) {
    const uint8_t *start;
    if (!take_byte(r, '"')) return -1;
    start = r->at;
    text->has_escapes = 0;
    for (;;) {
        uint8_t c;
        while (r->end - r->at >= 8) {
            uint64_t bytes;
            memcpy(&bytes, r->at, sizeof bytes);
            if (needs_escape(bytes)) break;
            r->at += sizeof bytes;
        }
        if (r->at == r->end) return -1;
        c = *r->at++;
        if (c == '"') break;
        if (c < 0x20) return -1;
        if (c != '\\') continue;
        text->has_escapes = 1;
        if (r->at == r->end) return -1;
        c = *r->at++;
        if (c == 'u') {
            int i;
            for (i = 0; i < 4; i++) {
                if (r->at == r->end || hex_digit(*r->at++) < 0) return -1;
            }
        } else if (strchr("\"\\/bfnrt", c) == NULL || c == 0) {
            return -1;
        }
    }
    text->inside.data = start;
    text->inside.size = (size_t)(r->at - 1 - start);
    return 0;
}

static inline int skip_digits(wire_reader *r) {
    const uint8_t *start = r->at;
    while (r->at < r->end && *r->at >= '0' && *r->at <= '9')
        r->at++;
    return r->at > start ? 0 : -1;
}

static int skip_number(wire_reader *r) {
    if (*r->at == '-') r->at++;
    if (r->at < r->end && *r->at == '0')
        r->at++;
    else if (skip_digits(r) < 0)
        return -1;
    if (r->at < r->end && *r->at == '.') {
        r->at++;
        if (skip_digits(r) < 0) return -1;
    }
    if (r->at < r->end && (*r->at == 'e' || *r->at == 'E')) {
        r->at++;
        if (r->at < r->end && (*r->at == '+' || *r->at == '-')) r->at++;
        if (skip_digits(r) < 0) return -1;
    }
    return 0;
}

static int skip_word(wire_reader *r, const char *word, size_t size) {
    if ((size_t)(r->end - r->at) < size || memcmp(r->at, word, size) != 0) return -1;
    r->at += size;
    return 0;
}

/* One value of any kind; -1 where it is none, or is nested too deeply. */
static int skip_json(wire_reader *r, int depth) {
    json_text ignored;
    skip_space(r);
    if (r->at == r->end || depth <= 0) return -1;
    switch (*r->at) {
    case '"': return skip_text(r, &ignored);
    case '{':
        r->at++;
        if (take_byte(r, '}')) return 0;
        do {
            if (skip_text(r, &ignored) < 0 || !take_byte(r, ':')) return -1;
            if (skip_json(r, depth - 1) < 0) return -1;
        } while (take_byte(r, ','));
        return take_byte(r, '}') ? 0 : -1;
    case '[':
        r->at++;
        if (take_byte(r, ']')) return 0;
        do {
            if (skip_json(r, depth - 1) < 0) return -1;
        } while (take_byte(r, ','));
        return take_byte(r, ']') ? 0 : -1;
    case 't': return skip_word(r, "true", 4);
    case 'f': return skip_word(r, "false", 5);
    case 'n': return skip_word(r, "null", 4);
    default: return skip_number(r);
    }
}

/* Where an object has the members of these names; a member that is null is as absent as in
 * protobuf's mapping, and of two with one name the last counts. */
static int find_members(wire_reader *r, const byte_slice *names, int count, byte_slice *found) {
    int i;
    for (i = 0; i < count; i++)
        found[i].data = NULL;
    if (!take_byte(r, '{')) return JSON_UNUSUAL;
    if (take_byte(r, '}')) return JSON_USUAL;
    do {
        json_text name;
        const uint8_t *start;
        if (skip_text(r, &name) < 0 || name.has_escapes || !take_byte(r, ':')) return JSON_UNUSUAL;
        skip_space(r);
        start = r->at;
        if (skip_json(r, JSON_MAX_DEPTH) < 0) return JSON_UNUSUAL;
        for (i = 0; i < count; i++) {
            if (names[i].size != name.inside.size) continue;
            if (memcmp(names[i].data, name.inside.data, names[i].size) != 0) continue;
            found[i].data = *start == 'n' ? NULL : start;
            found[i].size = (size_t)(r->at - start);
            break;
        }
    } while (take_byte(r, ','));
    return take_byte(r, '}') ? JSON_USUAL : JSON_UNUSUAL;
}

static inline wire_reader reader_of(byte_slice slice) {
    wire_reader r = {slice.data, slice.data + slice.size};
    return r;
}

static inline uint32_t escaped_unit(const uint8_t *p) {
    return (uint32_t)(hex_digit(p[0]) << 12 | hex_digit(p[1]) << 8 | hex_digit(p[2]) << 4 |
                      hex_digit(p[3]));
}

static uint8_t *put_code_point(uint8_t *p, uint32_t code) {
    if (code < 0x80) {
        *p++ = (uint8_t)code;
    } else if (code < 0x800) {
        *p++ = (uint8_t)(0xC0 | code >> 6);
        *p++ = (uint8_t)(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
        *p++ = (uint8_t)(0xE0 | code >> 12);
        *p++ = (uint8_t)(0x80 | (code >> 6 & 0x3F));
        *p++ = (uint8_t)(0x80 | (code & 0x3F));
    } else {
        *p++ = (uint8_t)(0xF0 | code >> 18);
        *p++ = (uint8_t)(0x80 | (code >> 12 & 0x3F));
        *p++ = (uint8_t)(0x80 | (code >> 6 & 0x3F));
        *p++ = (uint8_t)(0x80 | (code & 0x3F));
    }
    return p;
}

/* The characters of a text with escapes; NULL for half of a surrogate pair. */
static uint8_t *put_unescaped(uint8_t *p, byte_slice text) {
    const uint8_t *at = text.data, *end = at + text.size;
    while (at < end) {
        uint32_t code;
        if (*at != '\\') {
            *p++ = *at++;
            continue;
        }
        at += 2;
        switch (at[-1]) {
        case 'b': *p++ = '\b'; continue;
        case 'f': *p++ = '\f'; continue;
        case 'n': *p++ = '\n'; continue;
        case 'r': *p++ = '\r'; continue;
        case 't': *p++ = '\t'; continue;
        case 'u': break;
        default: *p++ = at[-1]; continue;
        }
        code = escaped_unit(at);
        at += 4;
        if (code >= 0xDC00 && code < 0xE000) return NULL;
        if (code >= 0xD800 && code < 0xDC00) {
            uint32_t low;
            if (end - at < 6 || at[0] != '\\' || at[1] != 'u') return NULL;
            low = escaped_unit(at + 2);
            if (low < 0xDC00 || low >= 0xE000) return NULL;
            at += 6;
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        }
        p = put_code_point(p, code);
    }
    return p;
}

/* A value that is a text, with tag and length; an empty one only where it `may_be_empty`. */
static int put_json_text(uint8_t **out, uint8_t tag, byte_slice value, int may_be_empty) {
    wire_reader r = reader_of(value);
    json_text text;
    uint8_t *start = *out, *end;
    if (*r.at != '"' || skip_text(&r, &text) < 0) return JSON_UNUSUAL;
    if (text.inside.size == 0 && !may_be_empty) return JSON_USUAL;
    if (!text.has_escapes) {
        *out = wire_bytes(start, tag, text.inside.data, text.inside.size);
        return JSON_USUAL;
    }
    *start = tag;
    end = put_unescaped(start + 2, text.inside);
    if (end == NULL) return JSON_UNUSUAL;
    *out = wire_close(start + 1, 1, end);
    return JSON_USUAL;
}

static int put_json_id(uint8_t **out, uint8_t tag, byte_slice value) {
    uint8_t *p = *out;
    size_t i, size = value.size - 2;
    if (value.size < 2 || *value.data != '"') return JSON_UNUSUAL;
    if (size == 0) return JSON_USUAL;
    if (size % 2 || size > 128) return JSON_UNUSUAL;
    p = wire_uint(p, tag, size / 2);
    for (i = 1; i <= size; i += 2) {
        int high = hex_digit(value.data[i]), low = hex_digit(value.data[i + 1]);
        if (high < 0 || low < 0) return JSON_UNUSUAL;
        *p++ = (uint8_t)(high << 4 | low);
    }
    *out = p;
    return JSON_USUAL;
}

/* A whole number, in quotes or not. */
static int read_whole(byte_slice value, uint64_t *magnitude, int *is_negative) {
    const uint8_t *at = value.data, *end = at + value.size;
    uint64_t found = 0;
    if (*at == '"') {
        at++;
        end--;
    }
    *is_negative = at < end && *at == '-';
    at += *is_negative;
    if (at >= end || end - at > JSON_MAX_DIGITS) return JSON_UNUSUAL;
    for (; at < end; at++) {
        if (*at < '0' || *at > '9') return JSON_UNUSUAL;
        found = 10 * found + (uint64_t)(*at - '0');
    }
    *magnitude = found;
    return JSON_USUAL;
}

/* One that is not negative and has a limit; 0 is absent. */
static int read_limited(byte_slice value, uint64_t limit, uint64_t *found) {
    int is_negative;
    *found = 0;
    if (value.data == NULL) return JSON_USUAL;
    if (read_whole(value, found, &is_negative)) return JSON_UNUSUAL;
    return (is_negative && *found) || *found > limit ? JSON_UNUSUAL : JSON_USUAL;
}

static int put_json_uint32(uint8_t **out, uint8_t tag, byte_slice value) {
    uint64_t number;
    if (read_limited(value, UINT32_MAX, &number)) return JSON_UNUSUAL;
    if (number) *out = wire_uint(*out, tag, number);
    return JSON_USUAL;
}

static int put_json_enum(uint8_t **out, uint8_t tag, byte_slice value) {
    uint64_t number;
    if (read_limited(value, INT32_MAX, &number)) return JSON_UNUSUAL;
    if (number) *out = wire_uint(*out, tag, number);
    return JSON_USUAL;
}

static int put_json_time(uint8_t **out, uint8_t tag, byte_slice value) {
    uint64_t number;
    if (read_limited(value, UINT64_MAX, &number)) return JSON_UNUSUAL;
    if (number) *out = wire_fixed64(*out, tag, number);
    return JSON_USUAL;
}

/* Up to 15 digits, and a power of ten that is exact too, give the right double by one operation.
 * Source: William D. Clinger, "How to Read Floating Point Numbers Accurately". */
static int read_short_double(const uint8_t *at, const uint8_t *end, double *found) {
    static const double powers[] = {1e0, 1e1, 1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                    1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
    uint64_t digits = 0;
    int count = 0, fraction = 0, is_fraction = 0, is_negative = at < end && *at == '-';
    for (at += is_negative; at < end; at++) {
        if (*at == '.') {
            is_fraction = 1;
            continue;
        }
        if (*at < '0' || *at > '9' || ++count > 15) return JSON_UNUSUAL;
        digits = 10 * digits + (uint64_t)(*at - '0');
        fraction += is_fraction;
    }
    *found = (double)digits / powers[fraction];
    if (is_negative && (digits || is_fraction)) *found = -*found; /* an integer has no -0 */
    return JSON_USUAL;
}

static int put_json_double(uint8_t **out, byte_slice value, json_double_reader read_double) {
    char digits[JSON_MAX_NUMBER_BYTES + 1];
    double number;
    if (*value.data != '-' && (*value.data < '0' || *value.data > '9')) return JSON_UNUSUAL;
    if (value.size > JSON_MAX_NUMBER_BYTES) return JSON_UNUSUAL;
    if (read_short_double(value.data, value.data + value.size, &number)) {
        memcpy(digits, value.data, value.size);
        digits[value.size] = 0;
        number = read_double(digits);
    }
    **out = 0x21;
    *out = wire_double(*out + 1, number);
    return JSON_USUAL;
}

#define JSON_NAME(literal) {(const uint8_t *)(literal), sizeof(literal) - 1}
#define JSON_COUNT(names) ((int)(sizeof(names) / sizeof(byte_slice)))

static int put_json_attributes(uint8_t **out, uint8_t tag, byte_slice value, int depth,
                               json_double_reader read_double);

/* The members of a list or a map: {"values": [...]}. */
static int put_json_values(uint8_t **out, byte_slice value, int is_map, int depth,
                           json_double_reader read_double);

/* The body of an AnyValue. */
static int put_any_value(uint8_t **out, byte_slice value, int depth,
                         json_double_reader read_double) {
    static const byte_slice names[] = {
        JSON_NAME("stringValue"), JSON_NAME("intValue"),   JSON_NAME("doubleValue"),
        JSON_NAME("boolValue"),   JSON_NAME("arrayValue"), JSON_NAME("kvlistValue"),
        JSON_NAME("bytesValue"),
    };
    byte_slice found[JSON_COUNT(names)];
    wire_reader r = reader_of(value);
    uint64_t number;
    int i, kind = -1, is_negative;
    if (find_members(&r, names, JSON_COUNT(names), found)) return JSON_UNUSUAL;
    for (i = 0; i < JSON_COUNT(names); i++) {
        if (found[i].data == NULL) continue;
        if (kind >= 0) return JSON_UNUSUAL;
        kind = i;
    }
    switch (kind) {
    case -1: return JSON_USUAL;
    case 0: return put_json_text(out, 0x0A, found[0], 1);
    case 1:
        if (read_whole(found[1], &number, &is_negative)) return JSON_UNUSUAL;
        if (number > (uint64_t)INT64_MAX) return JSON_UNUSUAL;
        *out = wire_uint(*out, 0x18, is_negative ? 0 - number : number);
        return JSON_USUAL;
    case 2: return put_json_double(out, found[2], read_double);
    case 3:
        if (*found[3].data != 't' && *found[3].data != 'f') return JSON_UNUSUAL;
        *out = wire_uint(*out, 0x10, *found[3].data == 't');
        return JSON_USUAL;
    case 4:
    case 5: return put_json_values(out, found[kind], kind == 5, depth, read_double);
    default: return JSON_UNUSUAL;
    }
}

static int put_json_values(uint8_t **out, byte_slice value, int is_map, int depth,
                           json_double_reader read_double) {
    static const byte_slice names[] = {JSON_NAME("values")};
    byte_slice members;
    wire_reader r = reader_of(value);
    uint8_t *start = *out, *p = start + 2;
    if (depth >= JSON_MAX_VALUE_DEPTH) return JSON_UNUSUAL;
    if (find_members(&r, names, 1, &members)) return JSON_UNUSUAL;
    *start = is_map ? 0x32 : 0x2A;
    if (members.data != NULL && is_map) {
        if (put_json_attributes(&p, 0x0A, members, depth + 1, read_double)) return JSON_UNUSUAL;
    } else if (members.data != NULL) {
        r = reader_of(members);
        if (!take_byte(&r, '[')) return JSON_UNUSUAL;
        if (!take_byte(&r, ']')) {
            do {
                byte_slice member;
                uint8_t *body = p + 2;
                skip_space(&r);
                member.data = r.at;
                if (skip_json(&r, JSON_MAX_DEPTH) < 0) return JSON_UNUSUAL;
                member.size = (size_t)(r.at - member.data);
                *p = 0x0A;
                if (put_any_value(&body, member, depth + 1, read_double)) return JSON_UNUSUAL;
                p = wire_close(p + 1, 1, body);
            } while (take_byte(&r, ','));
        }
    }
    *out = wire_close(start + 1, 1, p);
    return JSON_USUAL;
}

static int put_json_attributes(uint8_t **out, uint8_t tag, byte_slice value, int depth,
                               json_double_reader read_double) {
    static const byte_slice names[] = {JSON_NAME("key"), JSON_NAME("value")};
    wire_reader r = reader_of(value);
    if (value.data == NULL) return JSON_USUAL;
    if (!take_byte(&r, '[')) return JSON_UNUSUAL;
    if (take_byte(&r, ']')) return JSON_USUAL;
    do {
        byte_slice found[2];
        uint8_t *start = *out, *p = start + 2;
        if (find_members(&r, names, 2, found)) return JSON_UNUSUAL;
        *start = tag;
        if (found[0].data != NULL && put_json_text(&p, 0x0A, found[0], 0)) return JSON_UNUSUAL;
        if (found[1].data != NULL) {
            uint8_t *body = p + 2;
            *p = 0x12;
            if (put_any_value(&body, found[1], depth, read_double)) return JSON_UNUSUAL;
            p = wire_close(p + 1, 1, body);
        }
        *out = wire_close(start + 1, 1, p);
    } while (take_byte(&r, ','));
    return JSON_USUAL;
}

static int put_json_event(uint8_t **out, wire_reader *r, json_double_reader read_double) {
    static const byte_slice names[] = {
        JSON_NAME("timeUnixNano"),
        JSON_NAME("name"),
        JSON_NAME("attributes"),
        JSON_NAME("droppedAttributesCount"),
    };
    byte_slice found[JSON_COUNT(names)];
    uint8_t *start = *out, *p = start + 2;
    if (find_members(r, names, JSON_COUNT(names), found)) return JSON_UNUSUAL;
    *start = 0x5A;
    if (put_json_time(&p, 0x09, found[0])) return JSON_UNUSUAL;
    if (found[1].data != NULL && put_json_text(&p, 0x12, found[1], 0)) return JSON_UNUSUAL;
    if (put_json_attributes(&p, 0x1A, found[2], 0, read_double)) return JSON_UNUSUAL;
    if (put_json_uint32(&p, 0x20, found[3])) return JSON_UNUSUAL;
    *out = wire_close(start + 1, 1, p);
    return JSON_USUAL;
}

static int put_json_flags(uint8_t **out, byte_slice value) {
    uint64_t number;
    if (read_limited(value, UINT32_MAX, &number)) return JSON_UNUSUAL;
    if (!number) return JSON_USUAL;
    *(*out)++ = 0x85;
    *out = wire_fixed32(*out, 0x01, (uint32_t)number);
    return JSON_USUAL;
}

static int put_json_link(uint8_t **out, wire_reader *r, json_double_reader read_double) {
    static const byte_slice names[] = {
        JSON_NAME("traceId"),
        JSON_NAME("spanId"),
        JSON_NAME("traceState"),
        JSON_NAME("attributes"),
        JSON_NAME("droppedAttributesCount"),
        JSON_NAME("flags"),
    };
    byte_slice found[JSON_COUNT(names)];
    uint64_t flags;
    uint8_t *start = *out, *p = start + 2;
    if (find_members(r, names, JSON_COUNT(names), found)) return JSON_UNUSUAL;
    *start = 0x6A;
    if (found[0].data != NULL && put_json_id(&p, 0x0A, found[0])) return JSON_UNUSUAL;
    if (found[1].data != NULL && put_json_id(&p, 0x12, found[1])) return JSON_UNUSUAL;
    if (found[2].data != NULL && put_json_text(&p, 0x1A, found[2], 0)) return JSON_UNUSUAL;
    if (put_json_attributes(&p, 0x22, found[3], 0, read_double)) return JSON_UNUSUAL;
    if (put_json_uint32(&p, 0x28, found[4])) return JSON_UNUSUAL;
    if (read_limited(found[5], UINT32_MAX, &flags)) return JSON_UNUSUAL;
    if (flags) p = wire_fixed32(p, 0x35, (uint32_t)flags);
    *out = wire_close(start + 1, 1, p);
    return JSON_USUAL;
}

static int put_json_parts(uint8_t **out, byte_slice value, int are_events,
                          json_double_reader read_double) {
    wire_reader r = reader_of(value);
    if (value.data == NULL) return JSON_USUAL;
    if (!take_byte(&r, '[')) return JSON_UNUSUAL;
    if (take_byte(&r, ']')) return JSON_USUAL;
    do {
        if (are_events ? put_json_event(out, &r, read_double) : put_json_link(out, &r, read_double))
            return JSON_UNUSUAL;
    } while (take_byte(&r, ','));
    return JSON_USUAL;
}

static int put_json_status(uint8_t **out, byte_slice value) {
    static const byte_slice names[] = {JSON_NAME("message"), JSON_NAME("code")};
    byte_slice found[2];
    wire_reader r = reader_of(value);
    uint8_t *start = *out, *p = start + 2;
    if (value.data == NULL) return JSON_USUAL;
    if (find_members(&r, names, 2, found)) return JSON_UNUSUAL;
    *start = 0x7A;
    if (found[0].data != NULL && put_json_text(&p, 0x12, found[0], 0)) return JSON_UNUSUAL;
    if (put_json_enum(&p, 0x18, found[1])) return JSON_UNUSUAL;
    *out = wire_close(start + 1, 1, p);
    return JSON_USUAL;
}

static int put_json_span(uint8_t **out, wire_reader r, json_double_reader read_double) {
    static const byte_slice names[] = {
        JSON_NAME("traceId"),
        JSON_NAME("spanId"),
        JSON_NAME("traceState"),
        JSON_NAME("parentSpanId"),
        JSON_NAME("name"),
        JSON_NAME("kind"),
        JSON_NAME("startTimeUnixNano"),
        JSON_NAME("endTimeUnixNano"),
        JSON_NAME("attributes"),
        JSON_NAME("droppedAttributesCount"),
        JSON_NAME("events"),
        JSON_NAME("droppedEventsCount"),
        JSON_NAME("links"),
        JSON_NAME("droppedLinksCount"),
        JSON_NAME("status"),
        JSON_NAME("flags"),
    };
    byte_slice f[JSON_COUNT(names)];
    uint8_t *start = *out, *p = start + 3;
    if (find_members(&r, names, JSON_COUNT(names), f)) return JSON_UNUSUAL;
    *start = 0x12;
    if (f[0].data != NULL && put_json_id(&p, 0x0A, f[0])) return JSON_UNUSUAL;
    if (f[1].data != NULL && put_json_id(&p, 0x12, f[1])) return JSON_UNUSUAL;
    if (f[2].data != NULL && put_json_text(&p, 0x1A, f[2], 0)) return JSON_UNUSUAL;
    if (f[3].data != NULL && put_json_id(&p, 0x22, f[3])) return JSON_UNUSUAL;
    if (f[4].data != NULL && put_json_text(&p, 0x2A, f[4], 0)) return JSON_UNUSUAL;
    if (put_json_enum(&p, 0x30, f[5])) return JSON_UNUSUAL;
    if (put_json_time(&p, 0x39, f[6])) return JSON_UNUSUAL;
    if (put_json_time(&p, 0x41, f[7])) return JSON_UNUSUAL;
    if (put_json_attributes(&p, 0x4A, f[8], 0, read_double)) return JSON_UNUSUAL;
    if (put_json_uint32(&p, 0x50, f[9])) return JSON_UNUSUAL;
    if (put_json_parts(&p, f[10], 1, read_double)) return JSON_UNUSUAL;
    if (put_json_uint32(&p, 0x60, f[11])) return JSON_UNUSUAL;
    if (put_json_parts(&p, f[12], 0, read_double)) return JSON_UNUSUAL;
    if (put_json_uint32(&p, 0x70, f[13])) return JSON_UNUSUAL;
    if (put_json_status(&p, f[14])) return JSON_UNUSUAL;
    if (put_json_flags(&p, f[15])) return JSON_UNUSUAL;
    *out = wire_close(start + 1, 2, p);
    return JSON_USUAL;
}

/* The spans of an array after its "["; `count` of them came before. JSON_UNUSUAL: `span` is one to be
 * translated otherwise, and the reader stands after it. JSON_END: the array ends here. -1: this is no
 * array. */
static int put_json_spans(text_buffer *out, wire_reader *r, size_t *count, wire_reader *span,
                          json_double_reader read_double) {
    for (;;) {
        uint8_t *p;
        if (take_byte(r, ']')) return JSON_END;
        if (*count && !take_byte(r, ',')) return -1;
        ++*count;
        skip_space(r);
        span->at = r->at;
        if (skip_json(r, JSON_MAX_DEPTH) < 0) return -1;
        span->end = r->at;
        /* What is written is shorter than its text; some of it moves once its length is known. */
        if (text_room(out, 2 * (size_t)(span->end - span->at) + 64) < 0) return JSON_NO_MEMORY;
        p = out->data + out->size;
        if (put_json_span(&p, *span, read_double)) return JSON_UNUSUAL;
        out->size = (size_t)(p - out->data);
    }
}

#endif
