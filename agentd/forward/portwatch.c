/* SPDX-License-Identifier: MIT */
/*
 * A round: ask for IPv4, read until done, ask for IPv6, read until done, choose, compare
 * with what was known. The kernel writes the first part of its answer inside send(), so
 * on an ordinary machine the whole round happens in one call of the timer and never
 * waits; only long answers make the descriptor be watched.
 *
 * The kernel's dump holds no lock between its parts: a socket may be passed over when
 * others come or go meanwhile. So when an answer came in parts, a port that is missing is
 * believed gone only when a second round misses it too.
 */
#include "agentd/forward/portwatch.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "agentd/forward/listeners.h"
#include "common/log.h"
#include "common/mem.h"

#define DGRAM_MAX      32768 /* the kernel's dump buffers are at most this */
#define ROUND_MS       5000  /* a round that has no end by then is given up */
#define CLOSED_WAIT_MS 20    /* after a close, so that a burst of them costs one round */

enum state {
    IDLE,
    ASKING
};

struct portwatch {
    struct loop *loop;
    struct netns *ns; /* borrowed */
    const struct portwatch_ops *ops;
    void *owner;
    int fd, closes_fd; /* -1: not open */
    struct loop_io *io, *closes_io;
    struct loop_timer timer;
    enum state state;
    int family; /* asked for now */
    uint32_t seq;
    uint64_t began_ms;
    unsigned parts;     /* datagrams of this round */
    bool is_confirming; /* this round checks what the last one missed */
    struct log_rate rate;
    struct listeners known, fresh;
    uint8_t dgram[DGRAM_MAX] __attribute__((aligned(8)));
};

static int netlink_open(struct netns *ns, struct err *e)
{
    struct sockaddr_nl any = {.nl_family = AF_NETLINK};
    int fd = netns_socket(ns, AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG, e);

    if (fd < 0)
        return err_wrap(e, "open a sock_diag socket");
    if (bind(fd, (const struct sockaddr *)(const void *)&any, sizeof any) < 0) {
        (void)err_sys(e, "bind a sock_diag socket");
        (void)close(fd); /* nothing was written */
        return -1;
    }
    return fd;
}

/* Send the question for one family. */
static int ask(int fd, int family, uint32_t seq, struct err *e)
{
    uint8_t q[LISTENERS_QUESTION_MAX];
    size_t n = listeners_question(family, seq, q);
    ssize_t sent;

    do {
        sent = send(fd, q, n, 0);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0)
        return err_sys(e, "ask sock_diag");
    return 0;
}

