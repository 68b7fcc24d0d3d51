/* CPU time and memory of this process, read by a thread without the GIL, with the GPU's sample.
 *
 * The twin of infertrace.resources.process. The encoded sample is published; the next
 * thread that ends a span picks it up.
 */
#ifndef INFERTRACE_PROCESS_SAMPLE_H
#define INFERTRACE_PROCESS_SAMPLE_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/atomics.h"
#include "common/wire_write.h"
#include "generated/resource_tags.h"
#include "recorder/gpu_page.h"
#include "recorder/gpu_sample.h"
#include "recorder/wakeup_pipe.h"

enum { INFERTRACE_NO_SAMPLE, INFERTRACE_NEW_SAMPLE, INFERTRACE_BUSY_SAMPLE };

#define INFERTRACE_SAMPLE_ROOM 320
/* A sample leaves out a GPU reading that is older than an interval by more than this. */
#define INFERTRACE_GPU_PATIENCE_NS 500000000

typedef struct {
    infertrace_wakeup_pipe wakeup;
    uint32_t state;
    uint32_t stopped;
    uint32_t *pending_work; /* nonzero: the thread that ends the next span has something to do */
    uint8_t metrics[INFERTRACE_SAMPLE_ROOM];
    size_t size;
    int64_t taken_at;
    infertrace_gpu_sample gpu;
} infertrace_process_sample;

#if defined(_WIN32)
static void infertrace_sample_process(infertrace_process_sample *sample, int64_t interval_ns,
                                      int64_t until, const infertrace_gpu_page *page) {
    (void)sample, (void)interval_ns, (void)until, (void)page;
}
#else
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

static int64_t infertrace_cpu_ns(void) {
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (int64_t)used.tv_sec * 1000000000LL + used.tv_nsec;
}

/* Resident memory in bytes, or -1. Source: proc(5), /proc/pid/statm: size, resident, ... in
 * pages. */
static int64_t infertrace_resident_bytes(int statm) {
    char text[256];
    char *second;
    ssize_t size = statm < 0 ? -1 : pread(statm, text, sizeof(text) - 1, 0);
    if (size <= 0) return -1;
    text[size] = '\0';
    second = strchr(text, ' ');
    return second ? strtoll(second, NULL, 10) * sysconf(_SC_PAGESIZE) : -1;
}

static uint8_t *infertrace_put_process(uint8_t *p, double cpu_percent, int64_t resident) {
    *p++ = INFERTRACE_CPU_UTILIZATION_PERCENT_TAG;
    p = wire_double(p, cpu_percent);
    if (resident >= 0) p = wire_uint(p, INFERTRACE_MEMORY_HEAP_BYTES_TAG, (uint64_t)resident);
    return p;
}

/* Encodes the fields in the order of infertrace.recording.encoder.resource_metrics. */
static void infertrace_put_sample(infertrace_process_sample *sample, double cpu_percent,
                                  int64_t resident, int64_t gpu_since) {
    uint8_t *end = sample->metrics;
    infertrace_gpu_sample *gpu = &sample->gpu;
    int has_gpu = infertrace_compare_exchange(&gpu->state, 0, 1);
    int fresh = has_gpu && gpu->taken_at > gpu_since;
    if (fresh) end = infertrace_put_gpu(end, gpu);
    end = infertrace_put_process(end, cpu_percent, resident);
    if (fresh) end = infertrace_put_gpu_power(end, gpu);
    if (has_gpu) infertrace_store_release(&gpu->state, 0);
    sample->size = (size_t)(end - sample->metrics);
}

/* The same with what the sender process has read of the GPU. */
static void infertrace_put_shared_sample(infertrace_process_sample *sample, double cpu_percent,
                                         int64_t resident, const infertrace_gpu_reading *gpu,
                                         int is_fresh) {
    uint8_t *end = sample->metrics;
    size_t before = is_fresh ? gpu->before_size : 0, after = is_fresh ? gpu->after_size : 0;
    memcpy(end, gpu->fields, before);
    end = infertrace_put_process(end + before, cpu_percent, resident);
    memcpy(end, gpu->fields + before, after);
    sample->size = (size_t)(end + after - sample->metrics);
}

/* Read at each interval until stopped, until the moment `until`, or until the page has other
 * devices. page: NULL where this process reads the GPU itself. */
static void infertrace_sample_process(infertrace_process_sample *sample, int64_t interval_ns,
                                      int64_t until, const infertrace_gpu_page *page) {
    infertrace_gpu_reading gpu = {0};
    int64_t last = infertrace_monotonic_ns(), last_used = infertrace_cpu_ns();
    int64_t due = last + interval_ns;
    int statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    while (!infertrace_load_acquire(&sample->stopped)) {
        int64_t now = infertrace_monotonic_ns();
        if (now >= due) {
            int64_t used = infertrace_cpu_ns(), resident = infertrace_resident_bytes(statm);
            double cpu_percent = 100.0 * (double)(used - last_used) / (double)(now - last);
            if (page) infertrace_read_gpu_page(page, &gpu);
            if (gpu.taken_at && gpu.generation != page->generation) break;
            if (infertrace_compare_exchange(&sample->state, INFERTRACE_NO_SAMPLE,
                                            INFERTRACE_BUSY_SAMPLE) ||
                infertrace_compare_exchange(&sample->state, INFERTRACE_NEW_SAMPLE,
                                            INFERTRACE_BUSY_SAMPLE)) {
                if (page)
                    infertrace_put_shared_sample(sample, cpu_percent, resident, &gpu,
                                                 infertrace_is_fresh(&gpu, page->max_age_ns));
                else
                    infertrace_put_sample(sample, cpu_percent, resident,
                                          now - interval_ns - INFERTRACE_GPU_PATIENCE_NS);
                sample->taken_at = now;
                infertrace_store_release(&sample->state, INFERTRACE_NEW_SAMPLE);
                infertrace_store_release(sample->pending_work, 1);
            }
            last = now, last_used = used;
            due = now + interval_ns;
        }
        if (now >= until) break;
        infertrace_wakeup_wait(&sample->wakeup, -1, due < until ? due : until);
    }
    if (statm >= 0) close(statm);
}
#endif

#endif
