/* The delivery loop: sends batches to the sender process, one at a time, without the GIL.
 *
 * Taking the GIL from a traced loop and giving it back delays a step of that loop by two thread
 * switches. So the exporter's thread only waits, writes and reads here. A thread that has the GIL
 * anyway, the one that ends a span, does whatever touches the buffer or the ledger.
 *
 *  Moves by [L] the loop, without the GIL; [S] a thread with the GIL, mostly one that ends a span;
 *  [X] the exporter's thread, with the GIL, as it enters the loop and after it has left it.
 *
 *                [X] enters              [L] the interval is over
 *       ABSENT -------------> IDLE -----------------------------> WANTED
 *         ^                   ^  |                                   |
 *         |                   |  | [S] a full batch                  | [S] any batch
 *         |  [S] has counted  |  +--------------> FILLED <-----------+
 *         |  the batch        |                  |      |
 *         |                   |     [L] all of   |      | [L] not all accepted,
 *         |                   |     it accepted  |      | or no answer
 *         |                   +---- ANSWERED <---+      +----> FAILED
 *         |
 *         +---- [X] leaves, from any state: has counted a batch that was ANSWERED, and takes back
 *               one that FAILED, or that was FILLED after the loop had looked for the last time
 *
 *  field                                  written                        read
 *  -------------------------------------  -----------------------------  ------------------------
 *  state                                  as above, atomically           by all
 *  request.timeout_s, resource,           [X] in ABSENT                  [L] in FILLED,
 *    resource_size                                                       [S] in IDLE, WANTED
 *  request.size, request.span_count,      [S] in IDLE or WANTED, or [X]  [L] in FILLED
 *    payload, payload_size,               as it enters; published by
 *    trailer, trailer_size                the store of FILLED
 *  answer, answer_size                    [L] in FILLED                  [X] in FAILED
 *  interrupted                            set by any thread, atomically; [L]
 *                                         cleared by [X] as it leaves
 *  *pending_work                          set by [L], and by samplers;   [S]
 *                                         cleared by [S]; atomically
 *  wakeup                                 opened by [X] in ABSENT        [L]; notified by all
 *
 *  Of the buffer (buffer.pxi), under the GIL: `handed` is the segment that owns `payload`, from
 *  before FILLED until the batch has been counted or taken back. `abandoned` says that a shutdown
 *  has counted that segment as dropped, so nobody counts it again.
 */
#ifndef INFERTRACE_DELIVERY_LOOP_H
#define INFERTRACE_DELIVERY_LOOP_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/atomics.h"
#include "recorder/roundtrip.h"
#include "recorder/wakeup_pipe.h"

enum {
    INFERTRACE_ABSENT,   /* no thread is in the loop */
    INFERTRACE_IDLE,     /* the loop waits for a full batch */
    INFERTRACE_WANTED,   /* the loop waits for any batch */
    INFERTRACE_FILLED,   /* the loop has a batch, and sends it */
    INFERTRACE_ANSWERED, /* the collector accepted all of it; nobody has counted it yet */
    INFERTRACE_FAILED    /* the collector accepted none or a part of it, or did not answer */
};

/* delivery_loop.pxi checks at import that a trailer with every drop reason fits. */
#define INFERTRACE_TRAILER_ROOM 256
#define INFERTRACE_ANSWER_ROOM 8192
/* How long the loop waits for a thread that ends a span before it takes the GIL itself, which does
 * not hold up a traced program that has been idle for that long. */
#define INFERTRACE_PATIENCE_NS 20000000

/* The head of a frame; the twin of infertrace.exporting.link. */
struct infertrace_request {
    uint64_t size;
    double timeout_s;
    int64_t span_count;
    uint32_t kind; /* zero here, link.Kind.SEND: this loop sends nothing but batches */
    uint32_t zero;
};

