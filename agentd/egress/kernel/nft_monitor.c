/* SPDX-License-Identifier: MIT */
/*
 * Other programs' changes. The kernel tells each change with the port id of the socket
 * that asked for it, and port ids are unique in a namespace while their socket lives:
 * what is not ours is another's. A change that nobody asked for (a device that went, and
 * its chain's hook with it) has port id 0.
 */
#include <errno.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>

#include "agentd/egress/kernel/nft_int.h"

enum {
    MONITOR_BUF = 1 << 20,
    MONITOR_READ = 65536,
    MONITOR_READS = 64, /* in one call; the rest waits for the next */
};

int nft_monitor_start(int fd, struct err *e)
{
    struct sockaddr_nl a = {.nl_family = AF_NETLINK};
    int group = NFNLGRP_NFTABLES, size = MONITOR_BUF;

    if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 && errno != EINVAL)
        return err_sys(e, "bind a netlink socket");
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
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

static bool is_touched(const uint8_t *p, size_t len, const struct nft *n)
{
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

enum nft_change nft_monitor_read(const struct nft *n, int fd)
{
    static const int flags = MSG_DONTWAIT | MSG_TRUNC;
    _Alignas(struct nlmsghdr) uint8_t in[MONITOR_READ];
    enum nft_change change = NFT_CHANGE_NONE;

    for (int i = 0; i < MONITOR_READS; i++) {
        struct sockaddr_nl from = {0};
        socklen_t len = sizeof(from);
        ssize_t got = recvfrom(fd, in, sizeof(in), flags, (struct sockaddr *)&from, &len);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == ENOBUFS)
            return NFT_CHANGE_LOST;
        if (got < 0)
            break;
        if (from.nl_pid != 0)
            continue; /* not the kernel */
        if ((size_t)got > sizeof(in))
            return NFT_CHANGE_LOST;
        if (is_touched(in, (size_t)got, n))
            change = NFT_CHANGE_OURS_TOUCHED;
    }
    return change;
}
