/* GPU readings through NVML, by a thread without the GIL.
 *
 * pynvml has loaded the library, found the device, and knows which values it offers; this file
 * only makes the calls of each interval. Signatures and structures are those of nvml.h.
 */
#ifndef INFERTRACE_GPU_SAMPLE_H
#define INFERTRACE_GPU_SAMPLE_H

#include <stdint.h>
#include <string.h>

#include "common/atomics.h"
#include "common/wire_write.h"
#include "generated/resource_tags.h"
#include "recorder/wakeup_pipe.h"

#define INFERTRACE_GPU_IDENTITY_ROOM 128

typedef struct {
    unsigned int gpu, memory; /* percent */
} infertrace_gpu_rates;

typedef struct {
    unsigned long long total, free, used; /* bytes */
} infertrace_gpu_memory;

/* NULL for a value that the device does not offer. Each function returns 0 on success. */
typedef struct {
    void *device;
    int (*rates)(void *device, infertrace_gpu_rates *rates);
    int (*memory)(void *device, infertrace_gpu_memory *memory);
    int (*power)(void *device, unsigned int *milliwatts);
    int (*temperature)(void *device, int sensor, unsigned int *celsius);
} infertrace_gpu_queries;

typedef struct {
    infertrace_wakeup_pipe wakeup;
    uint32_t state; /* 1 while a thread writes or reads the fields below */
    uint32_t stopped;
    int64_t taken_at;            /* 0 for never */
    infertrace_gpu_queries told; /* the queries that gave the values below */
    infertrace_gpu_rates rates;
    infertrace_gpu_memory memory;
    unsigned int milliwatts, celsius;
    uint8_t identity[INFERTRACE_GPU_IDENTITY_ROOM]; /* an encoded field */
    size_t identity_size;
} infertrace_gpu_sample;

#if defined(_WIN32)
static void infertrace_sample_gpu(infertrace_gpu_sample *sample,
                                  const infertrace_gpu_queries *queries, int64_t interval_ns,
                                  int64_t until) {
    (void)sample, (void)queries, (void)interval_ns, (void)until;
}
#else
/* Read at each interval until stopped, until the moment `until`, or until a query fails. */
static void infertrace_sample_gpu(infertrace_gpu_sample *sample,
                                  const infertrace_gpu_queries *queries, int64_t interval_ns,
                                  int64_t until) {
    int64_t now = infertrace_monotonic_ns(), due = now;
    while (!infertrace_load_acquire(&sample->stopped) && now < until) {
        if (now >= due) {
            infertrace_gpu_rates rates = {0};
            infertrace_gpu_memory memory = {0};
            unsigned int milliwatts = 0, celsius = 0;
            if (queries->rates && queries->rates(queries->device, &rates)) return;
            if (queries->memory && queries->memory(queries->device, &memory)) return;
            if (queries->power && queries->power(queries->device, &milliwatts)) return;
            if (queries->temperature && queries->temperature(queries->device, 0, &celsius)) return;
            due = now + interval_ns;
            if (infertrace_compare_exchange(&sample->state, 0, 1)) {
                sample->told = *queries;
                sample->rates = rates;
                sample->memory = memory;
                sample->milliwatts = milliwatts;
                sample->celsius = celsius;
                sample->taken_at = infertrace_monotonic_ns();
                infertrace_store_release(&sample->state, 0);
            }
        }
        infertrace_wakeup_wait(&sample->wakeup, -1, due < until ? due : until);
        now = infertrace_monotonic_ns();
    }
}
#endif

/* The fields of ResourceMetrics up to the device's id, then power and temperature. */
static uint8_t *infertrace_put_gpu(uint8_t *p, const infertrace_gpu_sample *sample) {
    if (sample->told.rates) {
        *p++ = INFERTRACE_GPU_UTILIZATION_PERCENT_TAG;
        p = wire_double(p, (double)sample->rates.gpu);
    }
    if (sample->told.memory) {
        p = wire_uint(p, INFERTRACE_GPU_MEMORY_USED_BYTES_TAG, sample->memory.used);
        p = wire_uint(p, INFERTRACE_GPU_MEMORY_TOTAL_BYTES_TAG, sample->memory.total);
    }
    memcpy(p, sample->identity, sample->identity_size);
    return p + sample->identity_size;
}

static uint8_t *infertrace_put_gpu_power(uint8_t *p, const infertrace_gpu_sample *sample) {
    if (sample->told.power) {
        *p++ = INFERTRACE_GPU_POWER_WATTS_TAG;
        p = wire_double(p, sample->milliwatts / 1000.0);
    }
    if (sample->told.temperature) {
        *p++ = INFERTRACE_GPU_TEMPERATURE_CELSIUS_TAG;
        p = wire_double(p, (double)sample->celsius);
    }
    return p;
}

#endif
