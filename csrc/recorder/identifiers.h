/* Trace and span ids without a system call or a lock: three SplitMix64 streams.
 *
 * Each stream is a bijection of a 64-bit counter, so a process repeats no span id
 * before 2^64 of them. The seeds come from the operating system, again after each fork.
 * Source: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014.
 */
#ifndef INFERTRACE_IDENTIFIERS_H
#define INFERTRACE_IDENTIFIERS_H

#include <stdint.h>

typedef struct {
    uint64_t trace_high, trace_low, span;
} infertrace_id_streams;

static inline uint64_t infertrace_next_id(uint64_t *stream) {
    uint64_t z;
    do {
        z = (*stream += 0x9E3779B97F4A7C15ULL);
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
        z ^= z >> 31;
    } while (!z); /* an id of zero is not valid on the wire */
    return z;
}

#endif
