/* Reading protobuf's wire format, as strictly as upb reads a message it knows.
 * Each function returns 0, or -1 where the bytes are malformed or end too soon.
 * Source of the format: Protocol Buffers, "Encoding".
 */
#ifndef INFERTRACE_DECODER_WIRE_H
#define INFERTRACE_DECODER_WIRE_H

#include <stdint.h>
#include <string.h>

enum {
    WIRE_VARINT = 0,
    WIRE_FIXED64 = 1,
    WIRE_BYTES = 2,
    WIRE_GROUP = 3,
    WIRE_END = 4,
    WIRE_FIXED32 = 5
};

#define WIRE_MAX_DEPTH 100 /* messages and groups within a span, as upb allows */

typedef struct {
    const uint8_t *at;
    const uint8_t *end;
} wire_reader;

typedef struct {
    const uint8_t *data;
    size_t size;
} byte_slice;

static inline int read_long_varint(wire_reader *r, int max_bytes, uint64_t *value) {
    uint64_t found = 0;
    int i;
    for (i = 0; i < max_bytes; i++) {
        uint8_t byte;
        if (r->at == r->end) return -1;
        byte = *r->at++;
        found |= (uint64_t)(byte & 0x7F) << (7 * i);
        if (byte < 0x80) {
            *value = found; /* bits beyond the 64th are discarded */
            return 0;
        }
    }
    return -1;
}

static inline int read_varint(wire_reader *r, uint64_t *value) {
    if (r->at < r->end && *r->at < 0x80) {
        *value = *r->at++;
        return 0;
    }
    return read_long_varint(r, 10, value);
}

/* Tags have 32 bits, sizes 31; both take at most five bytes. */
static inline int read_tag(wire_reader *r, uint32_t *tag) {
    uint64_t value;
    if (r->at < r->end && *r->at < 0x80) {
        value = *r->at++;
    } else if (read_long_varint(r, 5, &value) < 0 || value > UINT32_MAX) {
        return -1;
    }
    *tag = (uint32_t)value;
    return value >> 3 ? 0 : -1;
}

static inline int read_sized(wire_reader *r, wire_reader *inside) {
    uint64_t size;
    if (r->at < r->end && *r->at < 0x80) {
        size = *r->at++;
    } else if (read_long_varint(r, 5, &size) < 0 || size > INT32_MAX) {
        return -1;
    }
    if (size > (uint64_t)(r->end - r->at)) return -1;
    inside->at = r->at;
    inside->end = r->at += size;
    return 0;
}

static inline byte_slice slice_of(wire_reader r) {
    byte_slice slice = {r.at, (size_t)(r.end - r.at)};
    return slice;
}

static inline int read_slice(wire_reader *r, byte_slice *found) {
    wire_reader inside;
    if (read_sized(r, &inside) < 0) return -1;
    *found = slice_of(inside);
    return 0;
}

static inline int read_fixed32(wire_reader *r, uint32_t *value) {
    if (r->end - r->at < 4) return -1;
    *value =
        r->at[0] | (uint32_t)r->at[1] << 8 | (uint32_t)r->at[2] << 16 | (uint32_t)r->at[3] << 24;
    r->at += 4;
    return 0;
}

static inline int read_fixed64(wire_reader *r, uint64_t *value) {
    uint32_t low, high;
    if (r->end - r->at < 8) return -1;
    read_fixed32(r, &low);
    read_fixed32(r, &high);
    *value = (uint64_t)high << 32 | low;
    return 0;
}

/* `depth`: how many more levels of messages or groups may be nested here. */
static int skip_value(wire_reader *r, uint32_t tag, int depth) {
    wire_reader inside;
    uint64_t ignored;
    switch (tag & 7) {
    case WIRE_VARINT: return read_varint(r, &ignored);
    case WIRE_BYTES: return read_sized(r, &inside);
    case WIRE_FIXED64:
        if (r->end - r->at < 8) return -1;
        r->at += 8;
        return 0;
    case WIRE_FIXED32:
        if (r->end - r->at < 4) return -1;
        r->at += 4;
        return 0;
    case WIRE_GROUP:
        if (depth <= 0) return -1;
        for (;;) {
            uint32_t next;
            if (read_tag(r, &next) < 0) return -1;
            if ((next & 7) == WIRE_END) return next >> 3 == tag >> 3 ? 0 : -1;
            if (skip_value(r, next, depth - 1) < 0) return -1;
        }
    default: return -1;
    }
}

/* Eight bytes at a time, the last of which may be looked at twice. */
static inline int is_ascii(const uint8_t *p, size_t size) {
    uint64_t word, all = 0;
    size_t i;
    if (size < sizeof word) {
        for (i = 0; i < size; i++)
            all |= p[i];
        return all < 0x80;
    }
    for (i = 0; i + sizeof word <= size; i += sizeof word) {
        memcpy(&word, p + i, sizeof word);
        all |= word;
    }
    memcpy(&word, p + size - sizeof word, sizeof word);
    return ((all | word) & 0x8080808080808080u) == 0;
}

/* Unicode 15.0, table 3-7: well-formed UTF-8. */
static int is_utf8(const uint8_t *p, const uint8_t *end) {
    if (is_ascii(p, (size_t)(end - p))) return 1;
    while (p < end) {
        uint8_t first;
        while (end - p >= 8) {
            uint64_t word;
            memcpy(&word, p, sizeof word);
            if (word & 0x8080808080808080u) break;
            p += 8;
        }
        if (p == end) return 1;
        first = *p;
        if (first < 0x80) {
            p++;
        } else if (first >= 0xC2 && first <= 0xDF) {
            if (end - p < 2 || (p[1] & 0xC0) != 0x80) return 0;
            p += 2;
        } else if ((first & 0xF0) == 0xE0) {
            uint8_t least = first == 0xE0 ? 0xA0 : 0x80, most = first == 0xED ? 0x9F : 0xBF;
            if (end - p < 3 || p[1] < least || p[1] > most || (p[2] & 0xC0) != 0x80) return 0;
            p += 3;
        } else if (first >= 0xF0 && first <= 0xF4) {
            uint8_t least = first == 0xF0 ? 0x90 : 0x80, most = first == 0xF4 ? 0x8F : 0xBF;
            if (end - p < 4 || p[1] < least || p[1] > most) return 0;
            if ((p[2] & 0xC0) != 0x80 || (p[3] & 0xC0) != 0x80) return 0;
            p += 4;
        } else {
            return 0;
        }
    }
    return 1;
}

static inline int read_text(wire_reader *r, byte_slice *text) {
    if (read_slice(r, text) < 0) return -1;
    return is_utf8(text->data, text->data + text->size) ? 0 : -1;
}

#endif
