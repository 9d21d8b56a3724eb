/* SPDX-License-Identifier: MIT */
/*
 * The netlink socket: a batch out, its answers in; dumps.
 *
 * A batch must be one datagram, so the send buffer must hold it: SO_SNDBUFFORCE is for
 * CAP_NET_ADMIN of the first user namespace only, others get twice net.core.wmem_max.
 * Only the last message asks for an acknowledgement: errors come unasked, with the
 * sequence number of their message, before it. An error that the receive buffer had no
 * room for (ENOBUFS) is an error all the same: one acknowledgement always fits.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "agentd/egress/kernel/nft_int.h"
#include "common/mem.h"

enum {
    RECV_BUF = 1 << 20,
};

/* -- messages ------------------------------------------------------------------------ */

/* The next message; NULL at the end, or at what is cut. *pos from 0. */
static const struct nlmsghdr *message_next(struct span in, size_t *pos)
{
    const struct nlmsghdr *m = (const struct nlmsghdr *)(const void *)(in.p + *pos);
    size_t left = in.len - *pos;

    if (left < sizeof(*m) || m->nlmsg_len < sizeof(*m) || m->nlmsg_len > left)
        return NULL;
    *pos += NLMSG_ALIGN(m->nlmsg_len) < left ? NLMSG_ALIGN(m->nlmsg_len) : left;
    return m;
}

struct span message_attr(const struct nlmsghdr *m, size_t head, uint16_t type)
{
    size_t at = NLMSG_HDRLEN + NLMSG_ALIGN(head);

    while (at + sizeof(struct nlattr) <= m->nlmsg_len) {
        const uint8_t *p = (const uint8_t *)m + at;
        struct nlattr a;

        memcpy(&a, p, sizeof(a));
        if (a.nla_len < sizeof(a) || a.nla_len > m->nlmsg_len - at)
            break;
        if ((a.nla_type & NLA_TYPE_MASK) == type)
            return span_of(p + sizeof(a), a.nla_len - sizeof(a));
        at += (size_t)NLA_ALIGN(a.nla_len);
    }
    return span_of(NULL, 0);
}

void message_text_attr(const struct nlmsghdr *m, uint16_t type, char *out, size_t cap)
{
    struct span a = message_attr(m, sizeof(struct nfgenmsg), type);

    (void)snprintf(out, cap, "%.*s",
                   a.len > 0 ? (int)strnlen((const char *)a.p, a.len) : 0,
                   a.len > 0 ? (const char *)a.p : "");
}

/* Is it an error or acknowledgement? *ret_error: errno, or 0. */
static bool message_error(const struct nlmsghdr *m, int *ret_error)
{
    struct nlmsgerr r;

    if (m->nlmsg_type != NLMSG_ERROR || m->nlmsg_len < NLMSG_HDRLEN + sizeof(r))
        return false;
    memcpy(&r, (const uint8_t *)m + NLMSG_HDRLEN, sizeof(r));
    *ret_error = -r.error;
    return true;
}

/* -- opening ------------------------------------------------------------------------- */