/* One datagram from the kernel: its length, 0 when there is none now, -1 with *e. */
static ssize_t answer(int fd, void *p, size_t cap, struct err *e)
{
    struct sockaddr_nl from;
    struct iovec iov = {p, cap};
    struct msghdr m = {.msg_name = &from, .msg_iov = &iov, .msg_iovlen = 1};
    ssize_t n;

    for (;;) {
        m.msg_namelen = sizeof from;
        n = recvmsg(fd, &m, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return 0;
        if (n < 0)
            return err_sys(e, "read from sock_diag");
        if (m.msg_flags & MSG_TRUNC)
            return err_set(e, ERR_PROTO, "sock_diag sent more than %zu bytes", cap);
        /* Any process may send to a netlink socket; the kernel is port 0. */
        if (n > 0 && m.msg_namelen == sizeof from && from.nl_pid == 0)
            return n;
    }
}

static int refused(int family, int sys, struct err *e)
{
    errno = sys;
    return err_sys(e, "list %s listeners", family == AF_INET6 ? "IPv6" : "IPv4");
}

/* 1: this family is read, 0: more to come, 2: to be asked again, -1: error. */
static int take(struct listeners *l, int family, struct span dgram, uint32_t seq,
                struct err *e)
{
    int sys = 0;

    switch (listeners_read(l, dgram, seq, &sys)) {
    case LISTENERS_MORE:
        return 0;
    case LISTENERS_DONE:
        return 1;
    case LISTENERS_INTERRUPTED:
        return 2;
    case LISTENERS_REFUSED:
        /* A kernel without IPv6 knows no such family. */
        if (family == AF_INET6 && (sys == ENOENT || sys == EINVAL || sys == EOPNOTSUPP))
            return 1;
        return refused(family, sys, e);
    case LISTENERS_BAD:
        return err_set(e, ERR_PROTO, "sock_diag answered in a form not known");
    case LISTENERS_NOMEM:
        break;
    }
    return err_set(e, ERR_NOMEM, "no memory for the list of listeners");
}

/* -- telling ------------------------------------------------------------------------- */

/* Only callers of portwatch_free() outside callbacks exist, so `w` lives throughout. */
static void tell(struct portwatch *w, const struct listeners *old)
{
    struct portwatch_port batch[PORTWATCH_BATCH];
    const struct listeners *new = &w->known;
    size_t i = 0, k = 0, n = 0;

    while (i < old->n || k < new->n) {
        if (k == new->n || (i < old->n && old->at[i].port < new->at[k].port)) {
            w->ops->closed(w->owner, old->at[i++].port);
            continue;
        }
        if (i < old->n && old->at[i].port == new->at[k].port) {
            if (listener_is_same(&old->at[i++], &new->at[k])) {
                k++;
                continue;
            }
        }
        listener_describe(&new->at[k++], &batch[n++]);
        if (n == PORTWATCH_BATCH) {
            w->ops->opened(w->owner, batch, n);
            n = 0;
        }
    }
    if (n > 0)
        w->ops->opened(w->owner, batch, n);
}

static bool has_missing(const struct listeners *old, const struct listeners *new)
{
    size_t i, k = 0;

    for (i = 0; i < old->n; i++) {
        while (k < new->n &&new->at[k].port < old->at[i].port)
            k++;
        if (k == new->n || new->at[k].port != old->at[i].port)
            return true;
    }
    return false;
}

/* -- rounds -------------------------------------------------------------------------- */

static void round_begin(struct portwatch *w);
static void round_read(struct portwatch *w);

static void round_end(struct portwatch *w)
{
    struct listeners old;

    w->state = IDLE;
    loop_io_want(w->io, 0);
    listeners_choose(&w->fresh);
    if (w->parts > 4 && !w->is_confirming && has_missing(&w->known, &w->fresh)) {
        w->is_confirming = true;
        loop_timer_start(&w->timer, CLOSED_WAIT_MS);
        return;
    }
    w->is_confirming = false;
    loop_timer_start(&w->timer, PORTWATCH_MS);
    old = w->known;
    w->known = w->fresh;
    w->fresh = old; /* its memory serves the next round */
    tell(w, &old);
}

/* Say so, and try again at the next tick. */
static void round_failed(struct portwatch *w, const struct err *e)
{
    unsigned dropped;

    if (log_rate_ok(&w->rate, loop_now(w->loop), &dropped))
        log_warn("portwatch.failed", "why=%s dropped=%u", log_q(e->msg), dropped);
    w->state = IDLE;
    w->seq++; /* what is left of the answer is passed over */
    loop_io_want(w->io, 0);
    loop_timer_start(&w->timer, PORTWATCH_MS);
}

static void ask_family(struct portwatch *w, int family)
{
    struct err e;

    w->family = family;
    if (ask(w->fd, family, ++w->seq, &e) < 0) {
        round_failed(w, &e);
        return;
    }
    round_read(w);
}

static void round_begin(struct portwatch *w)
{
    w->state = ASKING;
    w->began_ms = loop_now(w->loop);
    w->parts = 0;
    w->fresh.n = 0;
    /* The deadline of the round; its end starts the pause instead. */
    loop_timer_start(&w->timer, ROUND_MS);
    ask_family(w, AF_INET);
}

static void round_read(struct portwatch *w)
{
    unsigned reads;
    struct err e;
    ssize_t n;

    for (reads = 0; reads < PORTWATCH_READS; reads++) {
        n = answer(w->fd, w->dgram, sizeof w->dgram, &e);
        if (n < 0) {
            round_failed(w, &e);
            return;
        }
        if (n == 0)
            break;
        w->parts++;
        switch (take(&w->fresh, w->family, span_of(w->dgram, (size_t)n), w->seq, &e)) {
        case 0:
            break;
        case 1:
            if (w->family == AF_INET)
                ask_family(w, AF_INET6);
            else
                round_end(w);
            return;
        case 2: /* the next tick asks anew, from the start */
            w->state = IDLE;
            loop_io_want(w->io, 0);
            loop_timer_start(&w->timer, CLOSED_WAIT_MS);
            return;
        default:
            round_failed(w, &e);
            return;
        }
    }
    loop_io_want(w->io, LOOP_READ);
}

static void on_readable(void *arg, unsigned events)
{
    struct portwatch *w = arg;

    UNUSED_ARG(events);
    if (w->state == ASKING)
        round_read(w);
}

static void on_timer(void *arg)
{
    struct portwatch *w = arg;
    struct err e;

    if (w->state == ASKING) {
        (void)err_set(&e, ERR_TIMEOUT, "sock_diag did not finish within %d ms", ROUND_MS);
        round_failed(w, &e);
        return;
    }
    round_begin(w);
}

/* -- closes, told by the kernel --------------------------------------------------------
 */

static void on_closes(void *arg, unsigned events)
{
    struct portwatch *w = arg;
    unsigned i;
    char byte;

    UNUSED_ARG(events);
    /* What was closed does not matter: the round that follows finds out. An overrun
     * (ENOBUFS) is one more reason for it. */
    for (i = 0; i < 64; i++) {
        if (recv(w->closes_fd, &byte, 1, MSG_TRUNC) < 0 && errno != ENOBUFS)
            break;
    }
    if (i > 0 && w->state == IDLE)
        loop_timer_start(&w->timer, CLOSED_WAIT_MS);
}

/* The kernel tells of every TCP socket that is destroyed, each connection included; this
 * passes only those that had no other end (idiag_dport 0), which listeners are. */
static int only_listeners(int fd)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_H | BPF_ABS, sizeof(struct nlmsghdr) + 4 + 2),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0xffff),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    struct sock_fprog prog = {4, code};

    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof prog);
}