typedef struct {
    infertrace_wakeup_pipe wakeup;
    uint32_t state;
    uint32_t interrupted;
    uint32_t *pending_work; /* nonzero: the thread that ends the next span has something to do */
    struct infertrace_request request;
    const char *payload, *resource;
    size_t payload_size, resource_size;
    uint8_t trailer[INFERTRACE_TRAILER_ROOM];
    size_t trailer_size;
    ptrdiff_t answer_size; /* or a negative errno */
    char answer[INFERTRACE_ANSWER_ROOM];
} infertrace_delivery;

/* Where requests go, and how to read their answers. */
typedef struct {
    int fd;
    size_t head, size_at; /* of infertrace_roundtrip() */
    int64_t timeout_ns;
} infertrace_link;

#if INFERTRACE_HAS_ROUNDTRIP
/* "=BqqdI": kind 0 means accepted, then how many spans. */
static int infertrace_all_accepted(const infertrace_delivery *delivery) {
    int64_t accepted;
    if (delivery->answer_size < 1 + (ptrdiff_t)sizeof(accepted) || delivery->answer[0]) return 0;
    memcpy(&accepted, delivery->answer + 1, sizeof(accepted));
    return accepted == delivery->request.span_count;
}

static int infertrace_send_batch(infertrace_delivery *delivery, const infertrace_link *link) {
    struct iovec parts[4] = {
        {&delivery->request, sizeof(delivery->request)},
        {(void *)delivery->payload, delivery->payload_size},
        {delivery->trailer, delivery->trailer_size},
        {(void *)delivery->resource, delivery->resource_size},
    };
    delivery->answer_size = infertrace_roundtrip(link->fd, parts, 4, delivery->answer,
                                                 INFERTRACE_ANSWER_ROOM, link->head, link->size_at,
                                                 infertrace_monotonic_ns() + link->timeout_ns);
    return infertrace_all_accepted(delivery);
}

/* Send each batch that is handed over, and ask for one at each interval. Returns on an error, on an
 * interrupt, when no span ends within the patience, or at `until`. Returns 1 if the sender process
 * has exited. */
static int infertrace_run_delivery_loop(infertrace_delivery *delivery, const infertrace_link *link,
                                        int64_t interval_ns, int64_t until) {
    int64_t due = infertrace_monotonic_ns() + interval_ns;
    int64_t patient_until = 0;
    for (;;) {
        uint32_t state = infertrace_load_acquire(&delivery->state);
        int64_t now = infertrace_monotonic_ns(), wait_until = due < until ? due : until;
        if (state == INFERTRACE_FILLED) {
            int whole = infertrace_send_batch(delivery, link);
            infertrace_store_release(&delivery->state,
                                     whole ? INFERTRACE_ANSWERED : INFERTRACE_FAILED);
            if (!whole) return 0;
            infertrace_store_release(delivery->pending_work, 1);
            patient_until = infertrace_monotonic_ns() + INFERTRACE_PATIENCE_NS;
            continue;
        }
        if (infertrace_load_acquire(&delivery->interrupted) || now >= until) return 0;
        if (state == INFERTRACE_IDLE) {
            if (now >= due) {
                due = now + interval_ns;
                patient_until = now + INFERTRACE_PATIENCE_NS;
                /* Fails if a thread hands over a full batch at this moment. */
                if (infertrace_compare_exchange(&delivery->state, INFERTRACE_IDLE,
                                                INFERTRACE_WANTED))
                    infertrace_store_release(delivery->pending_work, 1);
                continue;
            }
        } else {
            if (now >= patient_until) return 0;
            wait_until = patient_until;
        }
        /* The sender never speaks first: a readable socket means that it has exited. */
        if (infertrace_wakeup_wait(&delivery->wakeup, link->fd, wait_until)) return 1;
    }
}
#else
static int infertrace_run_delivery_loop(infertrace_delivery *delivery, const infertrace_link *link,
                                        int64_t interval_ns, int64_t until) {
    (void)delivery, (void)link, (void)interval_ns, (void)until;
    return 0;
}
#endif

#endif
