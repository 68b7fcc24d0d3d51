/* One batch at a time, handed to the exporter's thread while that thread is without the GIL.
 *
 * To take the GIL from a traced loop and to give it back holds a step of that loop up for two
 * switches of threads. So the thread only waits, writes and reads; what touches the buffer or
 * the ledger is done by who has the GIL anyway: the traced thread, at the end of a span.
 */
#ifndef INFERTRACE_HANDOFF_H
#define INFERTRACE_HANDOFF_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "recorder/bell.h"
#include "recorder/exchange.h"

enum {
    INFERTRACE_ABSENT,   /* no thread attends: who has the GIL wakes it */
    INFERTRACE_IDLE,     /* waits for a batch */
    INFERTRACE_WANTED,   /* waits for what there is: the interval is over */
    INFERTRACE_FILLED,   /* has a batch; the thread's own until it changes this */
    INFERTRACE_ANSWERED, /* all of it was accepted, and waits to be counted */
    INFERTRACE_FAILED    /* it was not, or not all of it; the thread comes with it */
};

#define INFERTRACE_TRAILER_ROOM 256
#define INFERTRACE_ANSWER_ROOM 8192
/* An idle traced loop is not held up by a thread that takes the GIL after so long. */
#define INFERTRACE_PATIENCE_NS 20000000

/* As infertrace.exporting.link describes it. */
struct infertrace_request {
    uint64_t size;
    double timeout_s;
    int64_t span_count;
};

typedef struct {
    infertrace_bell bell;
    uint32_t state;
    uint32_t interrupted;
    uint32_t *attention; /* set where who ends the next span has something to do */
    struct infertrace_request request;
    const char *payload, *resource;
    size_t payload_size, resource_size;
    uint8_t trailer[INFERTRACE_TRAILER_ROOM];
    size_t trailer_size;
    /* The answer to it, or a negative errno for its size. */
    ptrdiff_t answer_size;
    char answer[INFERTRACE_ANSWER_ROOM];
} infertrace_handoff;

/* How a request is sent and its answer read. */
typedef struct {
    int descriptor;
    size_t head, size_at;
    int64_t timeout_ns;
} infertrace_sending;

#if INFERTRACE_HAS_EXCHANGE
/* "=BqqdI": kind 0 is accepted, then how many. */
static int infertrace_all_accepted(const infertrace_handoff *handoff) {
    int64_t accepted;
    if (handoff->answer_size < 1 + (ptrdiff_t)sizeof(accepted) || handoff->answer[0]) return 0;
    memcpy(&accepted, handoff->answer + 1, sizeof(accepted));
    return accepted == handoff->request.span_count;
}

static int infertrace_send_batch(infertrace_handoff *handoff, const infertrace_sending *sending) {
    struct iovec parts[4] = {
        {&handoff->request, sizeof(handoff->request)},
        {(void *)handoff->payload, handoff->payload_size},
        {handoff->trailer, handoff->trailer_size},
        {(void *)handoff->resource, handoff->resource_size},
    };
    handoff->answer_size = infertrace_exchange(
        sending->descriptor, parts, 4, handoff->answer, INFERTRACE_ANSWER_ROOM, sending->head,
        sending->size_at, infertrace_monotonic_ns() + sending->timeout_ns);
    return infertrace_all_accepted(handoff);
}

/* Send what is handed over, and ask for what there is at each interval. Returns when something
 * is wrong, when it was interrupted, when nobody takes notice, or at the moment `until`; 1 where
 * the sender has ended. */
static int infertrace_attend(infertrace_handoff *handoff, const infertrace_sending *sending,
                             int64_t interval_ns, int64_t until) {
    int64_t due = infertrace_monotonic_ns() + interval_ns;
    int64_t patient_until = 0;
    for (;;) {
        uint32_t state = infertrace_read(&handoff->state);
        int64_t now = infertrace_monotonic_ns(), wait_until = due < until ? due : until;
        if (state == INFERTRACE_FILLED) {
            int whole = infertrace_send_batch(handoff, sending);
            infertrace_write(&handoff->state, whole ? INFERTRACE_ANSWERED : INFERTRACE_FAILED);
            if (!whole) return 0;
            infertrace_write(handoff->attention, 1);
            patient_until = infertrace_monotonic_ns() + INFERTRACE_PATIENCE_NS;
            continue;
        }
        if (infertrace_read(&handoff->interrupted) || now >= until) return 0;
        if (state == INFERTRACE_IDLE) {
            if (now >= due) {
                due = now + interval_ns;
                patient_until = now + INFERTRACE_PATIENCE_NS;
                if (infertrace_change(&handoff->state, INFERTRACE_IDLE, INFERTRACE_WANTED))
                    infertrace_write(handoff->attention, 1);
                continue;
            }
        } else {
            if (now >= patient_until) return 0;
            wait_until = patient_until;
        }
        /* The sender says nothing of its own accord: it has ended, or was told to. */
        if (infertrace_bell_wait(&handoff->bell, sending->descriptor, wait_until)) return 1;
    }
}
#else
static int infertrace_attend(infertrace_handoff *handoff, const infertrace_sending *sending,
                             int64_t interval_ns, int64_t until) {
    (void)handoff, (void)sending, (void)interval_ns, (void)until;
    return 0;
}
#endif

#endif
