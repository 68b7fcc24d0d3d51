/* Wakes a thread that waits without the GIL.
 *
 * A pipe, so that the thread can wait for a socket as well, and so that a signal handler or a
 * finalizer may ring it wherever it interrupts. POSIX only.
 */
#ifndef INFERTRACE_BELL_H
#define INFERTRACE_BELL_H

#include <errno.h>
#include <stdint.h>

#include "common/clock.h"

typedef struct {
    int listening, ringing; /* descriptors, of no meaning unless `hung` */
    int hung;
} infertrace_bell;

#if defined(_WIN32)
static int infertrace_bell_hang(infertrace_bell *bell) {
    (void)bell;
    return -ENOSYS;
}
static void infertrace_bell_remove(infertrace_bell *bell) { (void)bell; }
static void infertrace_bell_ring(infertrace_bell *bell) { (void)bell; }
#else
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

/* See that it can be rung; 0, or a negative errno. */
static int infertrace_bell_hang(infertrace_bell *bell) {
    int ends[2], number;
    if (bell->hung) return 0;
    if (pipe(ends)) return -errno;
    for (number = 0; number < 2; number++) {
        fcntl(ends[number], F_SETFD, FD_CLOEXEC);
        fcntl(ends[number], F_SETFL, O_NONBLOCK);
    }
    bell->listening = ends[0];
    bell->ringing = ends[1];
    bell->hung = 1;
    return 0;
}

static void infertrace_bell_remove(infertrace_bell *bell) {
    if (!bell->hung) return;
    bell->hung = 0;
    close(bell->listening);
    close(bell->ringing);
}

static void infertrace_bell_ring(infertrace_bell *bell) {
    /* What is not written for want of room finds the bell ringing already. */
    if (bell->hung && write(bell->ringing, "", 1) < 0) return;
}

/* Wait until it rings, until that moment, or until something happens to the descriptor (-1 for
 * none), which returns 1. Needs no GIL. */
static int infertrace_bell_wait(const infertrace_bell *bell, int descriptor, int64_t until) {
    struct pollfd waited[2] = {{bell->listening, POLLIN, 0}, {descriptor, POLLIN, 0}};
    /* Rounded up, or the last millisecond would be waited for in a circle. */
    int64_t left_ms = (until - infertrace_monotonic_ns() + 999999) / 1000000;
    char rung[64];
    if (left_ms > 60000) left_ms = 60000;
    if (poll(waited, 2, left_ms > 0 ? (int)left_ms : 0) <= 0) return 0;
    if (waited[0].revents)
        while (read(bell->listening, rung, sizeof(rung)) == (int)sizeof(rung)) continue;
    return waited[1].revents != 0;
}
#endif

/* What a thread without the GIL and those with it tell one another. */
#if defined(__GNUC__) || defined(__clang__)
static inline uint32_t infertrace_read(const uint32_t *word) {
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}
static inline void infertrace_write(uint32_t *word, uint32_t value) {
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}
/* Whether it was `from`, and is `to` now. */
static inline int infertrace_change(uint32_t *word, uint32_t from, uint32_t to) {
    return __atomic_compare_exchange_n(word, &from, to, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}
#else /* no such threads */
static inline uint32_t infertrace_read(const uint32_t *word) { return *word; }
static inline void infertrace_write(uint32_t *word, uint32_t value) { *word = value; }
static inline int infertrace_change(uint32_t *word, uint32_t from, uint32_t to) {
    if (*word != from) return 0;
    *word = to;
    return 1;
}
#endif

#endif
