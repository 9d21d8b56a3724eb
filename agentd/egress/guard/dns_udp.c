/* SPDX-License-Identifier: MIT */
/*
 * Theory. The listeners take what the kernel's tproxy rule hands them, so a question may
 * have been sent to any address; which one stands in a control message. The reply must
 * come from there, from a transparent socket that only the keeper can make. Such sockets
 * are kept in DNS_REPLY_SOCKETS places, asked for when a question to a new address comes;
 * replies that are ready before the socket is wait in its place. They are never connected
 * to a client: tproxy prefers a connected socket to the listener, and questions would go
 * astray. They are not read.
 *
 * A sandbox that asks many addresses in turn costs the keeper a socket each time,
 * so places are given to new addresses at DNS_SOCKETS_PER_S; questions beyond that
 * are dropped unread.
 */
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "agentd/egress/guard/dns_int.h"
#include "agentd/egress/guard/keeper_link.h"
#include "common/log.h"
#include "common/mem.h"

#ifndef IPV6_ORIGDSTADDR /* linux/in6.h, which does not go with netinet/in.h */
#define IPV6_ORIGDSTADDR 74
#endif

enum {
    QUEUE_MAX = 32 /* replies that wait for one socket */
};

struct queued {
    struct queued *next;
    struct sock_addr to;
    size_t len;
    uint8_t bytes[];
};

struct place {
    struct dns_udp *udp; /* borrowed: owner */
    bool is_used;
    struct ip_addr addr;
    uint16_t port;
    int fd; /* -1: asked for */
    struct keeper_request *request;
    uint64_t used_ms;
    struct queued *first, **last;
    size_t n_queued;
};

struct listener {
    struct dns_udp *udp; /* borrowed: owner */
    int fd;
    struct loop_io *io;
};

struct dns_udp {
    struct ward *ward;         /* borrowed */
    struct dns_server *server; /* borrowed: owner */
    struct listener listener[2];
    struct place place[DNS_REPLY_SOCKETS];
    uint64_t window_ms; /* of the sockets asked for */
    unsigned asked;
    struct log_rate rate;
};

/* -- reply sockets ------------------------------------------------------------------- */

static void place_clear(struct place *p)
{
    struct queued *q;

    while ((q = p->first) != NULL) {
        p->first = q->next;
        mem_free(q);
    }
    p->last = &p->first;
    p->n_queued = 0;
    keeper_link_cancel(&p->request);
    sock_close(&p->fd);
    p->is_used = false;
}

static void send_now(const struct place *p, const struct sock_addr *to, struct span reply)
{
    /* What a full socket or a client that is gone does not take is lost, as
     * datagrams are. */
    (void)sendto(p->fd, reply.p, reply.len, MSG_DONTWAIT | MSG_NOSIGNAL, &to->u.sa,
                 to->len);
}

static void on_socket(void *arg, struct channel_msg *m)
{
    struct place *p = arg;
    struct queued *q;
    unsigned dropped;

    p->request = NULL;
    if (!m || m->error || m->fd[CHANNEL_FD_REPLY] < 0) {
        if (log_rate_ok(&p->udp->rate, loop_now(p->udp->ward->guard->loop), &dropped))
            log_warn("egress.dns_socket", "sandbox=%s error=%d dropped=%u",
                     p->udp->ward->name, m ? m->error : 0, dropped);
        place_clear(p);
        return;
    }
    p->fd = m->fd[CHANNEL_FD_REPLY];
    m->fd[CHANNEL_FD_REPLY] = -1;
    while ((q = p->first) != NULL) {
        p->first = q->next;
        send_now(p, &q->to, span_of(q->bytes, q->len));
        mem_free(q);
    }
    p->last = &p->first;
    p->n_queued = 0;
}

static bool may_ask(struct dns_udp *u)
{
    uint64_t now = loop_now(u->ward->guard->loop);

    if (now - u->window_ms >= 1000) {
        u->window_ms = now;
        u->asked = 0;
    }
    return u->asked++ < DNS_SOCKETS_PER_S;
}

static struct place *place_find(struct dns_udp *u, const struct sock_addr *to)
{
    struct ip_addr a;

    ip_from_sock(to, &a);
    for (size_t i = 0; i < DNS_REPLY_SOCKETS; i++) {
        struct place *p = &u->place[i];

        if (p->is_used && p->port == sock_port(to) && ip_eq(&p->addr, &a))
            return p;
    }
    return NULL;
}

/* A free place, or the one that was used longest ago and has its socket. */
static struct place *place_free(struct dns_udp *u)
{
    struct place *best = NULL;

    for (size_t i = 0; i < DNS_REPLY_SOCKETS; i++) {
        struct place *p = &u->place[i];

        if (!p->is_used)
            return p;
        if (p->fd >= 0 && (!best || p->used_ms < best->used_ms))
            best = p;
    }
    return best;
}

static struct place *place_get(struct dns_udp *u, const struct sock_addr *to)
{
    struct place *p = place_find(u, to);
    struct channel_msg m;

    if (p) {
        p->used_ms = loop_now(u->ward->guard->loop);
        return p;
    }
    p = place_free(u);
    if (!p || !may_ask(u))
        return NULL;
    place_clear(p);
    ip_from_sock(to, &p->addr);
    p->port = sock_port(to);
    p->used_ms = loop_now(u->ward->guard->loop);
    channel_msg_init(&m, CHANNEL_WANT_REPLY, u->ward->index);
    m.to = p->addr;
    m.to_port = p->port;
    m.protocol = IPPROTO_UDP;
    p->request = keeper_link_ask(u->ward->guard->keeper, &m, on_socket, p, NULL);
    if (!p->request)
        return NULL;
    p->is_used = true;
    return p;
}

