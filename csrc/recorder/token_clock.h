/* The monotonic clock for tokens: read by the processor's own counter between readings of the
 * system's, which costs twice as much. Where the kernel itself keeps time by that counter ("tsc"
 * in clocksource0/current_clocksource), it runs evenly, and alike on all cores. Elsewhere, and
 * whenever something looks odd, this is the system's clock.
 *
 * The kernel may steer its clock by 500 ppm, so that a reading is off by 50 us at most at the end
 * of a window, commonly by less than one. Callers hold the GIL, which guards `infertrace_ticks`.
 */
#ifndef INFERTRACE_TOKEN_CLOCK_H
#define INFERTRACE_TOKEN_CLOCK_H

#include <stdint.h>

#include "common/clock.h"

#if defined(__x86_64__) && defined(__linux__) && defined(__SIZEOF_INT128__)
#include <x86intrin.h>

enum {
    INFERTRACE_WINDOW_NS = 100000000,
    /* The first window is short, so that what runs for milliseconds has the rate as well; each
     * is twice as long as the one before. Readings that are a microsecond apart make an error of
     * 250 ppm in it. */
    INFERTRACE_FIRST_WINDOW_NS = 4000000,
    /* Two readings of the counter with the system's clock between them take 100 or so; more, and
     * something else ran in between. */
    INFERTRACE_READ_TICKS = 4096,
    INFERTRACE_ODD_RATE = 500 /* a rate that changes by one part in 500 is not trusted */
};

typedef struct {
    uint64_t ticks; /* of the last reading of both */
    int64_t ns;
    uint64_t window_ticks; /* for so long the rate holds; 0: none is known yet */
    uint64_t rate;         /* nanoseconds a tick, times 2^32 */
    int trusted;
} infertrace_tick_clock;

static infertrace_tick_clock infertrace_ticks;

/* Learn from the system's clock, read between two readings of the counter. */
static void infertrace_set_ticks(infertrace_tick_clock *clock, uint64_t before, int64_t ns,
                                 uint64_t after) {
    uint64_t passed = before - clock->ticks, rate;
    int64_t lasted = ns - clock->ns, window_ns = INFERTRACE_WINDOW_NS;
    if (after - before > INFERTRACE_READ_TICKS) return;
    if (clock->ns) {
        if (!clock->rate && lasted < INFERTRACE_FIRST_WINDOW_NS) return;
        rate = (uint64_t)(((unsigned __int128)lasted << 32) / (passed ? passed : 1));
        if (!rate || (clock->rate && (rate > clock->rate + clock->rate / INFERTRACE_ODD_RATE ||
                                      rate < clock->rate - clock->rate / INFERTRACE_ODD_RATE))) {
            clock->trusted = 0;
            return;
        }
        clock->rate = rate;
        if (lasted < window_ns / 2) window_ns = 2 * lasted;
        clock->window_ticks = (uint64_t)(((unsigned __int128)window_ns << 32) / rate);
    }
    clock->ticks = before;
    clock->ns = ns;
}

static int64_t infertrace_read_both(infertrace_tick_clock *clock) {
    uint64_t before = __rdtsc();
    int64_t ns = infertrace_monotonic_ns();
    infertrace_set_ticks(clock, before, ns, __rdtsc());
    return ns;
}

static inline int64_t infertrace_token_ns(void) {
    uint64_t passed;
    if (!infertrace_ticks.trusted) return infertrace_monotonic_ns();
    passed = __rdtsc() - infertrace_ticks.ticks;
    if (passed >= infertrace_ticks.window_ticks) return infertrace_read_both(&infertrace_ticks);
    return infertrace_ticks.ns +
           (int64_t)(((unsigned __int128)passed * infertrace_ticks.rate) >> 32);
}

/* The rate is known INFERTRACE_FIRST_WINDOW_NS later. */
static inline void infertrace_trust_ticks(void) {
    infertrace_ticks.trusted = 1;
    infertrace_read_both(&infertrace_ticks);
}
#else
static inline int64_t infertrace_token_ns(void) {
    return infertrace_monotonic_ns();
}
static inline void infertrace_trust_ticks(void) {
}
#endif

#endif
