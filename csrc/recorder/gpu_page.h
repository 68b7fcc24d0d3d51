/* What the sender process has read of a GPU, from the page that it shares with its clients.
 *
 * src/infertrace/resources/gpu_page.py writes it, and has the format. It is read by a system call,
 * not mapped: a call a second costs nothing, and a descriptor is easy to let go of.
 */
#ifndef INFERTRACE_GPU_PAGE_H
#define INFERTRACE_GPU_PAGE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/clock.h"
#include "common/crc32.h"

#define INFERTRACE_GPU_FIELDS_ROOM 232

typedef struct {
    uint32_t checksum; /* CRC-32 of the rest, up to the end of the fields */
    uint32_t generation;
    int64_t taken_at; /* monotonic nanoseconds; 0: not read yet */
    uint16_t before_size, after_size;
    uint32_t zero;
    uint8_t fields[INFERTRACE_GPU_FIELDS_ROOM]; /* encoded: before the process's, and after */
} infertrace_gpu_reading;

typedef struct {
    int descriptor;
    int64_t place; /* of the device's reading in the page, bytes */
    uint32_t generation;
    int64_t max_age_ns;
} infertrace_gpu_page;

#if !defined(_WIN32)
#include <unistd.h>

/* One that is written just now, or that its writer left unfinished, is told by its checksum; then
 * the last one stays. */
static void infertrace_read_gpu_page(const infertrace_gpu_page *page,
                                     infertrace_gpu_reading *reading) {
    const size_t head = offsetof(infertrace_gpu_reading, generation);
    infertrace_gpu_reading found;
    int attempt;
    for (attempt = 0; attempt < 3; attempt++) {
        size_t size;
        if (pread(page->descriptor, &found, sizeof found, (off_t)page->place) !=
            (ssize_t)sizeof found)
            return;
        size = (size_t)found.before_size + found.after_size;
        if (size > INFERTRACE_GPU_FIELDS_ROOM) continue;
        size += offsetof(infertrace_gpu_reading, fields) - head;
        if (infertrace_crc32((const uint8_t *)&found + head, size, 0) != found.checksum) continue;
        *reading = found;
        return;
    }
}

static int infertrace_is_fresh(const infertrace_gpu_reading *reading, int64_t max_age_ns) {
    int64_t age = infertrace_monotonic_ns() - reading->taken_at;
    return reading->taken_at > 0 && age >= 0 && age <= max_age_ns;
}
#endif

#endif
