/* SPDX-License-Identifier: MIT */
/*
 * Reading is done by the guard on bytes of which the packet is the sandbox's: every
 * length is compared before it is used, and what is cut is left out. The mark tells
 * sandbox and reason (nft_int.h: NFT_REFUSED | index << 8 | why).
 */
#include "agentd/egress/kernel/nflog.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "agentd/egress/kernel/nft_int.h"

enum {
    BIND_MS = 2000,
    NFLOG_BUF = 1 << 20,
    IP4_HEAD = 20,
    IP6_HEAD = 40,
    EXTENSIONS_MAX = 8, /* IPv6 extension headers that are looked past */
};

/* -- binding ------------------------------------------------------------------------- */

struct request {
    struct nlmsghdr h;
    struct nfgenmsg g;
    uint8_t attrs[64];
};

static void attr(struct request *r, uint16_t type, const void *p, size_t len)
{
    struct nlattr a = {.nla_len = (uint16_t)(sizeof(a) + len), .nla_type = type};
    uint8_t *at = (uint8_t *)r + r->h.nlmsg_len;

    memcpy(at, &a, sizeof(a));
    memcpy(at + sizeof(a), p, len);
    r->h.nlmsg_len += (uint32_t)NLA_ALIGN(a.nla_len);
}

static int ask(int fd, struct request *r, const char *what, struct err *e)
{
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    struct {
        struct nlmsghdr h;
        struct nlmsgerr r;
        uint8_t rest[256];
    } in;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    ssize_t n;

    if (sendto(fd, r, r->h.nlmsg_len, 0, (struct sockaddr *)&kernel, sizeof(kernel)) < 0)
        return err_sys(e, "nflog: %s", what);
    do
        n = recv(fd, &in, sizeof(in), MSG_DONTWAIT);
    while ((n < 0 && errno == EINTR) ||
           (n < 0 && errno == EAGAIN && poll(&p, 1, BIND_MS) > 0) ||
           (n >= (ssize_t)sizeof(in.h) && in.h.nlmsg_type != NLMSG_ERROR));
    if (n < (ssize_t)(sizeof(in.h) + sizeof(in.r.error)))
        return n < 0 ? err_sys(e, "nflog: %s", what)
                     : err_set(e, ERR_PROTO, "nflog: %s: a cut answer", what);
    if (in.r.error != 0)
        return err_set_at(e, ERR_SYS, -in.r.error, ERR_WHERE, "nflog: %s: %s", what,
                          strerror(-in.r.error));
    return 0;
}

static void begin(struct request *r, uint16_t group)
{
    *r = (struct request){
        .h = {.nlmsg_len = NLMSG_LENGTH(sizeof(r->g)),
              .nlmsg_type = NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_CONFIG,
              .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK,
              .nlmsg_seq = 1},
        .g = {.version = NFNETLINK_V0, .res_id = htons(group)},
    };
}

int nflog_bind(int fd, uint16_t group, struct err *e)
{
    struct nfulnl_msg_config_cmd cmd = {.command = NFULNL_CFG_CMD_BIND};
    struct nfulnl_msg_config_mode mode = {.copy_range = htonl(NFT_LOG_BYTES),
                                          .copy_mode = NFULNL_COPY_PACKET};
    uint32_t one = htonl(1); /* a message a packet: at once, and a loss loses one */
    int size = NFLOG_BUF, off = 1;
    struct request r;

    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    /* What is lost is lost: the counters have the number, and the reader is not to spin
     * on it. */
    (void)setsockopt(fd, SOL_NETLINK, NETLINK_NO_ENOBUFS, &off, sizeof(off));
    begin(&r, group);
    attr(&r, NFULA_CFG_CMD, &cmd, sizeof(cmd));
    if (ask(fd, &r, "bind the group", e) < 0)
        return -1;
    begin(&r, group);
    attr(&r, NFULA_CFG_MODE, &mode, sizeof(mode));
    attr(&r, NFULA_CFG_QTHRESH, &one, sizeof(one));
    return ask(fd, &r, "set what is copied", e);
}

/* -- reading ------------------------------------------------------------------------- */

static uint16_t be16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)be16(p) << 16 | be16(p + 2);
}

static void ports(struct span l4, struct nflog_packet *ret)
{
    bool has = ret->protocol == IPPROTO_TCP || ret->protocol == IPPROTO_UDP ||
               ret->protocol == IPPROTO_SCTP;

    if (!has || l4.len < 4)
        return;
    ret->from_port = be16(l4.p);
    ret->to_port = be16(l4.p + 2);
}

