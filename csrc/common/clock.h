/* The clocks that time.monotonic_ns() and time.time_ns() read, without a Python object. */
#ifndef INFERTRACE_CLOCK_H
#define INFERTRACE_CLOCK_H

#include <stdint.h>

#if defined(_WIN32)
#include <windows.h>
static inline int64_t infertrace_monotonic_ns(void) {
    static LARGE_INTEGER frequency; /* ticks per second, fixed at boot */
    LARGE_INTEGER ticks;
    if (!frequency.QuadPart) QueryPerformanceFrequency(&frequency);
    QueryPerformanceCounter(&ticks);
    /* Split, because ticks * 1e9 overflows after minutes. */
    return ticks.QuadPart / frequency.QuadPart * 1000000000LL +
           ticks.QuadPart % frequency.QuadPart * 1000000000LL / frequency.QuadPart;
}
#elif defined(__APPLE__)
#include <time.h>
static inline int64_t infertrace_monotonic_ns(void) {
    return (int64_t)clock_gettime_nsec_np(CLOCK_UPTIME_RAW);
}
#else
#include <time.h>
static inline int64_t infertrace_monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000LL + now.tv_nsec;
}
#endif

/* The wall clock, nanoseconds since 1970. */
static inline int64_t infertrace_wall_ns(void) {
#if defined(_WIN32)
    FILETIME now; /* in units of 100 ns since 1601 */
    GetSystemTimePreciseAsFileTime(&now);
    return (((int64_t)now.dwHighDateTime << 32 | now.dwLowDateTime) - 116444736000000000LL) * 100;
#else
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000LL + now.tv_nsec;
#endif
}

#endif