static int set_up(struct nft_link *l, struct err *e)
{
    struct sockaddr_nl a = {.nl_family = AF_NETLINK};
    struct timeval wait = {.tv_sec = NFT_LINK_MS / 1000};
    socklen_t len = sizeof(a);
    int one = 1, size = RECV_BUF, flags = fcntl(l->fd, F_GETFL);

    if (flags < 0 || fcntl(l->fd, F_SETFL, flags & ~O_NONBLOCK) < 0)
        return err_sys(e, "netlink socket");
    /* Bound already is fine: only the address counts. */
    if (bind(l->fd, (struct sockaddr *)&a, sizeof(a)) < 0 && errno != EINVAL)
        return err_sys(e, "bind a netlink socket");
    if (getsockname(l->fd, (struct sockaddr *)&a, &len) < 0 || a.nl_family != AF_NETLINK)
        return err_sys(e, "ask for a netlink socket's address");
    l->port = a.nl_pid;
    if (setsockopt(l->fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) < 0 ||
        setsockopt(l->fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)) < 0)
        return err_sys(e, "set a netlink socket's deadline");
    /* Texts and short answers are a comfort that old kernels lack. */
    (void)setsockopt(l->fd, SOL_NETLINK, NETLINK_EXT_ACK, &one, sizeof(one));
    (void)setsockopt(l->fd, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof(one));
    if (setsockopt(l->fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0)
        (void)setsockopt(l->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    return 0;
}

bool nft_bind(int fd, uint32_t port)
{
    struct sockaddr_nl a = {.nl_family = AF_NETLINK, .nl_pid = port};

    return bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0;
}

int link_open(struct nft_link *l, int *take_fd, struct err *e)
{
    *l = (struct nft_link){.fd = *take_fd, .seq = 1};
    *take_fd = -1;
    l->in = mem_alloc(NFT_LINK_IN);
    if (l->in == NULL) {
        link_done(l);
        return err_set(e, ERR_NOMEM, "no memory for a netlink socket");
    }
    if (set_up(l, e) == 0)
        return 0;
    link_done(l);
    return -1;
}

void link_done(struct nft_link *l)
{
    if (l->fd >= 0)
        (void)close(l->fd);
    mem_free(l->in);
    *l = (struct nft_link){.fd = -1};
}

/* -- a batch ------------------------------------------------------------------------- */

void link_begin(struct nft_link *l, struct nft_batch *b, const char *table)
{
    batch_reset(b, table, l->seq);
    batch_begin(b);
}

/* The send buffer as large as this batch. The kernel counts its own overhead in it,
 * too. */
static int make_room(struct nft_link *l, size_t len, struct err *e)
{
    int size = len > INT32_MAX / 4 ? INT32_MAX / 4 : (int)len + 4096, got = 0;
    socklen_t n = sizeof(got);

    if (len <= l->send_max)
        return 0;
    if (setsockopt(l->fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0 &&
        setsockopt(l->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) < 0)
        return err_sys(e, "set a netlink socket's send buffer");
    if (getsockopt(l->fd, SOL_SOCKET, SO_SNDBUF, &got, &n) < 0)
        return err_sys(e, "ask for a netlink socket's send buffer");
    l->send_max = got > 64 ? (size_t)got - 64 : 0;
    if (len > l->send_max)
        return err_set(
            e, ERR_LIMIT,
            "the rules take %zu bytes, and the kernel takes at most %zu at once from "
            "this user (net.core.wmem_max)",
            len, l->send_max);
    return 0;
}

static void comment_of(const struct nlmsghdr *m, char *out, size_t cap)
{
    struct span a = message_attr(m, sizeof(struct nfgenmsg), NFTA_RULE_USERDATA);

    if (a.len > 2)
        (void)snprintf(out, cap, " (%.*s)", (int)(a.len - 3), (const char *)a.p + 2);
}

/* "add rule in s1 (floor)". Of our own messages only. */
static void message_name(const struct nlmsghdr *m, char *out, size_t cap)
{
    static const struct {
        uint16_t type, name;
        const char *what;
    } row[] = {
        {NFT_MSG_NEWTABLE, NFTA_TABLE_NAME, "add table"},
        {NFT_MSG_DELTABLE, NFTA_TABLE_NAME, "delete table"},
        {NFT_MSG_NEWCHAIN, NFTA_CHAIN_NAME, "add chain"},
        {NFT_MSG_DELCHAIN, NFTA_CHAIN_NAME, "delete chain"},
        {NFT_MSG_NEWRULE, NFTA_RULE_CHAIN, "add a rule to"},
        {NFT_MSG_DELRULE, NFTA_RULE_CHAIN, "flush chain"},
        {NFT_MSG_NEWSET, NFTA_SET_NAME, "add set"},
        {NFT_MSG_DELSET, NFTA_SET_NAME, "delete set"},
        {NFT_MSG_NEWSETELEM, NFTA_SET_ELEM_LIST_SET, "add elements to"},
        {NFT_MSG_DELSETELEM, NFTA_SET_ELEM_LIST_SET, "delete elements of"},
        {NFT_MSG_NEWOBJ, NFTA_OBJ_NAME, "add object"},
        {NFT_MSG_DELOBJ, NFTA_OBJ_NAME, "delete object"},
    };
    char name[64], why[140] = "";

    for (size_t i = 0; i < COUNT_OF(row); i++) {
        if (m->nlmsg_type != (NFNL_SUBSYS_NFTABLES << 8 | row[i].type))
            continue;
        message_text_attr(m, row[i].name, name, sizeof(name));
        if (row[i].type == NFT_MSG_NEWRULE)
            comment_of(m, why, sizeof(why));
        (void)snprintf(out, cap, "%s %s%s", row[i].what, name, why);
        return;
    }
    (void)snprintf(out, cap, "change the rules");
}

static const struct nlmsghdr *find_seq(const struct nft_batch *b, uint32_t seq)
{
    const struct nlmsghdr *m;
    size_t pos = 0;

    while ((m = message_next(buf_span(&b->bytes), &pos)) != NULL)
        if (m->nlmsg_seq == seq)
            return m;
    return NULL;
}

/* An answer that is an error, in words. */
static int refused(const struct nft_batch *b, const struct nlmsghdr *m, int error,
                   struct err *e)
{
    const struct nlmsghdr *ours = find_seq(b, m->nlmsg_seq);
    char what[224] = "change the rules";
    struct span why = {0};

    if (ours != NULL)
        message_name(ours, what, sizeof(what));
    if (m->nlmsg_flags & NLM_F_ACK_TLVS && m->nlmsg_flags & NLM_F_CAPPED)
        why = message_attr(m, sizeof(struct nlmsgerr), NLMSGERR_ATTR_MSG);
    if (why.len > 0)
        why.len--; /* its NUL */
    /* A set at its bound says ENFILE, which reads as something else. */
    return err_set_at(e, error == ENFILE ? ERR_LIMIT : ERR_SYS, error, ERR_WHERE,
                      "nftables: %s: %s%s%.*s", what,
                      error == ENFILE ? "the set is full" : strerror(error),
                      why.len > 0 ? ": " : "", SPAN_FMT(why));
}

/* One datagram of answers: 1 acknowledged, 0 nothing decided, -1 refused. */
static int answers(const struct nft_batch *b, struct span in, struct err *e)
{
    uint32_t first = ((const struct nlmsghdr *)(const void *)b->bytes.p)->nlmsg_seq;
    const struct nlmsghdr *m;
    size_t pos = 0;

    while ((m = message_next(in, &pos)) != NULL) {
        int error;

        if (m->nlmsg_seq - first >= b->seq - first || !message_error(m, &error))
            continue;
        if (error != 0)
            return refused(b, m, error, e);
        if (m->nlmsg_seq == b->seq - 2) /* the last one, before the batch's end */
            return 1;
    }
    return 0;
}

int link_send(struct nft_link *l, const void *p, size_t len, struct err *e)
{
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    ssize_t n;

    do
        n = sendto(l->fd, p, len, 0, (struct sockaddr *)&kernel, sizeof(kernel));
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return err_sys(e, "nftables: send %zu bytes of rules", len);
    return (size_t)n == len ? 0 : err_set(e, ERR_PROTO, "nftables: rules sent in part");
}

/* The next datagram from the kernel itself; its length, or -1. */
ssize_t link_take(struct nft_link *l, struct err *e)
{
    struct sockaddr_nl from = {0};
    socklen_t len = sizeof(from);
    ssize_t n;

    for (;;) {
        n = recvfrom(l->fd, l->in, NFT_LINK_IN, 0, (struct sockaddr *)&from, &len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return err_set(e, ERR_TIMEOUT, "nftables: no answer within %d ms",
                           NFT_LINK_MS);
        if (n < 0 && errno == ENOBUFS)
            return err_sys(
                e, "nftables: refused, with more errors than fit a socket's buffer");
        if (n < 0)
            return err_sys(e, "nftables: read the answer");
        if (from.nl_pid == 0)
            return n;
    }
}

/* Answers that nobody waited for, of a batch before. */
void link_drain(struct nft_link *l)
{
    while (recv(l->fd, l->in, NFT_LINK_IN, MSG_DONTWAIT) >= 0 || errno == ENOBUFS ||
           errno == EINTR)
        ;
}

int link_commit(struct nft_link *l, struct nft_batch *b, struct err *e)
{
    int rc = 0;

    batch_end(b);
    l->seq = b->seq;
    if (b->is_failed)
        return err_set(e, ERR_NOMEM, "no memory for the rules, or over %d bytes of them",
                       NFT_BATCH_MAX);
    if (make_room(l, b->bytes.len, e) < 0 ||
        link_send(l, b->bytes.p, b->bytes.len, e) < 0)
        return -1;
    while (rc == 0) {
        ssize_t n = link_take(l, e);

        rc = n < 0 ? -1 : answers(b, span_of(l->in, (size_t)n), e);
    }
    if (rc < 0)
        link_drain(l);
    return rc < 0 ? -1 : 0;
}
