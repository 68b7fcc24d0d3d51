/* Wakes a thread that waits without the GIL: a self-pipe.
 *
 * The thread can wait for a socket at the same time, and a signal handler or a `__del__` may
 * notify it from anywhere. POSIX only.
 */
#ifndef INFERTRACE_WAKEUP_PIPE_H
#define INFERTRACE_WAKEUP_PIPE_H

#include <errno.h>
#include <stdint.h>

#include "common/clock.h"

typedef struct {
    int read_fd, write_fd; /* meaningless unless `is_open` */
    int is_open;
} infertrace_wakeup_pipe;

#if defined(_WIN32)
static int infertrace_wakeup_open(infertrace_wakeup_pipe *wakeup) {
    (void)wakeup;
    return -ENOSYS;
}
static void infertrace_wakeup_close(infertrace_wakeup_pipe *wakeup) {
    (void)wakeup;
}
static void infertrace_wakeup_notify(infertrace_wakeup_pipe *wakeup) {
    (void)wakeup;
}
#else
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

/* Open the pipe if it is closed; 0, or a negative errno. */
static int infertrace_wakeup_open(infertrace_wakeup_pipe *wakeup) {
    int ends[2], number;
    if (wakeup->is_open) return 0;
    if (pipe(ends)) return -errno;
    for (number = 0; number < 2; number++) {
        fcntl(ends[number], F_SETFD, FD_CLOEXEC);
        fcntl(ends[number], F_SETFL, O_NONBLOCK);
    }
    wakeup->read_fd = ends[0];
    wakeup->write_fd = ends[1];
    wakeup->is_open = 1;
    return 0;
}

static void infertrace_wakeup_close(infertrace_wakeup_pipe *wakeup) {
    if (!wakeup->is_open) return;
    wakeup->is_open = 0;
    close(wakeup->read_fd);
    close(wakeup->write_fd);
}

static void infertrace_wakeup_notify(infertrace_wakeup_pipe *wakeup) {
    /* A full pipe wakes the thread as well as one more byte would. */
    if (wakeup->is_open && write(wakeup->write_fd, "", 1) < 0) return;
}

/* Wait for a notification, for the moment `until`, or until the file descriptor `fd` (-1 for none)
 * becomes readable or hangs up; returns 1 in that last case. Needs no GIL. */
static int infertrace_wakeup_wait(const infertrace_wakeup_pipe *wakeup, int fd, int64_t until) {
    struct pollfd waited[2] = {{wakeup->read_fd, POLLIN, 0}, {fd, POLLIN, 0}};
    /* Rounded up: otherwise the last millisecond would be a busy loop. */
    int64_t left_ms = (until - infertrace_monotonic_ns() + 999999) / 1000000;
    char drained[64];
    if (left_ms > 60000) left_ms = 60000;
    if (poll(waited, 2, left_ms > 0 ? (int)left_ms : 0) <= 0) return 0;
    if (waited[0].revents)
        while (read(wakeup->read_fd, drained, sizeof(drained)) == (int)sizeof(drained))
            continue;
    return waited[1].revents != 0;
}
#endif

#endif
