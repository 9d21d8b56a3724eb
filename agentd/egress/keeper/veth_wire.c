/* SPDX-License-Identifier: MIT */
#include "agentd/egress/keeper/veth_wire.h"

#include <errno.h>
#include <linux/if_link.h>
#include <linux/inet_diag.h>
#include <linux/net_namespace.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "common/span.h"

#define STATE_LISTEN 10 /* TCP_LISTEN, which only netinet/tcp.h names for user space */

enum {
    SEQ = 1, /* one question a socket is under way */
    REPLY_MAX = 32768
};

struct reply {
    _Alignas(struct nlmsghdr) uint8_t bytes[REPLY_MAX];
};

int veth_wire_is_same_ns(int a, int b, struct err *e)
{
    uint64_t at = 0, bt = 0;
    socklen_t n = sizeof at;

    if (getsockopt(a, SOL_SOCKET, SO_NETNS_COOKIE, &at, &n) < 0 ||
        getsockopt(b, SOL_SOCKET, SO_NETNS_COOKIE, &bt, &n) < 0)
        return err_sys(e, "ask a socket for its namespace");
    return at == bt;
}

/* The kernel answers while it is asked, so this waits for a socket that is out
 * of order only. */
static ssize_t receive(int fd, struct reply *r, struct sockaddr_nl *from, struct err *e)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    socklen_t from_len = sizeof *from;
    ssize_t n;
    int rc;

    do {
        rc = poll(&p, 1, VETH_WIRE_MS);
    } while (rc < 0 && errno == EINTR);
    if (rc == 0)
        return err_set(e, ERR_TIMEOUT, "netlink: no answer in %d ms", VETH_WIRE_MS);
    n = recvfrom(fd, r->bytes, sizeof r->bytes, MSG_TRUNC, (struct sockaddr *)from,
                 &from_len);
    return n < 0 ? err_sys(e, "read the kernel's answer by netlink") : n;
}

/* Send, and read one datagram of the answer: *ret_first is its first message, NULL when
 * the answer is an end without any. An error that the kernel answers is told as ours. */
static int ask(int fd, struct nlmsghdr *q, struct reply *r, struct nlmsghdr **ret_first,
               struct err *e)
{
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    struct sockaddr_nl from = {.nl_family = AF_UNSPEC};
    struct nlmsghdr *h;
    ssize_t n;

    memset(r->bytes, 0, sizeof *h);
    q->nlmsg_seq = SEQ;
    if (sendto(fd, q, q->nlmsg_len, 0, (struct sockaddr *)&kernel, sizeof kernel) < 0)
        return err_sys(e, "ask the kernel by netlink");
    n = receive(fd, r, &from, e);
    if (n < 0)
        return -1;
    h = (struct nlmsghdr *)(void *)r->bytes;
    if (from.nl_pid != 0 || (size_t)n > sizeof r->bytes || (size_t)n < sizeof *h ||
        h->nlmsg_len < sizeof *h || h->nlmsg_len > (size_t)n || h->nlmsg_seq != SEQ)
        return err_set(e, ERR_PROTO, "netlink: an answer of %zd bytes that is none", n);
    *ret_first = h;
    if (h->nlmsg_type == NLMSG_DONE) {
        *ret_first = NULL;
        return 0;
    }
    if (h->nlmsg_type == NLMSG_ERROR) {
        struct nlmsgerr fault = {.error = -EPROTO};

        if (h->nlmsg_len >= NLMSG_LENGTH(sizeof fault))
            memcpy(&fault, NLMSG_DATA(h), sizeof fault);
        errno = -fault.error;
        return err_sys(e, "netlink");
    }
    return 0;
}

/* The attribute of this type among `left` bytes at *a; NULL: none. */
static const struct rtattr *attr(const void *first, size_t left, unsigned type)
{
    const uint8_t *p = first;
    struct rtattr a;

    while (left >= sizeof a) {
        memcpy(&a, p, sizeof a);
        if (a.rta_len < sizeof a || a.rta_len > left)
            return NULL;
        if ((a.rta_type & NLA_TYPE_MASK) == type)
            return (const struct rtattr *)(const void *)p;
        if (RTA_ALIGN(a.rta_len) >= left)
            return NULL;
        left -= RTA_ALIGN(a.rta_len);
        p += RTA_ALIGN(a.rta_len);
    }
    return NULL;
}

static const struct rtattr *inner(const struct rtattr *outer, unsigned type)
{
    return outer == NULL
               ? NULL
               : attr((const uint8_t *)outer + RTA_LENGTH(0), RTA_PAYLOAD(outer), type);
}

static bool attr_int(const struct rtattr *a, int *ret)
{
    if (a == NULL || RTA_PAYLOAD(a) < sizeof *ret)
        return false;
    memcpy(ret, (const uint8_t *)a + RTA_LENGTH(0), sizeof *ret);
    return true;
}

/* Ask for a link; *ret_attrs are its attributes. */
static int ask_link(int fd, int index, struct reply *r, struct span *ret_attrs,
                    struct err *e)
{
    struct {
        struct nlmsghdr head;
        struct ifinfomsg link;
    } q;
    struct nlmsghdr *h = NULL;
    const size_t skip = NLMSG_LENGTH(NLMSG_ALIGN(sizeof(struct ifinfomsg)));

