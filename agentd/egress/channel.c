/* SPDX-License-Identifier: MIT */
#include "agentd/egress/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/sock.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

/* Nobody can change what was checked: neither its bytes, nor its size, nor these. */
#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

int channel_pair(int ret[2], struct err *e)
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ret) < 0)
        return err_sys(e, "make a channel");
    return 0;
}

void channel_msg_done(struct channel_msg *m)
{
    for (size_t i = 0; i < CHANNEL_FDS; i++)
        sock_close(&m->fd[i]);
}

/* -- sending ------------------------------------------------------------------------- */

/* NOLINTNEXTLINE(readability-non-const-parameter): an iovec takes no const */
int channel_send_wire(int fd, uint8_t *wire, size_t len, const int *fds, size_t n_fds,
                      struct err *e)
{
    _Alignas(struct cmsghdr) uint8_t room[CMSG_SPACE(CHANNEL_FDS * sizeof(int))] = {0};
    struct iovec iov = {.iov_base = wire, .iov_len = len};
    struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t sent;

    if (n_fds > CHANNEL_FDS)
        return err_set(e, ERR_PROTO, "%zu descriptors with a record", n_fds);
    if (n_fds > 0) {
        struct cmsghdr *c = (void *)room;

        h.msg_control = room;
        h.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
    }
    do
        sent = sendmsg(fd, &h, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? err_sys(e, "send on the channel") : 0;
}

int channel_send(int fd, const struct channel_msg *m, struct err *e)
{
    uint8_t wire[CHANNEL_WIRE_MAX];
    int len = channel_encode(m, wire, e);
    int fds[CHANNEL_FDS];
    size_t n = 0;

    if (len < 0)
        return -1;
    for (size_t i = 0; i < CHANNEL_FDS; i++)
        if (m->fd[i] >= 0)
            fds[n++] = m->fd[i];
    return channel_send_wire(fd, wire, (size_t)len, fds, n, e);
}

/* -- receiving ----------------------------------------------------------------------- */

/* All descriptors that came; false when something else came too, or not all of them. */
static bool take_fds(struct msghdr *h, int fds[CHANNEL_FDS], size_t *ret_n)
{
    bool is_good = (h->msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0;

    *ret_n = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c != NULL; c = CMSG_NXTHDR(h, c)) {
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
            is_good = false;
            continue;
        }
        for (size_t i = 0; i < n; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
            if (*ret_n < CHANNEL_FDS) {
                fds[(*ret_n)++] = fd;
            } else {
                (void)close(fd);
                is_good = false;
            }
        }
    }
    return is_good;
}

int channel_recv(int fd, struct channel_msg *ret, struct err *e)
{
    uint8_t wire[CHANNEL_WIRE_MAX];
    _Alignas(struct cmsghdr) uint8_t room[CMSG_SPACE(sizeof(ret->fd))];
    struct iovec iov = {.iov_base = wire, .iov_len = sizeof(wire)};
    struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
    int fds[CHANNEL_FDS];
    size_t n_fds;
    ssize_t n;
    int rc = -1;

    h.msg_control = room;
    h.msg_controllen = sizeof(room);
    channel_msg_init(ret, CHANNEL_NONE, 0);
    do
        n = recvmsg(fd, &h, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        return 0;
    if (n < 0)
        return err_sys(e, "receive from the channel");
    if (!take_fds(&h, fds, &n_fds))
        err_set(e, ERR_PROTO, "a record that is cut, or with too many descriptors");
    else if (n == 0 && n_fds == 0)
        err_set(e, ERR_NOTFOUND, "the channel was closed");
    else
        rc = channel_decode(span_of(wire, (size_t)n), fds, n_fds, ret, e);
    if (rc == 0)
        return 1;
    for (size_t i = 0; i < n_fds; i++)
        (void)close(fds[i]);
    channel_msg_init(ret, CHANNEL_NONE, 0);
    return -1;
}

/* -- texts --------------------------------------------------------------------------- */

int channel_text_out(const void *p, size_t n, struct err *e)
{
    int fd = memfd_create("egress", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    size_t at = 0;

    if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
        fd = memfd_create("egress", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return err_sys(e, "make a memory file");
    while (at < n) {
        ssize_t w = write(fd, (const uint8_t *)p + at, n - at);

        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0)
            break;
        at += (size_t)w;
    }
    if (at < n || fcntl(fd, F_ADD_SEALS, SEALS) < 0) {
        err_sys(e, "fill and seal a memory file of %zu bytes", n);
        sock_close(&fd);
    }
    return fd;
}

int channel_text_in(int fd, size_t max, struct buf *ret, struct err *e)
{
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);
    size_t at = 0;

    if (seals < 0 || (seals & SEALS) != SEALS)
        return err_set(e, ERR_PROTO, "a text that is not sealed");
    if (fstat(fd, &st) < 0)
        return err_sys(e, "look at a sealed text");
    if (st.st_size < 0 || (uint64_t)st.st_size > max)
        return err_set(e, ERR_LIMIT, "a text of %lld bytes; at most %zu",
                       (long long)st.st_size, max);
    if (buf_reserve(ret, (size_t)st.st_size, SIZE_MAX) < 0)
        return err_set(e, ERR_NOMEM, "no memory for a text of %lld bytes",
                       (long long)st.st_size);
    while (at < (size_t)st.st_size) {
        ssize_t n = pread(fd, ret->p + ret->len + at, (size_t)st.st_size - at, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_set(e, ERR_PROTO, "a sealed text that cannot be read");
        at += (size_t)n;
    }
    ret->len += at;
    return 0;
}
