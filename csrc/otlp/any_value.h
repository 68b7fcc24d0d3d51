/* AttributeValue into AnyValue, and entries of a map into KeyValues.
 *
 * Scalars have the same numbers in both; bytes, arrays and lists have others. Each function returns
 * the end of what it wrote, or NULL where the value cannot be read. The caller provides room:
 * OTLP_GROWTH bytes for each byte that is read.
 * Sources: proto/span.proto; opentelemetry/proto/common/v1/common.proto.
 */
#ifndef INFERTRACE_OTLP_ANY_VALUE_H
#define INFERTRACE_OTLP_ANY_VALUE_H

#include "common/wire_read.h"
#include "common/wire_write.h"

/* Arrays and lists in one another: receivers read at most 100 messages in one another, and a list
 * is three. */
#define OTLP_MAX_VALUE_DEPTH 30
#define OTLP_GROWTH 16

/* The text of an AttributeValue that begins with one; empty for any other. */
static byte_slice otlp_single_text(byte_slice value) {
    wire_reader r = {value.data, value.data + value.size};
    byte_slice text = {value.data, 0};
    if (r.at < r.end && *r.at++ == 0x0A && read_text(&r, &text) < 0) text.size = 0;
    return text;
}

static uint8_t *otlp_put_value(uint8_t *p, byte_slice value, int depth);

/* The key and the value of a KeyValue or of an entry of a map, whose tags are the same. */
static int otlp_read_entry(wire_reader r, byte_slice *key, byte_slice *value) {
    wire_reader inside;
    key->data = value->data = r.at;
    key->size = value->size = 0;
    while (r.at < r.end) {
        uint32_t tag;
        if (read_tag(&r, &tag) < 0) return -1;
        if (tag == 0x0A) {
            if (read_text(&r, key) < 0) return -1;
        } else if (tag == 0x12) {
            if (read_sized(&r, &inside) < 0) return -1;
            *value = slice_of(inside);
        } else if (skip_value(&r, tag, WIRE_MAX_DEPTH) < 0) {
            return -1;
        }
    }
    return 0;
}

/* A KeyValue under a tag of one byte. */
static uint8_t *otlp_put_entry(uint8_t *p, uint8_t tag, byte_slice key, byte_slice value,
                               int depth) {
    uint8_t *start;
    *p++ = tag;
    start = p;
    p = wire_bytes(start + 1, 0x0A, key.data, key.size);
    *p++ = 0x12;
    p = otlp_put_value(p, value, depth);
    return p ? wire_close(start, 1, p) : NULL;
}

/* The entries of a list, or the values of an array. */
static uint8_t *otlp_put_values(uint8_t *p, wire_reader r, int is_list, int depth) {
    wire_reader inside;
    while (r.at < r.end) {
        uint32_t tag;
        if (read_tag(&r, &tag) < 0) return NULL;
        if (tag != 0x0A) {
            if (skip_value(&r, tag, WIRE_MAX_DEPTH) < 0) return NULL;
            continue;
        }
        if (read_sized(&r, &inside) < 0) return NULL;
        if (is_list) {
            byte_slice key, value;
            if (otlp_read_entry(inside, &key, &value) < 0) return NULL;
            p = otlp_put_entry(p, 0x0A, key, value, depth);
        } else {
            *p++ = 0x0A;
            p = otlp_put_value(p, slice_of(inside), depth);
        }
        if (!p) return NULL;
    }
    return p;
}

/* The length of an AnyValue, and the AnyValue; of several fields the last counts. */
static uint8_t *otlp_put_value(uint8_t *p, byte_slice value, int depth) {
    wire_reader r = {value.data, value.data + value.size};
    wire_reader inside = {value.data, value.data};
    uint8_t *start = p++;
    uint64_t number = 0;
    uint32_t kind = 0;
    while (r.at < r.end) {
        uint32_t tag;
        int bad;
        if (read_tag(&r, &tag) < 0) return NULL;
        switch (tag) {
        case 0x0A:
        case 0x2A:
        case 0x32:
        case 0x3A: bad = read_sized(&r, &inside); break;
        case 0x10:
        case 0x18: bad = read_varint(&r, &number); break;
        case 0x21: bad = read_fixed64(&r, &number); break;
        default: bad = skip_value(&r, tag, WIRE_MAX_DEPTH); tag = kind;
        }
        if (bad < 0) return NULL;
        kind = tag;
    }
    switch (kind) {
    case 0: break;
    case 0x0A:
        if (!is_utf8(inside.at, inside.end)) return NULL;
        p = wire_bytes(p, 0x0A, inside.at, (size_t)(inside.end - inside.at));
        break;
    case 0x2A: p = wire_bytes(p, 0x3A, inside.at, (size_t)(inside.end - inside.at)); break;
    case 0x21: p = wire_fixed64(p, 0x21, number); break;
    case 0x32:
    case 0x3A: {
        uint8_t *body;
        if (depth <= 0) return NULL;
        *p++ = kind == 0x32 ? 0x2A : 0x32;
        body = p;
        p = otlp_put_values(p + 1, inside, kind == 0x3A, depth - 1);
        if (!p) return NULL;
        p = wire_close(body, 1, p);
        break;
    }
    default: p = wire_uint(p, (uint8_t)kind, number);
    }
    return wire_close(start, 1, p);
}

/* Every entry of a map<string, AttributeValue> with `tag` in this message, under `written_tag`. */
static uint8_t *otlp_put_map(uint8_t *p, wire_reader r, uint32_t tag, uint8_t written_tag) {
    while (r.at < r.end) {
        uint32_t next;
        if (read_tag(&r, &next) < 0) return NULL;
        if (next == tag) {
            wire_reader inside;
            byte_slice key, value;
            if (read_sized(&r, &inside) < 0 || otlp_read_entry(inside, &key, &value) < 0)
                return NULL;
            p = otlp_put_entry(p, written_tag, key, value, OTLP_MAX_VALUE_DEPTH);
            if (!p) return NULL;
        } else if (skip_value(&r, next, WIRE_MAX_DEPTH) < 0) {
            return NULL;
        }
    }
    return p;
}

#endif
