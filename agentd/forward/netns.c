/* SPDX-License-Identifier: MIT */
/*
 * The maker's talk, over a SOCK_SEQPACKET pair: one request, one answer with the same number,
 * which carries the descriptor or an errno. An answer that came too late is passed over by its
 * number, so one slow moment does not hand out the wrong socket later.
 */
#include "agentd/forward/netns.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "common/loop.h"
#include "common/mem.h"
#include "common/sock.h"

struct netns {
    int home, target; /* -1: not open */
    int maker;        /* -1: we enter ourselves */
    uint32_t seq;
};

struct request {
    uint32_t seq;
    int32_t domain, type, protocol; /* domain AF_UNSPEC: the file `name` */
    char name[NETNS_NAME_MAX + 1];
};
struct answer {
    uint32_t seq;
    int32_t error; /* errno; 0: a descriptor comes with it */
};

/* -- making, in the namespace ------------------------------------------------------------- */

/* A name below /proc/sys/net, with no way out of it. */
static bool name_is_fine(const char *name)
{
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_/-");

    return n > 0 && n <= NETNS_NAME_MAX && name[n] == '\0' && name[0] != '/';
}

/* The descriptor, or -1 with errno. */
static int make(const struct request *q)
{
    char path[sizeof "/proc/sys/net/" + NETNS_NAME_MAX];

    if (q->domain != AF_UNSPEC)
        return socket(q->domain, q->type | SOCK_CLOEXEC | SOCK_NONBLOCK, q->protocol);
    (void)snprintf(path, sizeof path, "/proc/sys/net/%s", q->name);
    return open(path, O_RDONLY | O_CLOEXEC);
}

static bool request_is_fine(const struct request *q)
{
    if (q->domain == AF_UNSPEC)
        return memchr(q->name, 0, sizeof q->name) && name_is_fine(q->name);
    return (q->domain == AF_INET || q->domain == AF_INET6 || q->domain == AF_NETLINK) &&
           (q->type == SOCK_STREAM || q->type == SOCK_DGRAM || q->type == SOCK_RAW);
}

/* Back to our own. Going on there would send our own traffic into the sandbox. */
static void leave(const struct netns *n)
{
    if (setns(n->home, CLONE_NEWNET) < 0) {
        log_err("netns.leave", "errno=%d", errno);
        abort();
    }
}

static int make_by_entering(const struct netns *n, const struct request *q, struct err *e)
{
    int fd, sys;

    if (setns(n->target, CLONE_NEWNET) < 0)
        return err_sys(e, "enter the network namespace");
    fd = make(q);
    sys = errno;
    leave(n);
    errno = sys;
    return fd < 0 ? err_sys(e, "make a socket in the namespace") : fd;
}

/* -- the maker, from outside -------------------------------------------------------------- */

/* One answer: 1 and *ret, *ret_fd; 0: none yet; -1: the maker is gone. */
static int answer_read(int sock, struct answer *ret, int *ret_fd)
{
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec iov = {ret, sizeof *ret};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = &control,
                       .msg_controllen = sizeof control};
    const struct cmsghdr *c;
    ssize_t n = recvmsg(sock, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

    *ret_fd = -1;
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    c = CMSG_FIRSTHDR(&m);
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
        c->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(ret_fd, CMSG_DATA(c), sizeof *ret_fd);
    if (n != sizeof *ret) {
        sock_close(ret_fd);
        return -1;
    }
    return 1;
}

static int answer_wait(const struct netns *n, struct err *e)
{
    uint64_t now = clock_us(), end = now + (uint64_t)NETNS_MAKER_MS * 1000;
    struct pollfd p = {.fd = n->maker, .events = POLLIN};
    struct answer a = {0};
    int fd, r;

    for (; now < end; now = clock_us()) {
        if (poll(&p, 1, (int)((end - now) / 1000) + 1) < 0 && errno != EINTR)
            return err_sys(e, "wait for the sandbox's socket maker");
        r = answer_read(n->maker, &a, &fd);
        if (r < 0)
            return err_set(e, ERR_NOTFOUND, "the sandbox's socket maker is gone");
        if (r > 0 && a.seq == n->seq) {
            if (a.error == 0 && fd >= 0)
                return fd;
            sock_close(&fd);
            errno = a.error ? a.error : EPROTO;
            return err_sys(e, "make a socket in the namespace");
        }
        sock_close(&fd); /* of a question that was given up */
    }
    return err_set(e, ERR_TIMEOUT, "the sandbox's socket maker did not answer in %d ms",
                   NETNS_MAKER_MS);
}