static void set_addr(struct ip_addr *a, uint8_t family, const uint8_t *p)
{
    struct sock_addr s = {0};

    /* By way of ip.c, so that a mapped address is what it maps here as everywhere. */
    s.u.sa.sa_family = family;
    if (family == AF_INET)
        memcpy(&s.u.in.sin_addr, p, 4);
    else
        memcpy(&s.u.in6.sin6_addr, p, 16);
    s.len = family == AF_INET ? sizeof(s.u.in) : sizeof(s.u.in6);
    ip_from_sock(&s, a);
}

static void read_ip4(struct span p, struct nflog_packet *ret)
{
    size_t head = p.len > 0 ? (size_t)(p.p[0] & 15) * 4 : 0;

    if (p.len < IP4_HEAD || head < IP4_HEAD)
        return;
    ret->protocol = p.p[9];
    set_addr(&ret->from, AF_INET, p.p + 12);
    set_addr(&ret->to, AF_INET, p.p + 16);
    if (head <= p.len && (be16(p.p + 6) & 0x1fff) == 0)
        ports(span_skip(p, head), ret);
}

static void read_ip6(struct span p, struct nflog_packet *ret)
{
    uint8_t next;

    if (p.len < IP6_HEAD)
        return;
    next = p.p[6];
    set_addr(&ret->from, AF_INET6, p.p + 8);
    set_addr(&ret->to, AF_INET6, p.p + 24);
    p = span_skip(p, IP6_HEAD);
    for (int i = 0; i < EXTENSIONS_MAX; i++) {
        bool is_fragment = next == IPPROTO_FRAGMENT;
        size_t len;

        if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING &&
            next != IPPROTO_DSTOPTS && !is_fragment)
            break;
        len = p.len < 8 ? 8 : is_fragment ? 8 : ((size_t)p.p[1] + 1) * 8;
        if (p.len < len || (is_fragment && (be16(p.p + 2) & 0xfff8) != 0)) {
            ret->protocol = p.len < len ? next : p.p[0];
            return;
        }
        next = p.p[0];
        p = span_skip(p, len);
    }
    ret->protocol = next;
    ports(p, ret);
}

static void read_packet(struct span p, struct nflog_packet *ret)
{
    if (p.len == 0)
        return;
    if (p.p[0] >> 4 == 4)
        read_ip4(p, ret);
    else if (p.p[0] >> 4 == 6)
        read_ip6(p, ret);
}

/* One message's attributes. False: not a refusal of ours. */
static bool read_message(struct span left, struct nflog_packet *ret)
{
    uint32_t mark = 0;

    *ret = (struct nflog_packet){.uid = UINT32_MAX};
    while (left.len >= sizeof(struct nlattr)) {
        struct nlattr a;
        struct span value;
        size_t step;

        memcpy(&a, left.p, sizeof(a));
        if (a.nla_len < sizeof(a) || a.nla_len > left.len)
            return false;
        value = span_of(left.p + sizeof(a), a.nla_len - sizeof(a));
        switch (a.nla_type & NLA_TYPE_MASK) {
        case NFULA_MARK:
            mark = value.len >= 4 ? be32(value.p) : 0;
            break;
        case NFULA_UID:
            ret->uid = value.len >= 4 ? be32(value.p) : UINT32_MAX;
            break;
        case NFULA_PAYLOAD:
            read_packet(value, ret);
            break;
        default:
            break;
        }
        step = (size_t)NLA_ALIGN(a.nla_len);
        left = step < left.len ? span_skip(left, step) : span_of(NULL, 0);
    }
    if ((mark & NFT_REFUSED_MASK) != NFT_REFUSED)
        return false;
    ret->index = mark >> 8 & 0xffff;
    (void)snprintf(ret->why, sizeof(ret->why), "%s",
                   nft_why_name((enum nft_why)(mark & 0xff)));
    return true;
}

bool nflog_next(struct span dgram, size_t *pos, struct nflog_packet *ret)
{
    static const size_t head = NLMSG_HDRLEN + sizeof(struct nfgenmsg);

    while (*pos < dgram.len && dgram.len - *pos >= head) {
        const uint8_t *p = dgram.p + *pos;
        size_t left = dgram.len - *pos;
        struct nlmsghdr m;

        memcpy(&m, p, sizeof(m));
        if (m.nlmsg_len < sizeof(m) || m.nlmsg_len > left)
            break;
        *pos += NLMSG_ALIGN(m.nlmsg_len) < left ? NLMSG_ALIGN(m.nlmsg_len) : left;
        if (m.nlmsg_type == (NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_PACKET) &&
            m.nlmsg_len >= head &&
            read_message(span_of(p + head, m.nlmsg_len - head), ret))
            return true;
    }
    *pos = dgram.len;
    return false;
}
