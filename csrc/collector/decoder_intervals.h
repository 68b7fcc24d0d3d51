/* The message TokenIntervals: read as protobuf merges it, judged, and written in one form.
 * infertrace.wire.token_intervals says what is a histogram.
 */
#ifndef INFERTRACE_DECODER_INTERVALS_H
#define INFERTRACE_DECODER_INTERVALS_H

#include "common/wire_read.h"
#include "common/wire_write.h"

enum { INTERVALS_LOWEST = -1, INTERVALS_HIGHEST = 511, INTERVALS_MOST = 513 };
/* What the longest one takes when it is written. */
enum { INTERVALS_BYTES = 16 + 5 * INTERVALS_MOST };

typedef struct {
    int32_t offset;
    uint32_t counts[INTERVALS_MOST];
    size_t count; /* also of those for which there is no room */
} interval_counts;

static inline void add_interval_count(interval_counts *all, uint64_t value) {
    if (all->count < INTERVALS_MOST) all->counts[all->count] = (uint32_t)value;
    all->count++;
}

/* A second message adds to the first one. */
static int read_intervals(wire_reader *r, interval_counts *all, int depth) {
    wire_reader inside, packed;
    if (depth <= 0 || read_sized(r, &inside) < 0) return -1;
    while (inside.at < inside.end) {
        uint32_t tag;
        uint64_t value;
        if (read_tag(&inside, &tag) < 0) return -1;
        switch (tag) {
        case 1 << 3 | WIRE_VARINT:
            if (read_varint(&inside, &value) < 0) return -1;
            all->offset = (int32_t)((uint32_t)value >> 1 ^ (0 - ((uint32_t)value & 1)));
            break;
        case 2 << 3 | WIRE_VARINT:
            if (read_varint(&inside, &value) < 0) return -1;
            add_interval_count(all, value);
            break;
        case 2 << 3 | WIRE_BYTES:
            if (read_sized(&inside, &packed) < 0) return -1;
            while (packed.at < packed.end) {
                if (read_varint(&packed, &value) < 0) return -1;
                add_interval_count(all, value);
            }
            break;
        default:
            if (skip_value(&inside, tag, depth - 1) < 0) return -1;
        }
    }
    return 0;
}

static int are_intervals(const interval_counts *all) {
    return all->count && all->count <= INTERVALS_MOST && all->offset >= INTERVALS_LOWEST &&
           all->offset <= INTERVALS_HIGHEST &&
           all->offset + (int32_t)all->count - 1 <= INTERVALS_HIGHEST;
}

/* Those that are valid, into INTERVALS_BYTES. */
static uint8_t *write_intervals(uint8_t *p, const interval_counts *all) {
    uint8_t *start;
    size_t i;
    int64_t offset = all->offset;
    if (offset) p = wire_uint(p, 0x08, (uint64_t)(offset > 0 ? 2 * offset : -2 * offset - 1));
    *p++ = 0x12;
    start = p++;
    for (i = 0; i < all->count; i++)
        p = wire_varint(p, all->counts[i]);
    return wire_close(start, 1, p);
}

#endif
