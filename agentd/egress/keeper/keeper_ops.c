/* SPDX-License-Identifier: MIT */
/*
 * The guard reads hostile bytes, so it may be a sandbox's by now. What it can ask for is
 * here, and none of it gives a sandbox more than its kernel rules do: a reply socket only
 * sends, an answer about a process goes to the audit record, and a proposal is printed.
 */
#include "agentd/egress/keeper/keeper_int.h"

#include <errno.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "common/mem.h"
#include "common/sock.h"

#ifndef IPV6_TRANSPARENT
#define IPV6_TRANSPARENT 75
#endif

enum {
    REPLY_PER_S = 16,
    DNS_PORT = 53,
};

/* -- WANT_REPLY ---------------------------------------------------------------------- */

static bool may_reply_from(const struct channel_msg *m)
{
    static const uint8_t zero[16];
    const struct ip_addr *a = &m->to;

    if (m->to_port != DNS_PORT || m->protocol != IPPROTO_UDP)
        return false;
    if (a->family != AF_INET && a->family != AF_INET6)
        return false;
    return ip_classify(a) != IP_MULTICAST && memcmp(a->bytes, zero, sizeof zero) != 0;
}

/* It only sends: what the sandbox would send to it is dropped before it takes memory. And
 * that for good, or it would be a name server at whatever address the guard likes. */
static int send_only(int fd, struct err *e)
{
    struct sock_filter none = BPF_STMT(BPF_RET | BPF_K, 0);
    struct sock_fprog drop = {.len = 1, .filter = &none};
    int on = 1;

    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &drop, sizeof drop) < 0 ||
                   setsockopt(fd, SOL_SOCKET, SO_LOCK_FILTER, &on, sizeof on) < 0
               ? err_sys(e, "close a reply socket's inside")
               : 0;
}

/* In the host's namespace only the sandbox's own way. */
static int keep_to_way(const struct kept *s, int fd, struct err *e)
{
    const char *way = s->veth.way;

    return s->tier == EGRESS_VETH && setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, way,
                                                (socklen_t)strlen(way)) < 0
               ? err_sys(e, "bind a reply socket to %s", way)
               : 0;
}

/* Connected to whom nobody is: or it would take the questions that others, the host first
 * of all, send to a name server at the same address. What is sent names its destination
 * each time. By itself, or, where that has no route by the sandbox's way, to the
 * multicast address of all, which no packet comes from. */
static int turn_away(int fd, const struct sock_addr *at, struct err *e)
{
    struct sock_addr all = *at;

    if (connect(fd, &at->u.sa, at->len) == 0)
        return 0;
    if (at->u.sa.sa_family == AF_INET6)
        all.u.in6.sin6_addr =
            (struct in6_addr){.s6_addr = {[0] = 0xff, [1] = 0x02, [15] = 0x01}};
    else
        all.u.in.sin_addr.s_addr = htonl(INADDR_ALLHOSTS_GROUP);
    return connect(fd, &all.u.sa, all.len) < 0 ? err_sys(e, "turn a reply socket away")
                                               : 0;
}

static int reply_socket(const struct kept *s, const struct ip_addr *a, struct err *e)
{
    bool is6 = a->family == AF_INET6;
    int fd = kept_socket(s, a->family, SOCK_DGRAM, e);
    struct sock_addr at;
    int on = 1, rc = 0;

    if (fd < 0)
        return -1;
    ip_to_sock(a, DNS_PORT, &at);
    if (setsockopt(fd, is6 ? IPPROTO_IPV6 : IPPROTO_IP,
                   is6 ? IPV6_TRANSPARENT : IP_TRANSPARENT, &on, sizeof on) < 0)
        rc = err_sys(e, "make a reply socket transparent");
    if (rc == 0)
        rc = send_only(fd, e);
    if (rc == 0)
        rc = keep_to_way(s, fd, e);
    if (rc == 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0)
        rc = err_sys(e, "share a reply socket's address");
    if (rc == 0 && bind(fd, &at.u.sa, at.len) < 0)
        rc = err_sys(e, "bind a reply socket");
    if (rc == 0)
        rc = turn_away(fd, &at, e);
    if (rc < 0)
        sock_close(&fd);
    return fd;
}

static bool is_taken(const struct kept *s, const struct ip_addr *a)
{
    struct err e = {0};
    int fd = reply_socket(s, a, &e);

    if (fd >= 0)
        sock_close(&fd);
    return fd < 0 && e.sys == EADDRINUSE;
}

/* Asked of the kernel each time, so that it ends when its cause does. An address for
 * documentation is nobody's: it is taken only where all addresses are. */
