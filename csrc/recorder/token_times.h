/* When the tokens of one request came, and how far its input has been read.
 * infertrace.recording.pure_serving is its twin in Python.
 */
#ifndef INFERTRACE_TOKEN_TIMES_H
#define INFERTRACE_TOKEN_TIMES_H

#include <stdint.h>

#include "recorder/token_intervals.h"

/* Times are those of the spans' clock, in nanoseconds. What each token changes lies side by side: a
 * step with hundreds of members waits for memory more than for anything else.
 */
typedef struct {
    int64_t first_token;
    int64_t prefilled; /* tokens of input that steps have read so far */
    int64_t tokens;
    int64_t last_token, longest_interval;
    infertrace_intervals intervals;
} infertrace_token_times;

/* The bucket of the last interval: the members of a step have waited for the same step before. */
typedef struct {
    int64_t interval_ns;
    int32_t bucket;
} infertrace_known_bucket;

/* `count` tokens came together at `now`: one interval, since nobody waits between them. It is not
 * counted where the request's user gives a histogram (`counts_interval` is 0). -1 without memory.
 */
static inline int infertrace_add_tokens(infertrace_token_times *times, int64_t now, int64_t count,
                                        int counts_interval, infertrace_known_bucket *known) {
    int64_t interval;
    if (!count) return 0;
    if (!times->tokens) times->first_token = times->last_token = now;
    times->tokens += count;
    interval = now - times->last_token;
    if (interval <= 0) return 0;
    times->last_token = now;
    if (interval > times->longest_interval) times->longest_interval = interval;
    if (!counts_interval) return 0;
    if (interval != known->interval_ns) {
        known->interval_ns = interval;
        known->bucket = infertrace_bucket_of((uint64_t)interval);
    }
    return infertrace_count_in(&times->intervals, known->bucket, 1);
}

#endif
