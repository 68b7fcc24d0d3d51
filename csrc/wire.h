/* Writing protobuf's wire format. Each function returns the end of what it wrote;
 * the caller has made sure of the room.
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

/* An id: eight bytes, the most significant first, as its hexadecimal form reads. */
static inline uint8_t *wire_id(uint8_t *p, uint64_t id) {
    int shift;
    for (shift = 56; shift >= 0; shift -= 8) *p++ = (uint8_t)(id >> shift);
    return p;
}

static inline uint8_t *wire_little_endian(uint8_t *p, uint64_t bits, int size) {
    int i;
    for (i = 0; i < size; i++) *p++ = (uint8_t)(bits >> (8 * i));
    return p;
}

static inline uint8_t *wire_float(uint8_t *p, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return wire_little_endian(p, bits, 4);
}

static inline uint8_t *wire_double(uint8_t *p, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return wire_little_endian(p, bits, 8);
}

/* A message is written behind `reserved` bytes of room for its length at `start`, and
 * closed here: one pass, and a short move only where the guess was wrong. */
static inline uint8_t *wire_close(uint8_t *start, int reserved, uint8_t *end) {
    size_t size = (size_t)(end - start) - reserved;
    int needed = wire_varint_size(size);
    if (needed != reserved) memmove(start + needed, start + reserved, size);
    wire_varint(start, size);
    return start + needed + size;
}

#endif
