/* SPDX-License-Identifier: MIT */
/*
 * Other programs' changes. The kernel tells each change with the port id of the socket
 * that asked for it, and port ids are unique in a namespace while their socket lives:
 * what is not ours is another's. A change that nobody asked for (a device that went, and
 * its chain's hook with it) has port id 0.
 *
 * Ours are left out by the socket's filter: each policy would come back whole. A
 * message of the kernel holds what one transaction did, so its first header tells whose
 * all of it is.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "agentd/egress/kernel/nft_int.h"

enum {
    MONITOR_BUF = 1 << 20,
    MONITOR_READS = 64, /* in one call; the rest waits for the next */
};

/* Whether the first header's port id is `own`. Filters load in network byte order. */
static int leave_out(int fd, uint32_t own, struct err *e)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct nlmsghdr, nlmsg_pid)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htonl(own), 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
    };
    struct sock_fprog p = {.len = COUNT_OF(code), .filter = code};

    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &p, sizeof(p)) < 0
               ? err_sys(e, "leave our own changes of nftables out")
               : 0;
}

bool nft_monitor_all(int fd)
{
    int on = 1;

    return setsockopt(fd, SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, &on, sizeof(on)) == 0;
}

int nft_monitor_start(int fd, uint32_t own, struct err *e)
{
    struct sockaddr_nl a = {.nl_family = AF_NETLINK};
    int group = NFNLGRP_NFTABLES, size = MONITOR_BUF;

    if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 && errno != EINVAL)
        return err_sys(e, "bind a netlink socket");
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    if (leave_out(fd, own, e) < 0)
        return -1;
    if (setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)) < 0)
        return err_sys(e, "watch nftables for changes");
    return 0;
}

/* Is a message about our tables? Attribute 1 is the table's name in every kind of them
 * but NEWGEN's. */
static bool is_ours(const struct nlmsghdr *m, const char *table)
{
    const uint8_t *p = (const uint8_t *)m + NLMSG_HDRLEN + sizeof(struct nfgenmsg);
    size_t left = m->nlmsg_len - NLMSG_HDRLEN - sizeof(struct nfgenmsg);
    struct nlattr a;

    if (m->nlmsg_type == (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN))
        return false;
    while (left >= sizeof(a)) {
        size_t step;

        memcpy(&a, p, sizeof(a));
        if (a.nla_len < sizeof(a) || a.nla_len > left)
            return true; /* cannot be read: look */
        if ((a.nla_type & NLA_TYPE_MASK) == NFTA_TABLE_NAME)
            return a.nla_len == sizeof(a) + strlen(table) + 1 &&
                   memcmp(p + sizeof(a), table, strlen(table) + 1) == 0;
        step = NLA_ALIGN(a.nla_len);
        if (step > left)
            break;
        p += step;
        left -= step;
    }
    return false;
}

bool nft_news_touches(const struct nft_news *news, const struct nft *n)
{
    const uint8_t *p = news->at;
    size_t len = news->len;

    while (len >= sizeof(struct nlmsghdr)) {
        const struct nlmsghdr *m = (const struct nlmsghdr *)(const void *)p;
        size_t step;

        if (m->nlmsg_len < sizeof(*m) || m->nlmsg_len > len)
            return true;
        if (m->nlmsg_type >> 8 == NFNL_SUBSYS_NFTABLES && m->nlmsg_pid != nft_port(n) &&
            m->nlmsg_len >= NLMSG_HDRLEN + sizeof(struct nfgenmsg) &&
            is_ours(m, nft_table(n)))
            return true;
        step = NLMSG_ALIGN(m->nlmsg_len);
        if (step > len)
            break;
        p += step;
        len -= step;
    }
    return false;
}

static int nsid_of(struct msghdr *h)
{
    int id = -1;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c != NULL; c = CMSG_NXTHDR(h, c))
        if (c->cmsg_level == SOL_NETLINK && c->cmsg_type == NETLINK_LISTEN_ALL_NSID &&
            c->cmsg_len == CMSG_LEN(sizeof(id)))
            memcpy(&id, CMSG_DATA(c), sizeof(id));
    return id;
}

enum nft_got nft_monitor_next(int fd, struct nft_news *ret)
{
    _Alignas(struct cmsghdr) uint8_t room[CMSG_SPACE(sizeof(int))];
    struct sockaddr_nl from;
    struct iovec iov = {ret->at, sizeof(ret->at)};

    for (;;) {
        struct msghdr h = {.msg_name = &from,
                           .msg_namelen = sizeof(from),
                           .msg_iov = &iov,
                           .msg_iovlen = 1,
                           .msg_control = room,
                           .msg_controllen = sizeof(room)};
        ssize_t got = recvmsg(fd, &h, MSG_DONTWAIT);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return errno == ENOBUFS ? NFT_GOT_LOST : NFT_GOT_NONE;
        if (h.msg_namelen < sizeof(from) || from.nl_pid != 0)
            continue; /* not the kernel */
        if ((h.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0)
            return NFT_GOT_LOST;
        ret->nsid = nsid_of(&h);
        ret->len = (size_t)got;
        return NFT_GOT_NEWS;
    }
}

enum nft_change nft_monitor_read(const struct nft *n, int fd)
{
    enum nft_change change = NFT_CHANGE_NONE;
    struct nft_news news;

    for (int i = 0; i < MONITOR_READS; i++) {
        switch (nft_monitor_next(fd, &news)) {
        case NFT_GOT_LOST:
            return NFT_CHANGE_LOST;
        case NFT_GOT_NONE:
            return change;
        case NFT_GOT_NEWS:
            if (nft_news_touches(&news, n))
                change = NFT_CHANGE_OURS_TOUCHED;
            break;
        }
    }
    return change;
}
