/* SPDX-License-Identifier: MIT */
#include "agentd/forward/listeners.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <stdlib.h>
#include <string.h>

#include "common/cdefs.h"
#include "common/mem.h"

#define STATE_LISTEN 10 /* TCP_LISTEN, which only netinet/tcp.h names for user space */

static const uint8_t v4_mapped[12] = {[10] = 0xff, [11] = 0xff};
static const uint8_t zeroes[16];

size_t listeners_question(int family, uint32_t seq, uint8_t out[LISTENERS_QUESTION_MAX])
{
    struct {
        struct nlmsghdr head;
        struct inet_diag_req_v2 req;
    } q;

    memset(&q, 0, sizeof q);
    q.head.nlmsg_len = sizeof q;
    q.head.nlmsg_type = SOCK_DIAG_BY_FAMILY;
    q.head.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    q.head.nlmsg_seq = seq;
    q.req.sdiag_family = (uint8_t)family;
    q.req.sdiag_protocol = IPPROTO_TCP;
    q.req.idiag_states = 1u << STATE_LISTEN;
    _Static_assert(sizeof q <= LISTENERS_QUESTION_MAX, "the question fits");
    memcpy(out, &q, sizeof q);
    return sizeof q;
}

/* 127.0.0.1 before all: nothing else can be shadowed by a firewall or a missing address.
 * [::] of a dual-stack program is dialled by IPv4, since a container without IPv6 has no
 * ::1 while the program still listens on [::]. */
static uint8_t rank_of(const struct listener *l)
{
    if (!l->is_v6) {
        if (l->addr[0] == 127)
            return l->addr[3] == 1 ? 0 : 2;
        return memcmp(l->addr, zeroes, 4) == 0 ? 1 : 7;
    }
    if (memcmp(l->addr, zeroes, 16) == 0)
        return l->is_dual ? 3 : 5;
    return memcmp(l->addr, &in6addr_loopback, 16) == 0 ? 4 : 8;
}

/* INET_DIAG_SKV6ONLY is told of every listening IPv6 socket. */
static bool is_v6only(const uint8_t *p, size_t len)
{
    struct nlattr a;
    size_t step;

    while (len >= sizeof a) {
        memcpy(&a, p, sizeof a);
        if (a.nla_len < sizeof a || a.nla_len > len)
            break;
        if (a.nla_type == INET_DIAG_SKV6ONLY && a.nla_len > sizeof a)
            return p[sizeof a] != 0;
        step = (size_t)NLA_ALIGN(a.nla_len);
        if (step >= len)
            break;
        p += step;
        len -= step;
    }
    return false;
}

static int add_one(struct listeners *l, const uint8_t *p, size_t len)
{
    struct inet_diag_msg m;
    struct listener *at, one;
    size_t cap;

    memcpy(&m, p, sizeof m);
    if (m.idiag_state != STATE_LISTEN || m.id.idiag_sport == 0 || l->n >= PORTWATCH_MAX)
        return 0;
    memset(&one, 0, sizeof one);
    one.port = ntohs(m.id.idiag_sport);
    one.inode = m.idiag_inode;
    one.uid = m.idiag_uid;
    memcpy(one.addr, m.id.idiag_src, sizeof one.addr);
    if (m.idiag_family == AF_INET6 &&
        memcmp(one.addr, v4_mapped, sizeof v4_mapped) == 0) {
        memmove(one.addr, one.addr + sizeof v4_mapped, 4);
        memset(one.addr + 4, 0, 12);
    } else if (m.idiag_family == AF_INET6) {
        one.is_v6 = 1;
        one.is_dual = !is_v6only(p + sizeof m, len - sizeof m);
        one.scope = m.id.idiag_if;
    } else if (m.idiag_family == AF_INET) {
        memset(one.addr + 4, 0, 12);
    } else {
        return 0;
    }
    one.rank = rank_of(&one);
    if (l->n == l->cap) {
        cap = l->cap ? l->cap * 2 : 32;
        at = mem_resize(l->at, cap * sizeof *at);
        if (!at)
            return -1;
        l->at = at;
        l->cap = cap;
    }
    l->at[l->n++] = one;
    return 0;
}

