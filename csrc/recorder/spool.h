/* The ring of a spool file: records of finished spans, in memory that outlives the process.
 *
 * src/infertrace/buffering/spool_file.py describes the format; spool_writer.py is the twin of
 * this writer. It stores the commit word last, so a record is either complete or absent,
 * whenever the process is killed.
 */
#ifndef INFERTRACE_SPOOL_H
#define INFERTRACE_SPOOL_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/crc32.h"
#include "recorder/guarded_map.h"

#define INFERTRACE_SPOOL_COMMITTED 0x17F7ACE5u
#define INFERTRACE_SPOOL_WRAP 0x17F7ACE6u
#define INFERTRACE_SPOOL_REASONS 8

typedef struct {
    char magic[8];
    uint32_t seed;
    uint32_t header_bytes;
    uint8_t producer_id[16];
    uint64_t capacity; /* bytes of the ring, a multiple of 8 */
    uint64_t settled_sequence;
    uint64_t head; /* position of the first record that is not settled; never wraps */
    uint64_t last_sequence;
    uint64_t batch_sequence;
    uint64_t dropped[INFERTRACE_SPOOL_REASONS];
} infertrace_spool_header;

typedef struct {
    uint32_t commit;
    uint32_t checksum; /* CRC-32, from the seed, of all that follows */
    uint64_t sequence;
    uint32_t size; /* of the span, which follows, padded to 8 */
    uint32_t zero;
} infertrace_spool_record;

typedef struct {
    infertrace_spool_header *header;
    uint8_t *ring;
    uint64_t capacity, head, tail;
    uint32_t seed;
} infertrace_spool;

/* Map a new spool, whose header is already written; 0, or a negative errno. */
static int infertrace_spool_map(infertrace_spool *spool, int descriptor, size_t header_bytes,
                                size_t size) {
    uint8_t *start;
    int outcome = infertrace_map_guarded(descriptor, size, (void **)&start);
    if (outcome) return outcome;
    spool->header = (infertrace_spool_header *)start;
    spool->ring = start + header_bytes;
    spool->capacity = size - header_bytes;
    spool->head = spool->tail = 0;
    spool->seed = spool->header->seed;
    return 0;
}

static void infertrace_spool_unmap(infertrace_spool *spool) {
    infertrace_unmap_guarded(spool->header);
}

static inline uint64_t infertrace_spool_room(uint64_t size) {
    return sizeof(infertrace_spool_record) + ((size + 7) & ~(uint64_t)7);
}

static inline void infertrace_commit(uint32_t *word, uint32_t value) {
#if defined(__GNUC__) || defined(__clang__)
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
#else
    *(volatile uint32_t *)word = value;
#endif
}

/* Append a span; 0 if the ring has no room for it. */
static int infertrace_spool_append(infertrace_spool *spool, const uint8_t *span, size_t size,
                                   uint64_t sequence) {
    uint64_t room = infertrace_spool_room(size);
    uint64_t place = spool->tail % spool->capacity;
    uint64_t rest = spool->capacity - place;
    uint64_t skipped = rest < room ? rest : 0;
    infertrace_spool_record *record;
    if (spool->tail + skipped + room - spool->head > spool->capacity) return 0;
    if (skipped) {
        if (rest >= sizeof(*record))
            infertrace_commit((uint32_t *)(spool->ring + place), INFERTRACE_SPOOL_WRAP);
        spool->tail += skipped;
        place = 0;
    }
    record = (infertrace_spool_record *)(spool->ring + place);
    infertrace_commit(&record->commit, 0);
    record->sequence = sequence;
    record->size = (uint32_t)size;
    record->zero = 0;
    memcpy(record + 1, span, size);
    record->checksum = infertrace_crc32((const uint8_t *)&record->sequence, 16 + size, spool->seed);
    infertrace_commit(&record->commit, INFERTRACE_SPOOL_COMMITTED);
    spool->header->last_sequence = sequence;
    spool->tail += room;
    return 1;
}

/* Release the spans up to this one; the rest of the ring begins at `end`. */
static void infertrace_spool_settle_to(infertrace_spool *spool, uint64_t sequence, uint64_t end) {
    spool->head = end;
    /* In this order: a reader skips the records that the sequence marks as settled. */
    spool->header->settled_sequence = sequence;
    spool->header->head = end;
}

/* The same, but search for the end. */
static void infertrace_spool_settle(infertrace_spool *spool, uint64_t sequence) {
    while (spool->head < spool->tail) {
        uint64_t place = spool->head % spool->capacity;
        uint64_t rest = spool->capacity - place;
        const infertrace_spool_record *record;
        record = (const infertrace_spool_record *)(spool->ring + place);
        if (rest < sizeof(*record) || record->commit == INFERTRACE_SPOOL_WRAP) {
            spool->head += rest;
            continue;
        }
        if (record->commit != INFERTRACE_SPOOL_COMMITTED) {
            /* Another process has truncated the file: its records are gone, so make room. */
            spool->head = spool->tail;
            break;
        }
        if (record->sequence > sequence) break;
        spool->head += infertrace_spool_room(record->size);
    }
    infertrace_spool_settle_to(spool, sequence, spool->head);
}

#endif
