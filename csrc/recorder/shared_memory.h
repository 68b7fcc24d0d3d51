/* Memory for finished spans that the sender process maps too: what a process leaves there when it
 * dies, in whatever way, the sender delivers.
 *
 * src/infertrace/buffering/left_memory.py reads it, and has the format. Whoever writes holds the
 * GIL. The process may be killed between any two stores, so each change becomes visible by one of
 * them: a span by `used` of its slot, a settled batch by `active`.
 */
#ifndef INFERTRACE_SHARED_MEMORY_H
#define INFERTRACE_SHARED_MEMORY_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/atomics.h"

#define INFERTRACE_SHARED_MAGIC "ITSHARE\1"
#define INFERTRACE_SHARED_REASONS 8
/* For the resource; the header's other members are in the first page. */
#define INFERTRACE_RESOURCE_ROOM 16384

/* A run of encoded spans. */
typedef struct {
    uint64_t first_sequence; /* the number of the first span; 0: not in use */
    int64_t used;            /* bytes of whole spans */
    int64_t span_count;
    uint64_t place; /* of the first byte in the memory; 0: it is in memory of the process's own */
} infertrace_slot;

/* What became of the spans so far. */
typedef struct {
    uint64_t delivered;
    uint64_t settled; /* delivered, or dropped after they had got a number */
    uint64_t dropped[INFERTRACE_SHARED_REASONS];
    /* These spans are settled, although their slot may not say so yet. */
    uint64_t last_settled, last_settled_count;
} infertrace_account;

typedef struct {
    char magic[8];
    uint32_t header_bytes, slot_count;
    uint64_t slot_bytes;
    uint8_t producer_id[16];
    uint64_t batch_sequence;
    uint64_t next_sequence; /* of the span that ends next */
    uint32_t resource_bytes;
    uint32_t active; /* which account counts */
    infertrace_account accounts[2];
} infertrace_shared_header;

typedef struct {
    infertrace_shared_header *header;
    infertrace_slot *slots;
    uint8_t *taken;               /* by slot */
    size_t low;                   /* no slot below this one is free */
    size_t size;                  /* of the memory, bytes */
    int descriptor;               /* -1: nothing is shared, and there are no slots */
    infertrace_shared_header own; /* in its place then */
} infertrace_memory;

static inline infertrace_account *infertrace_account_of(infertrace_shared_header *header) {
    return &header->accounts[header->active];
}

/* The compiler keeps the order of the stores before this and after it; the processor does. */
static inline void infertrace_keep_order(void) {
#if defined(__GNUC__) || defined(__clang__)
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
#endif
}

/* Count a settled run of spans, all in one store. */
static void infertrace_settle_account(infertrace_shared_header *header, uint64_t first,
                                      uint64_t span_count, uint64_t delivered, int reason) {
    infertrace_account next = *infertrace_account_of(header);
    uint32_t other = 1 - header->active;
    next.delivered += delivered;
    next.settled += span_count;
    next.dropped[reason] += span_count - delivered;
    next.last_settled = first;
    next.last_settled_count = span_count;
    header->accounts[other] = next;
    infertrace_keep_order();
    infertrace_store_release(&header->active, other);
    infertrace_keep_order();
}

static void infertrace_share_nothing(infertrace_memory *memory) {
    memset(memory, 0, sizeof *memory);
    memory->header = &memory->own;
    memory->descriptor = -1;
    memory->own.next_sequence = 1;
}

#if defined(_WIN32)
static int infertrace_share(infertrace_memory *memory, size_t slot_bytes, size_t slot_count) {
    (void)memory, (void)slot_bytes, (void)slot_count;
    return -ENOSYS;
}
static void infertrace_unshare(infertrace_memory *memory) {
    infertrace_share_nothing(memory);
}
static void infertrace_give_pages_back(const infertrace_memory *memory, size_t slot) {
    (void)memory, (void)slot;
}
#else
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/syscall.h>
#ifndef MFD_CLOEXEC
#define MFD_CLOEXEC 1U
#define MFD_ALLOW_SEALING 2U
#endif
#ifndef F_ADD_SEALS
#define F_ADD_SEALS 1033
#define F_SEAL_SHRINK 2
#define F_SEAL_GROW 4
#endif
#endif
#ifndef MAP_ANONYMOUS
#define MAP_ANONYMOUS MAP_ANON
#endif

enum {
    INFERTRACE_MAX_MEMORIES = 256, /* a tracer has one; more than these share nothing */
    INFERTRACE_WARM_SLOTS = 4      /* keep their pages while nothing is in them */
};

/* What a forked child must not write to. Changed with the GIL held. */
static struct {
    void *volatile start;
    size_t size;
} infertrace_memories[INFERTRACE_MAX_MEMORIES];

/* Runs in a forked child before any other code. It replaces what was shared with private zeros.
 * Its tracer starts anew anyway, with another memory. */