/* Only makes closes be seen sooner, so a failure is no fault. */
static void closes_open(struct portwatch *w)
{
    static const int group[] = {SKNLGRP_INET_TCP_DESTROY, SKNLGRP_INET6_TCP_DESTROY};
    size_t i;
    int fd = netlink_open(w->ns, NULL);

    if (fd < 0)
        return;
    if (only_listeners(fd) < 0)
        goto fail;
    for (i = 0; i < COUNT_OF(group); i++) {
        if (setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group[i],
                       sizeof group[i]) < 0)
            goto fail;
    }
    w->closes_io = loop_io_start(w->loop, fd, on_closes, w, NULL);
    if (!w->closes_io)
        goto fail;
    w->closes_fd = fd;
    loop_io_want(w->closes_io, LOOP_READ);
    return;
fail:
    (void)close(fd); /* nothing was written */
}

/* -- life ---------------------------------------------------------------------------- */

void portwatch_free(struct portwatch *w)
{
    if (!w)
        return;
    loop_timer_stop(&w->timer);
    if (w->io)
        loop_io_stop(&w->io);
    if (w->closes_io)
        loop_io_stop(&w->closes_io);
    sock_close(&w->fd);
    sock_close(&w->closes_fd);
    listeners_done(&w->known);
    listeners_done(&w->fresh);
    mem_free(w);
}

struct portwatch *portwatch_new(struct loop *l, struct netns *ns,
                                const struct portwatch_ops *ops, void *owner,
                                struct err *e)
{
    struct portwatch *w = mem_zalloc(1, sizeof *w);

    if (!w) {
        (void)err_set(e, ERR_NOMEM, "no memory for the port watch");
        return NULL;
    }
    w->loop = l;
    w->ns = ns;
    w->ops = ops;
    w->owner = owner;
    w->fd = w->closes_fd = -1;
    loop_timer_init(&w->timer, l, on_timer, w);
    w->fd = netlink_open(ns, e);
    if (w->fd < 0)
        goto fail;
    w->io = loop_io_start(l, w->fd, on_readable, w, e);
    if (!w->io)
        goto fail;
    loop_timer_start(&w->timer, 0);
    closes_open(w);
    return w;
fail:
    portwatch_free(w);
    return NULL;
}

/* -- once ---------------------------------------------------------------------------- */

static int list_family(int fd, int family, struct listeners *l, uint8_t *dgram,
                       struct err *e)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    uint32_t seq = (uint32_t)family;
    unsigned tries = 0;
    size_t before = l->n;
    int r = 2;
    ssize_t n;

    while (r != 1) {
        if (r == 2) {
            l->n = before;
            seq += 256;
            if (++tries > 5)
                return err_set(e, ERR_TIMEOUT, "the list of listeners kept changing");
            if (ask(fd, family, seq, e) < 0)
                return -1;
        }
        n = answer(fd, dgram, DGRAM_MAX, e);
        if (n < 0)
            return -1;
        if (n == 0) {
            if (poll(&p, 1, ROUND_MS) == 0)
                return err_set(e, ERR_TIMEOUT, "sock_diag did not answer");
            r = 0;
            continue;
        }
        r = take(l, family, span_of(dgram, (size_t)n), seq, e);
        if (r < 0)
            return -1;
    }
    return 0;
}

int portwatch_list(struct netns *ns, struct portwatch_port **ret, size_t *ret_n,
                   struct err *e)
{
    struct portwatch_port *at;
    struct listeners l = {0};
    uint8_t *dgram = mem_alloc(DGRAM_MAX);
    int fd = -1, result = -1;
    size_t i;

    if (!dgram) {
        (void)err_set(e, ERR_NOMEM, "no memory to list listeners");
        goto out;
    }
    fd = netlink_open(ns, e);
    if (fd < 0)
        goto out;
    if (list_family(fd, AF_INET, &l, dgram, e) < 0 ||
        list_family(fd, AF_INET6, &l, dgram, e) < 0)
        goto out;
    listeners_choose(&l);
    at = mem_zalloc(l.n ? l.n : 1, sizeof *at);
    if (!at) {
        (void)err_set(e, ERR_NOMEM, "no memory to list listeners");
        goto out;
    }
    for (i = 0; i < l.n; i++)
        listener_describe(&l.at[i], &at[i]);
    *ret = at;
    *ret_n = l.n;
    result = 0;
out:
    sock_close(&fd);
    listeners_done(&l);
    mem_free(dgram);
    return result;
}
