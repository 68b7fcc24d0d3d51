/* The place of a bit, in one instruction where the compiler has it. */
#ifndef INFERTRACE_BITS_H
#define INFERTRACE_BITS_H

#include <stdint.h>

/* Of a number other than 0; the lowest place is 0. */
static inline int infertrace_highest_bit(uint64_t bits) {
#if defined(__GNUC__)
    return 63 - __builtin_clzll(bits);
#else
    int place = 0;
    while (bits >>= 1)
        place++;
    return place;
#endif
}

#endif