void dns_udp_send(struct dns_udp *u, const struct dns_client *to, struct span reply)
{
    struct place *p = place_find(u, &to->to);
    struct queued *q;

    if (!p)
        return; /* it was given away meanwhile: the client asks again */
    if (p->fd >= 0) {
        send_now(p, &to->from, reply);
        return;
    }
    if (p->n_queued == QUEUE_MAX)
        return;
    q = mem_alloc(sizeof(*q) + reply.len);
    if (!q)
        return;
    q->next = NULL;
    q->to = to->from;
    q->len = reply.len;
    memcpy(q->bytes, reply.p, reply.len);
    *p->last = q;
    p->last = &q->next;
    p->n_queued++;
}

/* -- questions ----------------------------------------------------------------------- */

/* The address the datagram was sent to. */
static bool read_meant(struct msghdr *m, struct sock_addr *ret)
{
    struct cmsghdr *c;

    for (c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        bool is4 = c->cmsg_level == SOL_IP && c->cmsg_type == IP_ORIGDSTADDR;
        bool is6 = c->cmsg_level == SOL_IPV6 && c->cmsg_type == IPV6_ORIGDSTADDR;
        size_t len = is4 ? sizeof(ret->u.in) : sizeof(ret->u.in6);

        if ((!is4 && !is6) || c->cmsg_len < CMSG_LEN(len))
            continue;
        memset(ret, 0, sizeof(*ret));
        memcpy(&ret->u, CMSG_DATA(c), len);
        ret->len = (socklen_t)len;
        return true;
    }
    return false;
}

/* An IPv4 client of a socket for both families: as the IPv4 that it is, for the reply's
 * socket is of that family. */
static void unmap(struct sock_addr *a)
{
    struct ip_addr ip;

    ip_from_sock(a, &ip);
    if (ip.family != a->u.sa.sa_family)
        ip_to_sock(&ip, sock_port(a), a);
}

/* False: nothing waits. */
static bool read_one(struct listener *l)
{
    uint8_t msg[DNSMSG_QUESTION_MAX + 1]; /* one more, to see that it is too long */
    union {
        struct cmsghdr align;
        uint8_t bytes[256];
    } control;
    struct dns_client from = {.conn = NULL};
    struct iovec iov = {msg, sizeof(msg)};
    struct msghdr m = {.msg_name = &from.from.u,
                       .msg_namelen = sizeof(from.from.u),
                       .msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof(control.bytes)};
    ssize_t n = recvmsg(l->fd, &m, MSG_DONTWAIT); /* #syscalls: recvmsg sendto */

    if (n < 0)
        return errno == EINTR;
    from.from.len = m.msg_namelen;
    if (m.msg_flags & MSG_CTRUNC || !read_meant(&m, &from.to))
        return true;
    unmap(&from.from);
    unmap(&from.to);
    if (sock_port(&from.from) == 0 || !place_get(l->udp, &from.to))
        return true;
    dns_server_question(l->udp->server, span_of(msg, (size_t)n), &from);
    return true;
}

static void on_datagram(void *arg, unsigned events)
{
    struct listener *l = arg;

    UNUSED_ARG(events);
    for (int i = 0; i < DNS_UDP_TURN && read_one(l); i++)
        ;
}

/* -- the whole ----------------------------------------------------------------------- */

struct dns_udp *dns_udp_new(struct ward *w, struct dns_server *d, int take_udp[2],
                            struct err *e)
{
    struct dns_udp *u = mem_zalloc(1, sizeof(*u));

    if (!u) {
        (void)err_set(e, ERR_NOMEM, "the name server of \"%s\": no memory", w->name);
        for (size_t i = 0; i < COUNT_OF(u->listener); i++)
            sock_close(&take_udp[i]);
        return NULL;
    }
    u->ward = w;
    u->server = d;
    for (size_t i = 0; i < DNS_REPLY_SOCKETS; i++) {
        u->place[i].udp = u;
        u->place[i].fd = -1;
        u->place[i].last = &u->place[i].first;
    }
    for (size_t i = 0; i < COUNT_OF(u->listener); i++) {
        u->listener[i].udp = u;
        u->listener[i].fd = take_udp[i];
        take_udp[i] = -1;
    }
    for (size_t i = 0; i < COUNT_OF(u->listener); i++) {
        struct listener *l = &u->listener[i];

        if (l->fd < 0)
            continue;
        l->io = loop_io_start(w->guard->loop, l->fd, on_datagram, l, e);
        if (!l->io) {
            dns_udp_free(u);
            return NULL;
        }
        loop_io_want(l->io, LOOP_READ);
    }
    return u;
}

void dns_udp_free(struct dns_udp *u)
{
    if (!u)
        return;
    for (size_t i = 0; i < COUNT_OF(u->listener); i++) {
        loop_io_stop(&u->listener[i].io);
        sock_close(&u->listener[i].fd);
    }
    for (size_t i = 0; i < DNS_REPLY_SOCKETS; i++)
        place_clear(&u->place[i]);
    mem_free(u);
}