    memset(&q, 0, sizeof q);
    q.head.nlmsg_len = sizeof q;
    q.head.nlmsg_type = RTM_GETLINK;
    q.head.nlmsg_flags = NLM_F_REQUEST;
    q.link.ifi_family = AF_UNSPEC;
    q.link.ifi_index = index;
    if (ask(fd, &q.head, r, &h, e) < 0)
        return err_wrap(e, "interface %d", index);
    if (h == NULL || h->nlmsg_type != RTM_NEWLINK || h->nlmsg_len < skip)
        return err_set(e, ERR_PROTO, "netlink: no link in the answer about interface %d",
                       index);
    *ret_attrs = span_of((uint8_t *)h + skip, h->nlmsg_len - skip);
    return 0;
}

int veth_wire_ends_in(int fd, int index, int ns_fd, struct err *e)
{
    struct {
        struct nlmsghdr head;
        struct rtgenmsg gen;
        _Alignas(4) struct rtattr attr;
        int ns_fd;
    } q;
    struct reply r;
    struct span link = {NULL, 0};
    struct nlmsghdr *h = NULL;
    const size_t skip = NLMSG_LENGTH(NLMSG_ALIGN(sizeof(struct rtgenmsg)));
    int there = 0, id = -1;

    /* The kernel gives the other end's namespace a number here when it tells of the link,
     * so this question comes first. */
    if (ask_link(fd, index, &r, &link, e) < 0)
        return -1;
    if (!attr_int(attr(link.p, link.len, IFLA_LINK_NETNSID), &there))
        return 0;
    memset(&q, 0, sizeof q);
    q.head.nlmsg_len = sizeof q;
    q.head.nlmsg_type = RTM_GETNSID;
    q.head.nlmsg_flags = NLM_F_REQUEST;
    q.attr.rta_len = (unsigned short)RTA_LENGTH(sizeof q.ns_fd);
    q.attr.rta_type = NETNSA_FD;
    q.ns_fd = ns_fd;
    if (ask(fd, &q.head, &r, &h, e) < 0)
        return err_wrap(e, "the number of our namespace");
    if (h == NULL || h->nlmsg_type != RTM_NEWNSID || h->nlmsg_len < skip ||
        !attr_int(attr((uint8_t *)h + skip, h->nlmsg_len - skip, NETNSA_NSID), &id))
        return err_set(e, ERR_PROTO, "netlink: no number of our namespace in the answer");
    return id >= 0 && id == there;
}

static bool attr_is_set(const struct rtattr *a)
{
    return a != NULL && RTA_PAYLOAD(a) >= 1 && ((const uint8_t *)a)[RTA_LENGTH(0)] != 0;
}

int veth_wire_bridge(int fd, int index, struct veth_wire_bridge *ret, struct err *e)
{
    const struct rtattr *bridge;
    struct reply r;
    struct span link = {NULL, 0};

    if (ask_link(fd, index, &r, &link, e) < 0)
        return -1;
    bridge = inner(attr(link.p, link.len, IFLA_LINKINFO), IFLA_INFO_DATA);
    if (bridge == NULL)
        return err_set(e, ERR_NOTFOUND, "interface %d is no bridge", index);
    ret->calls_iptables = attr_is_set(inner(bridge, IFLA_BR_NF_CALL_IPTABLES));
    ret->calls_ip6tables = attr_is_set(inner(bridge, IFLA_BR_NF_CALL_IP6TABLES));
    return 0;
}

int veth_wire_listens(int fd, const uint8_t addr[4], struct err *e)
{
    /* The kernel runs the filter: a sandbox may have as many listeners as it likes. A
     * `no` past the end by 4 is how the filter says that a socket is not meant. */
    struct {
        struct nlmsghdr head;
        struct inet_diag_req_v2 req;
        struct rtattr attr;
        struct inet_diag_bc_op op;
        uint8_t cond[sizeof(struct inet_diag_hostcond) + 4]; /* with its address */
    } q;
    const struct inet_diag_hostcond cond = {
        .family = AF_INET, .prefix_len = 32, .port = -1};
    const size_t filter = sizeof q.op + sizeof q.cond;
    struct reply r;
    struct nlmsghdr *h = NULL;

    memset(&q, 0, sizeof q);
    q.head.nlmsg_len = sizeof q;
    q.head.nlmsg_type = SOCK_DIAG_BY_FAMILY;
    q.head.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    q.req.sdiag_family = AF_INET;
    q.req.sdiag_protocol = IPPROTO_TCP;
    q.req.idiag_states = 1u << STATE_LISTEN;
    q.attr.rta_len = (unsigned short)RTA_LENGTH(filter);
    q.attr.rta_type = INET_DIAG_REQ_BYTECODE;
    q.op.code = INET_DIAG_BC_S_COND;
    q.op.yes = (unsigned char)filter;
    q.op.no = (unsigned short)(filter + 4);
    memcpy(q.cond, &cond, sizeof cond);
    memcpy(q.cond + sizeof cond, addr, 4);
    if (ask(fd, &q.head, &r, &h, e) < 0)
        return err_wrap(e, "listening sockets");
    return h != NULL;
}
