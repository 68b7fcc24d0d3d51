/* Writing protobuf's wire format. Each function returns the end of what it wrote;
 * the caller provides enough room.
 * Source of the format: Protocol Buffers, "Encoding".
 */
#ifndef INFERTRACE_WIRE_H
#define INFERTRACE_WIRE_H

#include <stdint.h>
#include <string.h>

static inline uint8_t *wire_varint(uint8_t *p, uint64_t value) {
    while (value >= 0x80) {
        *p++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *p++ = (uint8_t)value;
    return p;
}

/* The same, without a loop, for a present-day time, which takes nine bytes. */
static inline uint8_t *wire_time(uint8_t *p, uint64_t nanos) {
    int i;
    if (nanos >> 56 == 0 || nanos >> 63) return wire_varint(p, nanos);
    for (i = 0; i < 8; i++)
        p[i] = (uint8_t)(nanos >> (7 * i) | 0x80);
    p[8] = (uint8_t)(nanos >> 56);
    return p + 9;
}

static inline int wire_varint_size(uint64_t value) {
    int size = 1;
    while (value >= 0x80) {
        value >>= 7;
        size++;
    }
    return size;
}

static inline uint8_t *wire_uint(uint8_t *p, uint8_t tag, uint64_t value) {
    *p++ = tag;
    return wire_varint(p, value);
}

static inline uint8_t *wire_bytes(uint8_t *p, uint8_t tag, const void *data, size_t size) {
    *p++ = tag;
    p = wire_varint(p, size);
    memcpy(p, data, size);
    return p + size;
}

static inline uint8_t *wire_fixed64(uint8_t *p, uint8_t tag, uint64_t value) {
    int i;
    *p++ = tag;
    for (i = 0; i < 8; i++)
        *p++ = (uint8_t)(value >> (8 * i));
    return p;
}

static inline uint8_t *wire_fixed32(uint8_t *p, uint8_t tag, uint32_t value) {
    int i;
    *p++ = tag;
    for (i = 0; i < 4; i++)
        *p++ = (uint8_t)(value >> (8 * i));
    return p;
}

/* An id: eight bytes, most significant first, in the order of its hexadecimal form. */
static inline uint8_t *wire_id(uint8_t *p, uint64_t id) {
#if defined(__GNUC__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    id = __builtin_bswap64(id);
    memcpy(p, &id, sizeof id);
    return p + sizeof id;
#else
    p[0] = (uint8_t)(id >> 56);
    p[1] = (uint8_t)(id >> 48);
    p[2] = (uint8_t)(id >> 40);
    p[3] = (uint8_t)(id >> 32);
    p[4] = (uint8_t)(id >> 24);
    p[5] = (uint8_t)(id >> 16);
    p[6] = (uint8_t)(id >> 8);
    p[7] = (uint8_t)id;
    return p + 8;
#endif
}

static inline uint8_t *wire_float(uint8_t *p, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    p[0] = (uint8_t)bits;
    p[1] = (uint8_t)(bits >> 8);
    p[2] = (uint8_t)(bits >> 16);
    p[3] = (uint8_t)(bits >> 24);
    return p + 4;
}

static inline uint8_t *wire_double(uint8_t *p, double value) {
    uint64_t bits;
    int i;
    memcpy(&bits, &value, sizeof bits);
    for (i = 0; i < 8; i++)
        *p++ = (uint8_t)(bits >> (8 * i));
    return p;
}

/* Write the length of a message whose body the caller wrote `reserved` bytes after `start`. One
 * pass: the body moves only if the length takes another number of bytes than `reserved`. */
static inline uint8_t *wire_close(uint8_t *start, int reserved, uint8_t *end) {
    size_t size = (size_t)(end - start) - reserved;
    int needed = wire_varint_size(size);
    if (needed != reserved) memmove(start + needed, start + reserved, size);
    wire_varint(start, size);
    return start + needed + size;
}

/* The whole size of a length-delimited entry with a one-byte tag, tag and length included. */
static inline size_t wire_entry_size(const uint8_t *p) {
    const uint8_t *start = p++;
    size_t size = 0;
    int shift = 0;
    while (*p & 0x80) {
        size |= (size_t)(*p++ & 0x7F) << shift;
        shift += 7;
    }
    size |= (size_t)*p++ << shift;
    return (size_t)(p - start) + size;
}

#endif