enum listeners_result listeners_read(struct listeners *l, struct span dgram, uint32_t seq,
                                     int *ret_errno)
{
    const uint8_t *p = dgram.p;
    size_t left = dgram.len, len;
    struct nlmsghdr h;
    bool is_changed = false;
    int err;

    while (left >= sizeof h) {
        memcpy(&h, p, sizeof h);
        if (h.nlmsg_len < sizeof h || h.nlmsg_len > left)
            return LISTENERS_BAD;
        len = h.nlmsg_len - sizeof h;
        is_changed = is_changed || (h.nlmsg_flags & NLM_F_DUMP_INTR) != 0;
        if (h.nlmsg_seq != seq) {
            /* the rest of a dump that we gave up */
        } else if (h.nlmsg_type == NLMSG_DONE) {
            return is_changed ? LISTENERS_INTERRUPTED : LISTENERS_DONE;
        } else if (h.nlmsg_type == NLMSG_ERROR) {
            if (len < sizeof err)
                return LISTENERS_BAD;
            memcpy(&err, p + sizeof h, sizeof err);
            *ret_errno = err < 0 && err > -4096 ? -err : EPROTO;
            return LISTENERS_REFUSED;
        } else if (h.nlmsg_type == SOCK_DIAG_BY_FAMILY) {
            if (len < sizeof(struct inet_diag_msg))
                return LISTENERS_BAD;
            if (add_one(l, p + sizeof h, len) < 0)
                return LISTENERS_NOMEM;
        }
        if (NLMSG_ALIGN(h.nlmsg_len) >= left)
            return LISTENERS_MORE;
        p += NLMSG_ALIGN(h.nlmsg_len);
        left -= NLMSG_ALIGN(h.nlmsg_len);
    }
    return left == 0 ? LISTENERS_MORE : LISTENERS_BAD;
}

/* The order is total: two rounds with the same sockets must choose the same one. */
static int compare(const void *pa, const void *pb)
{
    const struct listener *a = pa, *b = pb;
    int c;

    if (a->port != b->port)
        return a->port < b->port ? -1 : 1;
    if (a->rank != b->rank)
        return a->rank < b->rank ? -1 : 1;
    c = memcmp(a->addr, b->addr, sizeof a->addr);
    if (c != 0)
        return c;
    return a->inode < b->inode ? -1 : a->inode > b->inode;
}

void listeners_choose(struct listeners *l)
{
    size_t i, kept = 0;

    if (l->n > 1)
        qsort(l->at, l->n, sizeof *l->at, compare);
    for (i = 0; i < l->n; i++) {
        if (kept == 0 || l->at[kept - 1].port != l->at[i].port)
            l->at[kept++] = l->at[i];
    }
    l->n = kept;
}

void listeners_done(struct listeners *l)
{
    mem_free(l->at);
    memset(l, 0, sizeof *l);
}

bool listener_is_same(const struct listener *a, const struct listener *b)
{
    return a->inode == b->inode && a->is_v6 == b->is_v6 && a->is_dual == b->is_dual &&
           a->scope == b->scope && memcmp(a->addr, b->addr, sizeof a->addr) == 0;
}

static void address(struct sock_addr *ret, const struct listener *l)
{
    memset(ret, 0, sizeof *ret);
    if (l->is_v6) {
        ret->len = sizeof ret->u.in6;
        ret->u.in6.sin6_family = AF_INET6;
        ret->u.in6.sin6_port = htons(l->port);
        ret->u.in6.sin6_scope_id = l->scope;
        memcpy(&ret->u.in6.sin6_addr, l->addr, 16);
    } else {
        ret->len = sizeof ret->u.in;
        ret->u.in.sin_family = AF_INET;
        ret->u.in.sin_port = htons(l->port);
        memcpy(&ret->u.in.sin_addr, l->addr, 4);
    }
}

void listener_describe(const struct listener *l, struct portwatch_port *ret)
{
    static const uint8_t loopback4[16] = {127, 0, 0, 1};
    struct listener to = *l;

    memset(ret, 0, sizeof *ret);
    ret->port = l->port;
    ret->inode = l->inode;
    ret->uid = l->uid;
    address(&ret->listen, l);
    if (memcmp(l->addr, zeroes, l->is_v6 ? 16 : 4) == 0) {
        to.scope = 0;
        if (l->is_v6 && !l->is_dual) {
            memcpy(to.addr, &in6addr_loopback, 16);
        } else {
            to.is_v6 = 0;
            memcpy(to.addr, loopback4, 16);
        }
    }
    address(&ret->dial, &to);
}
