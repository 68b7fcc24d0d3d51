/* The histogram of the times between the tokens of one request, as it grows.
 * infertrace.wire.token_intervals is its twin in Python, and has the source of the buckets.
 */
#ifndef INFERTRACE_TOKEN_INTERVALS_H
#define INFERTRACE_TOKEN_INTERVALS_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/bits.h"
#include "common/wire_write.h"

enum {
    INFERTRACE_WRITTEN_BUCKETS = 52,
    /* On both sides of a new bucket: few below, so that a first one lies beside what else a token
     * changes. */
    INFERTRACE_SPARE_BELOW = 4,
    INFERTRACE_SPARE_ABOVE = 12
};

/* `counts` has room for `room` buckets from `base` on; those from `first` to `last` are written. It
 * is `near` as long as that suffices: beside what else a token changes, in memory that is at hand.
 */
typedef struct {
    uint32_t *counts;
    int32_t base, room;
    uint32_t near[INFERTRACE_SPARE_BELOW + 1 + INFERTRACE_SPARE_ABOVE];
    int32_t first, last;
} infertrace_intervals;

/* 2^(63 + k/8), rounded down; the last one is never passed. */
static const uint64_t INFERTRACE_EDGES[9] = {
    0x8000000000000000u, 0x8B95C1E3EA8BD6E6u, 0x9837F0518DB8A96Fu,
    0xA5FED6A9B15138EAu, 0xB504F333F9DE6484u, 0xC5672A115506DADDu,
    0xD744FCCAD69D6AF4u, 0xEAC0C6E7DD24392Eu, UINT64_MAX,
};

/* The edge at or below the start of each sixteenth of an octave, which has one more at most. */
static const uint8_t INFERTRACE_SIXTEENTHS[16] = {0, 0, 1, 1, 2, 3, 3, 4, 4, 5, 5, 6, 6, 6, 7, 7};

/* `interval_ns` is 1 or more. */
static inline int32_t infertrace_bucket_of(uint64_t interval_ns) {
    int doublings = infertrace_highest_bit(interval_ns);
    uint64_t aligned = interval_ns << (63 - doublings);
    int step = INFERTRACE_SIXTEENTHS[aligned >> 59 & 15];
    step += aligned > INFERTRACE_EDGES[step + 1];
    step -= aligned == INFERTRACE_EDGES[0]; /* a bucket has its upper bound */
    return 8 * doublings + step;
}

/* Have room for a bucket; -1 without memory. */
static int infertrace_widen(infertrace_intervals *all, int32_t bucket) {
    int32_t low = bucket - INFERTRACE_SPARE_BELOW, high = bucket + INFERTRACE_SPARE_ABOVE;
    uint32_t *grown = all->near;
    if (all->room && all->base < low) low = all->base;
    if (all->room && all->base + all->room - 1 > high) high = all->base + all->room - 1;
    if (all->room) {
        grown = calloc((size_t)(high - low + 1), sizeof(uint32_t));
        if (!grown) return -1;
        memcpy(grown + (all->base - low), all->counts, (size_t)all->room * sizeof(uint32_t));
        if (all->counts != all->near) free(all->counts);
    }
    all->counts = grown;
    all->base = low;
    all->room = high - low + 1;
    return 0;
}

/* Count `times` in a bucket; -1 without memory. */
static inline int infertrace_count_in(infertrace_intervals *all, int32_t bucket, uint32_t times) {
    uint32_t *count, sum;
    if ((uint32_t)(bucket - all->base) >= (uint32_t)all->room) {
        if (infertrace_widen(all, bucket) < 0) return -1;
    }
    count = all->counts + (bucket - all->base);
    sum = *count + times;
    *count = sum < times ? UINT32_MAX : sum;
    return 0;
}

/* `first` and `last` become the outermost buckets with counts; something has been counted. */
static void infertrace_find_ends(infertrace_intervals *all) {
    int32_t first = 0, last = all->room - 1;
    while (first < last && !all->counts[first])
        first++;
    while (first < last && !all->counts[last])
        last--;
    all->first = all->base + first;
    all->last = all->base + last;
}

static void infertrace_forget_intervals(infertrace_intervals *all) {
    if (all->counts != all->near) free(all->counts);
    memset(all, 0, sizeof *all);
}

static uint32_t infertrace_sum(const uint32_t *counts, int32_t size) {
    uint64_t sum = 0;
    int32_t i;
    for (i = 0; i < size; i++)
        sum += counts[i];
    return sum > UINT32_MAX ? UINT32_MAX : (uint32_t)sum;
}

/* Keep within INFERTRACE_WRITTEN_BUCKETS buckets, those with most counts. */
static void infertrace_narrow(infertrace_intervals *all) {
    int32_t size = all->last - all->first + 1, start = 0, first, end;
    uint32_t *counts = all->counts + (all->first - all->base), *edge;
    uint64_t within = 0, most, sum;
    if (size <= INFERTRACE_WRITTEN_BUCKETS) return;
    for (first = 0; first < INFERTRACE_WRITTEN_BUCKETS; first++)
        within += counts[first];
    most = within;
    for (first = 1; first + INFERTRACE_WRITTEN_BUCKETS <= size; first++) {
        within += counts[first + INFERTRACE_WRITTEN_BUCKETS - 1];
        within -= counts[first - 1];
        if (within > most) {
            start = first;
            most = within;
        }
    }
    end = start + INFERTRACE_WRITTEN_BUCKETS;
    edge = counts + start;
    sum = (uint64_t)*edge + infertrace_sum(counts, start);
    *edge = sum > UINT32_MAX ? UINT32_MAX : (uint32_t)sum;
    edge = counts + end - 1;
    sum = (uint64_t)*edge + infertrace_sum(counts + end, size - end);
    *edge = sum > UINT32_MAX ? UINT32_MAX : (uint32_t)sum;
    all->last = all->first + end - 1;
    all->first += start;
}

/* The largest number of bytes that the message takes. */
static inline size_t infertrace_intervals_room(const infertrace_intervals *all) {
    return all->counts ? 16 + 5 * (size_t)(all->last - all->first + 1) : 0;
}

/* The last byte of a tag, and the message TokenIntervals. */
static uint8_t *infertrace_put_intervals(uint8_t *p, uint8_t tag, const infertrace_intervals *all) {
    uint8_t *start, *counts;
    int32_t bucket, offset = all->first;
    *p++ = tag;
    start = p++;
    if (offset)
        p = wire_uint(p, 0x08, offset > 0 ? 2 * (uint64_t)offset : 2 * (uint64_t)-offset - 1);
    *p++ = 0x12;
    counts = p++;
    for (bucket = offset; bucket <= all->last; bucket++)
        p = wire_varint(p, all->counts[bucket - all->base]);
    return wire_close(start, 1, wire_close(counts, 1, p));
}

#endif