static void infertrace_leave_memories_to_parent(void) {
    int slot;
    for (slot = 0; slot < INFERTRACE_MAX_MEMORIES; slot++)
        if (infertrace_memories[slot].start)
            mmap(infertrace_memories[slot].start, infertrace_memories[slot].size,
                 PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

static int infertrace_open_memory(void) {
#if defined(__linux__)
    return (int)syscall(SYS_memfd_create, "infertrace spans", MFD_CLOEXEC | MFD_ALLOW_SEALING);
#else
    char name[32];
    static unsigned number;
    int descriptor;
    snprintf(name, sizeof name, "/infertrace-%d-%u", (int)getpid(), number++);
    descriptor = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (descriptor >= 0) {
        shm_unlink(name);
        fcntl(descriptor, F_SETFD, FD_CLOEXEC);
    }
    return descriptor;
#endif
}

/* Share memory for `slot_count` runs of spans of `slot_bytes`, whole pages, each; 0, or a negative
 * errno. What has been counted so far is kept. */
static int infertrace_share(infertrace_memory *memory, size_t slot_bytes, size_t slot_count) {
    static int is_prepared;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), size;
    size_t header_bytes = sizeof(infertrace_shared_header) + slot_count * sizeof(infertrace_slot) +
                          INFERTRACE_RESOURCE_ROOM;
    int entry = 0, descriptor, outcome;
    uint8_t *taken;
    void *start;
    while (entry < INFERTRACE_MAX_MEMORIES && infertrace_memories[entry].start)
        entry++;
    if (entry == INFERTRACE_MAX_MEMORIES) return -EMFILE;
    if (!is_prepared && pthread_atfork(NULL, NULL, infertrace_leave_memories_to_parent))
        return -ENOMEM;
    is_prepared = 1;
    header_bytes = (header_bytes + page - 1) / page * page;
    size = header_bytes + slot_count * slot_bytes;
    taken = calloc(slot_count, 1);
    if (!taken) return -ENOMEM;
    descriptor = infertrace_open_memory();
    if (descriptor < 0 || ftruncate(descriptor, (off_t)size)) goto failed;
#if defined(__linux__)
    /* Nobody can take away a page that a span is about to be written to. */
    if (fcntl(descriptor, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW)) goto failed;
#endif
    start = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (start == MAP_FAILED) goto failed;
    infertrace_memories[entry].size = size;
    infertrace_memories[entry].start = start;
    memcpy(start, memory->header, sizeof(*memory->header));
    memory->header = start;
    memory->slots = (infertrace_slot *)(memory->header + 1);
    memory->taken = taken;
    memory->low = 0;
    memory->size = size;
    memory->descriptor = descriptor;
    memory->header->header_bytes = (uint32_t)header_bytes;
    memory->header->slot_count = (uint32_t)slot_count;
    memory->header->slot_bytes = slot_bytes;
    memcpy(memory->header->magic, INFERTRACE_SHARED_MAGIC, sizeof(memory->header->magic));
    return 0;
failed:
    outcome = errno ? -errno : -EIO;
    free(taken);
    if (descriptor >= 0) close(descriptor);
    return outcome;
}

/* Share nothing any more; what was counted is forgotten. */
static void infertrace_unshare(infertrace_memory *memory) {
    int entry;
    if (memory->descriptor >= 0) {
        for (entry = 0; entry < INFERTRACE_MAX_MEMORIES; entry++)
            if (infertrace_memories[entry].start == (void *)memory->header)
                infertrace_memories[entry].start = NULL;
        munmap(memory->header, memory->size);
        close(memory->descriptor);
        free(memory->taken);
    }
    infertrace_share_nothing(memory);
}

/* Free pages that an outage filled, and that nothing will fill again soon. */
static void infertrace_give_pages_back(const infertrace_memory *memory, size_t slot) {
#if defined(MADV_REMOVE)
    if (slot >= INFERTRACE_WARM_SLOTS)
        madvise((uint8_t *)memory->header + memory->header->header_bytes +
                    slot * memory->header->slot_bytes,
                memory->header->slot_bytes, MADV_REMOVE);
#else
    (void)memory, (void)slot;
#endif
}
#endif

/* The first of `count` free slots in a row, which are taken then; NULL without such. */
static infertrace_slot *infertrace_take_slots(infertrace_memory *memory, size_t count) {
    size_t total = memory->descriptor < 0 ? 0 : memory->header->slot_count, slot, run = 0;
    for (slot = memory->low; slot < total; slot++) {
        run = memory->taken[slot] ? 0 : run + 1;
        if (run == count) {
            size_t first = slot + 1 - count;
            infertrace_slot *found = memory->slots + first;
            memset(memory->taken + first, 1, count);
            if (first == memory->low) memory->low = slot + 1;
            found->used = found->span_count = 0;
            found->place = memory->header->header_bytes + first * memory->header->slot_bytes;
            return found;
        }
    }
    return NULL;
}

static void infertrace_free_slots(infertrace_memory *memory, infertrace_slot *first, size_t count) {
    size_t slot = (size_t)(first - memory->slots), number;
    first->first_sequence = 0;
    for (number = slot; number < slot + count; number++) {
        memory->taken[number] = 0;
        infertrace_give_pages_back(memory, number);
    }
    if (slot < memory->low) memory->low = slot;
}

static void infertrace_set_resource(infertrace_memory *memory, const uint8_t *producer_id,
                                    const void *resource, size_t size) {
    infertrace_shared_header *header = memory->header;
    uint8_t *room = (uint8_t *)(memory->slots + header->slot_count);
    if (memory->descriptor < 0 || size > INFERTRACE_RESOURCE_ROOM) return;
    memcpy(header->producer_id, producer_id, sizeof(header->producer_id));
    header->resource_bytes = 0;
    infertrace_keep_order();
    memcpy(room, resource, size);
    infertrace_keep_order();
    header->resource_bytes = (uint32_t)size;
}

#endif
