/* Atomic words shared by a thread without the GIL and threads that hold it. */
#ifndef INFERTRACE_ATOMICS_H
#define INFERTRACE_ATOMICS_H

#include <stdint.h>

#if defined(__GNUC__) || defined(__clang__)
static inline uint32_t infertrace_load_acquire(const uint32_t *word) {
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}
static inline void infertrace_store_release(uint32_t *word, uint32_t value) {
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}
/* Returns whether it was `expected`, and so is `desired` now. */
static inline int infertrace_compare_exchange(uint32_t *word, uint32_t expected, uint32_t desired) {
    return __atomic_compare_exchange_n(word, &expected, desired, 0, __ATOMIC_ACQ_REL,
                                       __ATOMIC_ACQUIRE);
}
#else /* No thread runs without the GIL here. */
static inline uint32_t infertrace_load_acquire(const uint32_t *word) {
    return *word;
}
static inline void infertrace_store_release(uint32_t *word, uint32_t value) {
    *word = value;
}
static inline int infertrace_compare_exchange(uint32_t *word, uint32_t expected, uint32_t desired) {
    if (*word != expected) return 0;
    *word = desired;
    return 1;
}
#endif

#endif