bool keeper_is_mute(const struct kept *s, char ret[KEEPER_MUTE_MAX])
{
    static const struct ip_addr nobodys = {AF_INET, {192, 0, 2, 53}};
    char ip[IP_TEXT_MAX];
    const char *where = NULL;

    if (s->tier != EGRESS_VETH)
        return false;
    if (is_taken(s, &nobodys))
        where = "all addresses";
    else if (s->mute.family != 0 && is_taken(s, &s->mute))
        where = ip_print(&s->mute, ip);
    if (where)
        (void)snprintf(
            ret, KEEPER_MUTE_MAX,
            "a program of the host holds UDP port 53 at %s without "
            "SO_REUSEADDR, so no answer about names can be sent from there: let "
            "that name server (`ss -lunp 'sport = :53'` tells which) listen at "
            "addresses that no sandbox asks",
            where); /* it fits */
    return where != NULL;
}

static void on_want_reply(struct kept *s, const struct channel_msg *m)
{
    struct keeper *k = s->keeper;
    struct channel_msg answer;
    struct err e = {0};

    channel_msg_init(&answer, CHANNEL_REPLY, s->index);
    answer.seq = m->seq;
    if (!may_reply_from(m))
        answer.error = EINVAL;
    else if (!kept_rate_ok(&s->reply_rate, loop_now(k->loop), REPLY_PER_S))
        answer.error = EBUSY;
    else
        answer.fd[CHANNEL_FD_REPLY] = reply_socket(s, &m->to, &e);
    if (answer.error == 0 && answer.fd[CHANNEL_FD_REPLY] < 0) {
        answer.error = e.sys > 0 && e.sys < 4096 ? e.sys : EIO;
        if (e.sys == EADDRINUSE)
            s->mute = m->to;
        if (kept_rate_ok(&s->log_rate, loop_now(k->loop), 1))
            log_warn("reply.socket", "sandbox=%s error=%s", s->name, log_e(&e));
    }
    guard_answer(k, &answer);
}

/* -- the rest ------------------------------------------------------------------------ */

static void on_ask_who(struct kept *s, const struct channel_msg *m)
{
    struct channel_msg answer;

    channel_msg_init(&answer, CHANNEL_WHO, s->index);
    answer.seq = m->seq;
    keeper_who(s, m, &answer);
    guard_answer(s->keeper, &answer);
}

/* Only text that is a policy goes on: the proposal is made of names that a
 * sandbox chose. */
static void on_proposal(struct kept *s, const struct channel_msg *m)
{
    struct keeper *k = s->keeper;
    AUTO(buf_done)
    struct buf text = BUF_INIT;
    struct policy_faults *faults;
    struct policy *p = NULL;
    struct err e = {0};

    if (!k->conf.on_proposal)
        return;
    faults = mem_zalloc(1, sizeof *faults);
    if (faults &&
        channel_text_in(m->fd[CHANNEL_FD_POLICY], POLICY_TEXT_MAX, &text, &e) == 0)
        p = policy_compile(buf_span(&text), NULL, faults);
    if (p)
        k->conf.on_proposal(k->conf.arg, s->name, buf_span(&text));
    else
        log_warn("proposal", "sandbox=%s error=%s", s->name,
                 e.code != ERR_NONE ? log_e(&e) : "\"it is no policy\"");
    policy_unref(p);
    mem_free(faults);
}

/* Each guard counts from 0; how many there were before the keeper knows. */
static void on_counts(struct kept *s, const struct channel_msg *m)
{
    struct keeper *k = s->keeper;

    s->counts = m->counts;
    if (k->guard_lost_restarts != k->guard.restarts) {
        k->guards_lost += k->guard_lost;
        k->guard_lost_restarts = k->guard.restarts;
    }
    k->guard_lost = m->counts.audit_lost;
}

bool keeper_request(struct keeper *k, struct channel_msg *m)
{
    struct kept *s = keeper_by_index(k, m->sandbox);

    if (channel_is_keepers(m->type))
        return false;
    if (!s) /* it went while the record was on its way; requests still want their answer */
        return true;
    switch (m->type) {
    case CHANNEL_IN_FORCE:
        kept_in_force(s, m->seq);
        return true;
    case CHANNEL_REFUSED:
        kept_refused(s, m->seq, m->text);
        return true;
    case CHANNEL_REMOVED:
        kept_removed(s);
        return true;
    case CHANNEL_COUNTS:
        on_counts(s, m);
        return true;
    case CHANNEL_WANT_REPLY:
        on_want_reply(s, m);
        return true;
    case CHANNEL_ASK_WHO:
        on_ask_who(s, m);
        return true;
    case CHANNEL_PROPOSAL:
        on_proposal(s, m);
        return true;
    default:
        return false;
    }
}