static int make_by_maker(struct netns *n, struct request *q, struct err *e)
{
    q->seq = ++n->seq;
    if (send(n->maker, q, sizeof *q, MSG_NOSIGNAL | MSG_DONTWAIT) != sizeof *q)
        return err_sys(e, "ask the sandbox's socket maker");
    return answer_wait(n, e);
}

static int make_there(struct netns *n, struct request *q, struct err *e)
{
    int fd;

    if (n && n->maker >= 0)
        return make_by_maker(n, q, e);
    if (n)
        return make_by_entering(n, q, e);
    fd = make(q);
    return fd < 0 ? err_sys(e, "make a socket") : fd;
}

int netns_socket(struct netns *n, int domain, int type, int protocol, struct err *e)
{
    struct request q = {.domain = domain, .type = type, .protocol = protocol};

    if (!request_is_fine(&q) || domain == AF_UNSPEC)
        return err_set(e, ERR_CONFIG, "sockets of family %d, type %d are not made there",
                       domain, type);
    return make_there(n, &q, e);
}

int netns_fd(const struct netns *n)
{
    return n ? n->target : -1;
}

int netns_sysctl(struct netns *n, const char *name, struct err *e)
{
    struct request q = {.domain = AF_UNSPEC};
    int fd;

    if (!name_is_fine(name))
        return err_set(e, ERR_CONFIG, "there is no /proc/sys/net/%.64s", name);
    memcpy(q.name, name, strlen(name) + 1); /* name_is_fine() measured it */
    fd = make_there(n, &q, e);
    return fd < 0 ? err_wrap(e, "/proc/sys/net/%s", name) : fd;
}

/* -- the maker, there ------------------------------------------------------------------------ */

static int answer_send(int sock, struct answer *a, int fd)
{
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {.room = {0}};
    struct iovec iov = {a, sizeof *a};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    struct cmsghdr *c;

    if (fd >= 0) {
        m.msg_control = &control;
        m.msg_controllen = sizeof control;
        c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    return sendmsg(sock, &m, MSG_NOSIGNAL) == sizeof *a ? 0 : -1;
}

int netns_maker(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    struct request q;
    struct answer a;
    ssize_t n;
    int made, r;

    for (;;) {
        if (poll(&p, 1, -1) < 0 && errno != EINTR)
            return -1;
        n = recv(fd, &q, sizeof q, MSG_DONTWAIT);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n == 0 || (n < 0 && errno == ECONNRESET))
            return 0;
        if (n != sizeof q || !request_is_fine(&q))
            return -1;
        made = make(&q);
        a = (struct answer){.seq = q.seq, .error = made < 0 ? errno : 0};
        r = answer_send(fd, &a, made);
        sock_close(&made);
        if (r < 0)
            return errno == EPIPE || errno == ECONNRESET ? 0 : -1;
    }
}

/* -- life -------------------------------------------------------------------------------------- */

void netns_free(struct netns *n)
{
    if (!n)
        return;
    sock_close(&n->home);
    sock_close(&n->target);
    sock_close(&n->maker);
    mem_free(n);
}

static struct netns *netns_new(struct err *e)
{
    struct netns *n = mem_zalloc(1, sizeof *n);

    if (!n) {
        (void)err_set(e, ERR_NOMEM, "no memory for a namespace");
        return NULL;
    }
    n->home = n->target = n->maker = -1;
    return n;
}

struct netns *netns_open(const char *path, pid_t pid, struct err *e)
{
    char text[64];
    struct netns *n = netns_new(e);

    if (!n)
        return NULL;
    if (!path) {
        (void)snprintf(text, sizeof text, "/proc/%ld/ns/net", (long)pid);
        path = text;
    }
    n->home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    if (n->home < 0) {
        (void)err_sys(e, "open our own network namespace");
        goto fail;
    }
    n->target = open(path, O_RDONLY | O_CLOEXEC);
    if (n->target < 0) {
        (void)err_sys(e, "open network namespace %s", path);
        goto fail;
    }
    /* Coming back needs a right of its own: who lacks it must not leave. */
    if (setns(n->home, CLONE_NEWNET) < 0) {
        (void)err_sys(e, "come back from a network namespace");
        goto fail;
    }
    if (setns(n->target, CLONE_NEWNET) < 0) {
        (void)err_sys(e, "%s: enter the network namespace", path);
        goto fail;
    }
    leave(n);
    return n;
fail:
    netns_free(n);
    return NULL;
}

struct netns *netns_from_maker(int *take_fd, struct err *e)
{
    struct netns *n = netns_new(e);

    if (!n) {
        sock_close(take_fd);
        return NULL;
    }
    n->maker = *take_fd;
    *take_fd = -1;
    return n;
}
