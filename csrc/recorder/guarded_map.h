/* Mapped files that another process may truncate while they are in use.
 *
 * A store to a page that the file no longer has raises SIGBUS, which ends the process. Our handler
 * replaces the whole map by anonymous memory, so that the store succeeds; the owner notices by the
 * size of the file. The handler passes a SIGBUS elsewhere to the previous handler. A SIGBUS that
 * this process raised itself carries no address: a handler set after ours, such as faulthandler's,
 * passes a fault on like that. POSIX only.
 */
#ifndef INFERTRACE_GUARDED_MAP_H
#define INFERTRACE_GUARDED_MAP_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
static int infertrace_map_guarded(int descriptor, size_t size, void **start) {
    (void)descriptor, (void)size, (void)start;
    return -ENOSYS;
}
static void infertrace_unmap_guarded(void *start) {
    (void)start;
}
#else
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* One map for each tracer in a process, with room to spare. */
#define INFERTRACE_MAX_GUARDED_MAPS 256

#ifndef MAP_ANONYMOUS
#define MAP_ANONYMOUS MAP_ANON
#endif

typedef struct {
    char *volatile start; /* NULL: not in use; set last, cleared first */
    size_t size;
    int descriptor; /* the owner's, open for as long as this is in use */
} infertrace_guarded_map;

/* Changed with the GIL held; the handler only reads them. */
static infertrace_guarded_map infertrace_guarded_maps[INFERTRACE_MAX_GUARDED_MAPS];
static struct sigaction infertrace_sigbus_before;
static volatile sig_atomic_t infertrace_sigbus_is_guarded = 0;

static void infertrace_on_sigbus(int number, siginfo_t *information, void *context) {
    char *address = (char *)information->si_addr;
    struct sigaction before = infertrace_sigbus_before;
    int slot, has_address = information->si_code > 0, mended = 0;
    for (slot = 0; slot < INFERTRACE_MAX_GUARDED_MAPS; slot++) {
        char *start = infertrace_guarded_maps[slot].start;
        size_t size = infertrace_guarded_maps[slot].size;
        struct stat status;
        if (!start) continue;
        if (has_address ? address < start || address >= start + size
                        : fstat(infertrace_guarded_maps[slot].descriptor, &status) ||
                              (size_t)status.st_size >= size)
            continue;
        if (mmap(start, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
                 0) == start)
            mended = 1;
    }
    if (mended) return;
    if (before.sa_flags & SA_SIGINFO) {
        before.sa_sigaction(number, information, context);
    } else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
        before.sa_handler(number);
    } else {
        /* Return to the instruction, which raises the signal again. */
        sigaction(SIGBUS, &before, NULL);
        infertrace_sigbus_is_guarded = 0;
        if (!has_address) raise(SIGBUS);
    }
}

/* Map `size` bytes of the file, which is that long, shared and writable; 0, or a negative errno. */
static int infertrace_map_guarded(int descriptor, size_t size, void **start) {
    void *mapped;
    int slot = 0;
    while (slot < INFERTRACE_MAX_GUARDED_MAPS && infertrace_guarded_maps[slot].start)
        slot++;
    if (slot == INFERTRACE_MAX_GUARDED_MAPS) return -EMFILE;
    if (!infertrace_sigbus_is_guarded) {
        struct sigaction guard = {0};
        guard.sa_sigaction = infertrace_on_sigbus;
        guard.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
        sigemptyset(&guard.sa_mask);
        if (sigaction(SIGBUS, &guard, &infertrace_sigbus_before)) return -errno;
        infertrace_sigbus_is_guarded = 1;
    }
    mapped = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (mapped == MAP_FAILED) return -errno;
    infertrace_guarded_maps[slot].size = size;
    infertrace_guarded_maps[slot].descriptor = descriptor;
    infertrace_guarded_maps[slot].start = (char *)mapped;
    *start = mapped;
    return 0;
}

static void infertrace_unmap_guarded(void *start) {
    int slot;
    for (slot = 0; slot < INFERTRACE_MAX_GUARDED_MAPS; slot++)
        if (infertrace_guarded_maps[slot].start == (char *)start) {
            infertrace_guarded_maps[slot].start = NULL;
            munmap(start, infertrace_guarded_maps[slot].size);
            return;
        }
}
#endif

#endif
