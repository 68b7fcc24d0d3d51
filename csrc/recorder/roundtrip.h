/* Writes a request to a socket and reads the answer, in one stretch without the GIL.
 *
 * From Python, each system call would hand the GIL over and ask for it back, which delays the
 * traced loop. POSIX only.
 */
#ifndef INFERTRACE_ROUNDTRIP_H
#define INFERTRACE_ROUNDTRIP_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

#include "common/clock.h"

#if defined(_WIN32)
#define INFERTRACE_HAS_ROUNDTRIP 0
struct iovec {
    void *iov_base;
    size_t iov_len;
};
static ptrdiff_t infertrace_roundtrip(int fd, struct iovec *parts, int count, char *answer,
                                      size_t room, size_t head, size_t size_at, int64_t deadline) {
    (void)fd, (void)parts, (void)count, (void)answer;
    (void)room, (void)head, (void)size_at, (void)deadline;
    return -ENOSYS;
}
#else
#define INFERTRACE_HAS_ROUNDTRIP 1
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

static int infertrace_wait_for(int fd, short events, int64_t deadline) {
    struct pollfd waited = {fd, events, 0};
    int64_t left_ms = (deadline - infertrace_monotonic_ns()) / 1000000;
    int ready = poll(&waited, 1, left_ms > 0 ? (int)left_ms : 0);
    if (ready < 0) return errno == EINTR ? 0 : -errno;
    return ready ? 0 : -ETIMEDOUT;
}

/* Write all parts (and change them), then read `head` bytes and as many more as the 32-bit number
 * at `size_at` says; returns the size of the answer, or a negative errno. -EPIPE: the other side
 * has closed. -EMSGSIZE: the answer is larger than `room`. Needs no GIL. */
static ptrdiff_t infertrace_roundtrip(int fd, struct iovec *parts, int count, char *answer,
                                      size_t room, size_t head, size_t size_at, int64_t deadline) {
    size_t have = 0, wanted = head;
    while (count) {
        struct msghdr message = {0};
        ssize_t sent;
        message.msg_iov = parts;
        message.msg_iovlen = count;
        sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) {
            int outcome;
            if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) return -errno;
            outcome = infertrace_wait_for(fd, POLLOUT, deadline);
            if (outcome) return outcome;
            continue;
        }
        while (count && (size_t)sent >= parts->iov_len) {
            sent -= parts->iov_len;
            parts++, count--;
        }
        if (count) {
            parts->iov_base = (char *)parts->iov_base + sent;
            parts->iov_len -= sent;
        }
    }
    while (have < wanted) {
        int outcome = infertrace_wait_for(fd, POLLIN, deadline);
        ssize_t got;
        if (outcome) return outcome;
        got = recv(fd, answer + have, room - have, MSG_DONTWAIT);
        if (got == 0) return -EPIPE;
        if (got < 0) {
            if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) return -errno;
            continue;
        }
        have += got;
        if (have >= head && wanted == head) {
            uint32_t more;
            memcpy(&more, answer + size_at, sizeof(more));
            wanted += more;
            if (wanted > room) return -EMSGSIZE;
        }
    }
    return (ptrdiff_t)have;
}
#endif

#endif
