/* Memory of zeros for tables of some megabytes, each slot of which is soon used, in any order. */
#ifndef INFERTRACE_ZEROED_MEMORY_H
#define INFERTRACE_ZEROED_MEMORY_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __linux__
#include <sys/mman.h>

/* In large pages, where the kernel has some: a look-up then seldom misses the TLB. */
static void prefer_large_pages(void *memory, size_t size) {
    const uintptr_t page = 4096;
    uintptr_t first = ((uintptr_t)memory + page - 1) & ~(page - 1);
    uintptr_t end = ((uintptr_t)memory + size) & ~(page - 1);
    if (first < end) (void)madvise((void *)first, end - first, MADV_HUGEPAGE);
}
#else
static void prefer_large_pages(void *memory, size_t size) {
    (void)memory;
    (void)size;
}
#endif

/* As calloc does, but written at once. The kernel lends what is read first from the one page of
 * zeros that all share, and when that is written, it interrupts all cores. */
static void *zeroed_memory(size_t size) {
    void *memory = malloc(size);
    if (memory == NULL) return NULL;
    prefer_large_pages(memory, size);
    memset(memory, 0, size);
    return memory;
}

#endif
