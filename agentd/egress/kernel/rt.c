/* SPDX-License-Identifier: MIT */
/* Requests one at a time, each acknowledged; dumps started again when the kernel says
 * that they are torn. */
#include "agentd/egress/kernel/rt.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/net_namespace.h>
#include <linux/rtnetlink.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "agentd/egress/sandbox_name.h"
#include "common/crypto.h"
#include "common/mem.h"

enum {
    REQUEST_MAX = 512,
    ANSWER_MAX = 65536,
    TRIES = 20,
    LO = 1,               /* lo is the first interface of every namespace */
    RULE_PRIORITY = 5447, /* before main (32766), after local (0) */
    MONITOR_READS = 64,
    SEGMENTS_MAX =
        524280, /* bytes of a packet on lo: the most that Linux has (8 x 65535) */
};

/* if_link.h, Linux 6.3; Debian 12's headers are older. */
enum {
    LINK_GSO_IPV4_MAX_SIZE = 63,
    LINK_GRO_IPV4_MAX_SIZE
};

/* -- asking -------------------------------------------------------------------------- */

typedef int take_fn(const struct nlmsghdr *m, void *arg);

struct talk {
    int fd;
    uint32_t seq;
    take_fn *take; /* each message of a dump; NULL: an acknowledgement is waited for */
    void *arg;
    bool is_torn;
};

/* Why a dump ended before its time; 0: it did not. */
static int done_error(const struct nlmsghdr *m)
{
    int error = 0;

    if (mnl_nlmsg_get_payload_len(m) >= sizeof(error))
        memcpy(&error, mnl_nlmsg_get_payload(m), sizeof(error));
    return error < 0 ? -error : 0;
}

/* 1: over; 0: more; -1 with errno. */
static int read_messages(struct talk *t, const uint8_t *in, size_t len)
{
    const struct nlmsghdr *m = (const struct nlmsghdr *)(const void *)in;
    int left = (int)len;

    for (; mnl_nlmsg_ok(m, left); m = mnl_nlmsg_next(m, &left)) {
        const struct nlmsgerr *r = mnl_nlmsg_get_payload(m);

        if (m->nlmsg_seq != t->seq)
            continue;
        if (m->nlmsg_flags & NLM_F_DUMP_INTR)
            t->is_torn = true;
        if (m->nlmsg_type == NLMSG_DONE) {
            errno = done_error(m);
            return errno == 0 ? 1 : -1;
        }
        if (m->nlmsg_type == NLMSG_ERROR && mnl_nlmsg_get_payload_len(m) >= sizeof(*r)) {
            errno = -r->error;
            return r->error == 0 ? 1 : -1;
        }
        if (t->take != NULL && t->take(m, t->arg) < 0)
            return -1;
    }
    return 0;
}

/* -1 with errno. */
static int talk(struct talk *t, struct nlmsghdr *m)
{
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    _Alignas(struct nlmsghdr) uint8_t in[ANSWER_MAX];
    int rc = 0;

    while (recv(t->fd, in, sizeof(in), MSG_DONTWAIT) >= 0)
        ; /* what was not waited for any more */
    /* Of what is still on its way, no answer has this number: the socket counts none. */
    t->seq = m->nlmsg_seq = crypto_random_below(UINT32_MAX) + 1;
    if (sendto(t->fd, m, m->nlmsg_len, 0, (struct sockaddr *)&kernel, sizeof(kernel)) < 0)
        return -1;
    while (rc == 0) {
        struct pollfd p = {.fd = t->fd, .events = POLLIN};
        ssize_t n = recv(t->fd, in, sizeof(in), MSG_DONTWAIT);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN && poll(&p, 1, RT_MS) > 0)
            continue;
        rc = n < 0 ? -1 : read_messages(t, in, (size_t)n);
    }
    return rc < 0 ? -1 : 0;
}

static struct nlmsghdr *request(void *at, uint16_t type, uint16_t flags, size_t head)
{
    struct nlmsghdr *m = mnl_nlmsg_put_header(at);

    m->nlmsg_type = type;
    m->nlmsg_flags = NLM_F_REQUEST | flags;
    (void)mnl_nlmsg_put_extra_header(m, head);
    return m;
}

static int change(int fd, struct nlmsghdr *m)
{
    struct talk t = {.fd = fd};

    m->nlmsg_flags |= NLM_F_ACK;
    return talk(&t, m);
}

/* `reset` makes the result empty before each try. */
static int dump(int fd, struct nlmsghdr *m, take_fn *take, void *arg,
                void (*reset)(void *arg))
{
    for (int i = 0; i < TRIES; i++) {
        struct talk t = {.fd = fd, .take = take, .arg = arg};
        int rc;

        reset(arg);
        m->nlmsg_flags |= NLM_F_DUMP;
        rc = talk(&t, m);
        if (rc < 0 && errno != EINTR)
            return -1;
        if (rc == 0 && !t.is_torn)
            return 0;
    }
    errno = EAGAIN;
    return -1;
}

/* -- links --------------------------------------------------------------------------- */

struct links {
    struct rt_link *at;
    size_t n, cap;
};

static void links_reset(void *arg)
{
    ((struct links *)arg)->n = 0;
}

/* Attributes of a message by number, up to `max`; the last of a kind counts. */
struct attrs {
    const struct nlattr **at;
    uint16_t max;
};

static int keep_attr(const struct nlattr *a, void *arg)
{
    struct attrs *x = arg;

    if (mnl_attr_get_type(a) <= x->max)
        x->at[mnl_attr_get_type(a)] = a;
    return MNL_CB_OK;
}

/* @at  of max + 1, empty. What is cut off is not there. */
static void parse(const struct nlmsghdr *m, size_t head, const struct nlattr **at,
                  uint16_t max)
{
    struct attrs x = {at, max};

    (void)mnl_attr_parse(m, (unsigned)head, keep_attr, &x);
}

static void put_text(char *out, size_t cap, const struct nlattr *a)
{
    if (a != NULL && mnl_attr_validate(a, MNL_TYPE_NUL_STRING) >= 0)
        (void)snprintf(out, cap, "%s", mnl_attr_get_str(a));
}

static int put_int(const struct nlattr *a)
{
    return a != NULL && mnl_attr_get_payload_len(a) == 4 ? (int)mnl_attr_get_u32(a) : 0;
}

static int take_link(const struct nlmsghdr *m, void *arg)
{
    const struct nlattr *at[IFLA_LINK_NETNSID + 1] = {NULL},
                                                *in[IFLA_INFO_DATA + 1] = {NULL};
    struct attrs nested = {in, IFLA_INFO_DATA};
    const struct ifinfomsg *head = mnl_nlmsg_get_payload(m);
    struct links *l = arg;
    struct rt_link *r;

    if (m->nlmsg_type != RTM_NEWLINK || l->n == l->cap)
        return 0;
    parse(m, sizeof(*head), at, IFLA_LINK_NETNSID);
    r = &l->at[l->n++];
    *r = (struct rt_link){.index = head->ifi_index, .is_up = head->ifi_flags & IFF_UP};
    put_text(r->name, sizeof(r->name), at[IFLA_IFNAME]);
    r->master = put_int(at[IFLA_MASTER]);
    if (at[IFLA_ADDRESS] != NULL && mnl_attr_get_payload_len(at[IFLA_ADDRESS]) == 6)
        memcpy(r->mac, mnl_attr_get_payload(at[IFLA_ADDRESS]), 6);
    if (at[IFLA_LINKINFO] != NULL) {
        /* What is cut off is not there. */
        (void)mnl_attr_parse_nested(at[IFLA_LINKINFO], keep_attr, &nested);
        put_text(r->kind, sizeof(r->kind), in[IFLA_INFO_KIND]);
    }
    /* Of other kinds (vlan, macvlan) it is the device below, not another end. */
    if (strcmp(r->kind, "veth") == 0)
        r->peer_index = put_int(at[IFLA_LINK]);
    return 0;
}

int rt_links(int fd, struct rt_link *ret, size_t cap, struct err *e)
{
    _Alignas(struct nlmsghdr) char buf[REQUEST_MAX];
    struct nlmsghdr *m = request(buf, RTM_GETLINK, 0, sizeof(struct ifinfomsg));
    struct links l = {ret, 0, cap};

    if (dump(fd, m, take_link, &l, links_reset) < 0)
        return err_sys(e, "list network interfaces");
    return (int)l.n;
}

/* -- addresses ----------------------------------------------------------------------- */

struct addrs {
    struct ip_net *at;
    size_t n, cap;
    uint32_t link;
};

static void addrs_reset(void *arg)
{
    ((struct addrs *)arg)->n = 0;
}

static int take_addr(const struct nlmsghdr *m, void *arg)
{
    const struct nlattr *at[IFA_LOCAL + 1] = {NULL}, *a;
    const struct ifaddrmsg *head = mnl_nlmsg_get_payload(m);
    struct addrs *l = arg;
    struct ip_net *r;

    if (m->nlmsg_type != RTM_NEWADDR || l->n == l->cap ||
        (l->link != 0 && head->ifa_index != l->link))
        return 0;
    parse(m, sizeof(*head), at, IFA_LOCAL);
    /* Point to point, IFA_ADDRESS is the other end's. */
    a = at[IFA_LOCAL] != NULL ? at[IFA_LOCAL] : at[IFA_ADDRESS];
    if (a == NULL || (head->ifa_family != AF_INET && head->ifa_family != AF_INET6) ||
        mnl_attr_get_payload_len(a) != ip_bytes(head->ifa_family))
        return 0;
    r = &l->at[l->n++];
    *r = (struct ip_net){.addr.family = head->ifa_family, .bits = head->ifa_prefixlen};
    memcpy(r->addr.bytes, mnl_attr_get_payload(a), mnl_attr_get_payload_len(a));
    return 0;
}

int rt_addrs(int fd, int link, struct ip_net *ret, size_t cap, struct err *e)
{
    _Alignas(struct nlmsghdr) char buf[REQUEST_MAX];
    struct nlmsghdr *m = request(buf, RTM_GETADDR, 0, sizeof(struct ifaddrmsg));
    struct addrs l = {ret, 0, cap, (uint32_t)link};

    if (dump(fd, m, take_addr, &l, addrs_reset) < 0)
        return err_sys(e, "list network addresses");
    return (int)l.n;
}

int rt_link_down(int fd, int index, struct err *e)
{
    _Alignas(struct nlmsghdr) char buf[REQUEST_MAX];
    struct nlmsghdr *m = request(buf, RTM_NEWLINK, 0, sizeof(struct ifinfomsg));
    struct ifinfomsg *head = mnl_nlmsg_get_payload(m);

    head->ifi_index = index;
    head->ifi_change = IFF_UP;
    if (change(fd, m) < 0 && errno != ENODEV)
        return err_sys(e, "shut network interface %d", index);
    return 0;
}

/* -- a sealed namespace -------------------------------------------------------------- */

static int lo_up(int fd)
{
    _Alignas(struct nlmsghdr) char buf[REQUEST_MAX];
    struct nlmsghdr *m = request(buf, RTM_NEWLINK, 0, sizeof(struct ifinfomsg));
    struct ifinfomsg *head = mnl_nlmsg_get_payload(m);

    head->ifi_index = LO;
    head->ifi_flags = head->ifi_change = IFF_UP;
    return change(fd, m);
}

/* What is sent here is received here, in one piece: the longer it is, the fewer packets,
 * acknowledgements and looks at rules. A kernel that has no such thing does without. */
static void lo_widen(int fd)
{
    _Alignas(struct nlmsghdr) char buf[REQUEST_MAX];
    struct nlmsghdr *m = request(buf, RTM_NEWLINK, 0, sizeof(struct ifinfomsg));
    struct ifinfomsg *head = mnl_nlmsg_get_payload(m);

    head->ifi_index = LO;
    mnl_attr_put_u32(m, LINK_GSO_IPV4_MAX_SIZE, SEGMENTS_MAX);
    mnl_attr_put_u32(m, LINK_GRO_IPV4_MAX_SIZE, SEGMENTS_MAX);
    (void)change(fd, m);
}

/* Without the prefix's own route, which IPv6 would have before the address's local one:
 * for a moment the address would be unreachable. */
static int addr_add(int fd, const struct ip_addr *a)
{
    _Alignas(struct nlmsghdr) char buf[REQUEST_MAX];
    struct nlmsghdr *m =
        request(buf, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, sizeof(struct ifaddrmsg));
    struct ifaddrmsg *head = mnl_nlmsg_get_payload(m);

    head->ifa_family = a->family;
    head->ifa_prefixlen = ip_bits(a->family);
    head->ifa_index = LO;
    mnl_attr_put(m, IFA_LOCAL, ip_bytes(a->family), a->bytes);
    mnl_attr_put(m, IFA_ADDRESS, ip_bytes(a->family), a->bytes);
    if (a->family == AF_INET6)
        mnl_attr_put_u32(m, IFA_FLAGS, IFA_F_NODAD | IFA_F_NOPREFIXROUTE);
    return change(fd, m);
}

static void tentative_reset(void *arg)
{
    *(bool *)arg = false;
}

static int take_tentative(const struct nlmsghdr *m, void *arg)
{
    const struct ifaddrmsg *head = mnl_nlmsg_get_payload(m);

    if (m->nlmsg_type == RTM_NEWADDR && head->ifa_index == LO &&
        head->ifa_flags & IFA_F_TENTATIVE)
        *(bool *)arg = true;
    return 0;
}

/* IPv6 addresses are made ready by a worker of the kernel's, soon. */
static int settle(int fd)
{
    for (int i = 0; i < RT_MS; i++) {
        _Alignas(struct nlmsghdr) char buf[REQUEST_MAX];
        struct nlmsghdr *m = request(buf, RTM_GETADDR, 0, sizeof(struct ifaddrmsg));
        bool is_tentative;

        if (dump(fd, m, take_tentative, &is_tentative, tentative_reset) < 0)
            return -1;
        if (!is_tentative)
            return 0;
        (void)poll(NULL, 0, 1);
    }
    errno = ETIMEDOUT;
    return -1;
}

/* "local default dev lo" in a table; @source  NULL: none */
static struct nlmsghdr *local_route(void *buf, uint16_t type, uint8_t family,
                                    uint32_t table, const struct ip_addr *source)
{
    struct nlmsghdr *m =
        request(buf, type, type == RTM_NEWROUTE ? NLM_F_CREATE | NLM_F_REPLACE : 0,
                sizeof(struct rtmsg));
    struct rtmsg *head = mnl_nlmsg_get_payload(m);

    head->rtm_family = family;
    head->rtm_table = RT_TABLE_UNSPEC;
    head->rtm_protocol = RTPROT_STATIC;
    head->rtm_scope = RT_SCOPE_HOST;
    head->rtm_type = RTN_LOCAL;
    mnl_attr_put_u32(m, RTA_TABLE, table);
    mnl_attr_put_u32(m, RTA_OIF, LO);
    if (source != NULL)
        mnl_attr_put(m, RTA_PREFSRC, ip_bytes(source->family), source->bytes);
    return m;
}

static int seal_family(int fd, const char *text)
{
    _Alignas(struct nlmsghdr) char buf[REQUEST_MAX];
    struct nlmsghdr *m;
    struct nlattr *metrics;
    struct ip_addr a = {0};

    if (ip_parse(span_str(text), &a) < 0) {
        errno = EINVAL;
        return -1;
    }
    if (addr_add(fd, &a) < 0)
        return -1;
    /* The main table: a namespace's own "local" one is the kernel's to fill. */
    m = local_route(buf, RTM_NEWROUTE, a.family, RT_TABLE_MAIN, &a);
    metrics = mnl_attr_nest_start(m, RTA_METRICS);
    mnl_attr_put_strz(m, RTAX_CC_ALGO, EGRESS_CONTROL);
    mnl_attr_nest_end(m, metrics);
    return change(fd, m);
}

/* What the kernel says where IPv6 is switched off: built without it, by ipv6.disable, or
 * by sysctl. */
static bool is_no_ip6(int error)
{
    return error == EOPNOTSUPP || error == EAFNOSUPPORT || error == EACCES ||
           error == EPERM || error == ENODEV || error == ENETDOWN ||
           error == EADDRNOTAVAIL || error == EINVAL;
}

int rt_seal(int fd, bool *ret_has_ip6, struct err *e)
{
    bool has_ip6 = true;

    if (lo_up(fd) < 0)
        return err_sys(e, "switch lo on");
    lo_widen(fd);
    if (seal_family(fd, EGRESS_SEALED_IP4) < 0)
        return err_sys(e, "make every IPv4 address local");
    if (seal_family(fd, EGRESS_SEALED_IP6) < 0) {
        if (!is_no_ip6(errno))
            return err_sys(e, "make every IPv6 address local");
        has_ip6 = false;
    }
    if (has_ip6 && settle(fd) < 0)
        return err_sys(e, "wait for the IPv6 addresses of lo");
    *ret_has_ip6 = has_ip6;
    return 0;
}

/* -- a host's way to the guard ------------------------------------------------------- */

static struct nlmsghdr *mark_rule(void *buf, uint16_t type, uint8_t family)
{
    struct nlmsghdr *m =
        request(buf, type, type == RTM_NEWRULE ? NLM_F_CREATE | NLM_F_EXCL : 0,
                sizeof(struct fib_rule_hdr));
    struct fib_rule_hdr *head = mnl_nlmsg_get_payload(m);

    head->family = family;
    head->action = FR_ACT_TO_TBL;
    head->table = RT_TABLE_UNSPEC;
    mnl_attr_put_u32(m, FRA_PRIORITY, RULE_PRIORITY);
    mnl_attr_put_u32(m, FRA_FWMARK, EGRESS_MARK);
    mnl_attr_put_u32(m, FRA_FWMASK, UINT32_MAX);
    mnl_attr_put_u32(m, FRA_TABLE, EGRESS_TABLE);
    return m;
}

static const uint8_t families[2] = {AF_INET, AF_INET6};

int rt_tproxy_set(int fd, struct err *e)
{
    _Alignas(struct nlmsghdr) char buf[REQUEST_MAX];

    for (int i = 0; i < 2; i++) {
        const char *v = i == 0 ? "IPv4" : "IPv6";

        if (change(fd, local_route(buf, RTM_NEWROUTE, families[i], EGRESS_TABLE, NULL)) <
            0) {
            if (i == 1 && is_no_ip6(errno))
                return 0;
            return err_sys(e, "add the local route for %s to table %d", v, EGRESS_TABLE);
        }
        if (change(fd, mark_rule(buf, RTM_NEWRULE, families[i])) < 0 && errno != EEXIST)
            return err_sys(e, "add the rule for marked %s packets", v);
    }
    return 0;
}

int rt_tproxy_drop(int fd, struct err *e)
{
    _Alignas(struct nlmsghdr) char buf[REQUEST_MAX];

    for (int i = 0; i < 2; i++) {
        if (change(fd, mark_rule(buf, RTM_DELRULE, families[i])) < 0 && errno != ENOENT &&
            !is_no_ip6(errno))
            return err_sys(e, "delete the rule for marked packets");
        if (change(fd, local_route(buf, RTM_DELROUTE, families[i], EGRESS_TABLE, NULL)) <
                0 &&
            errno != ESRCH && errno != ENOENT && !is_no_ip6(errno))
            return err_sys(e, "delete the local route of table %d", EGRESS_TABLE);
    }
    return 0;
}

struct found {
    bool has_rule, has_route;
};

static void found_reset(void *arg)
{
    *(struct found *)arg = (struct found){.has_rule = false};
}

static int take_rule(const struct nlmsghdr *m, void *arg)
{
    const struct nlattr *at[FRA_FWMASK + 1] = {NULL};
    const struct fib_rule_hdr *head = mnl_nlmsg_get_payload(m);
    struct found *f = arg;

    parse(m, sizeof(*head), at, FRA_FWMASK);
    if (m->nlmsg_type == RTM_NEWRULE && head->action == FR_ACT_TO_TBL &&
        (uint32_t)put_int(at[FRA_FWMARK]) == EGRESS_MARK &&
        (uint32_t)put_int(at[FRA_TABLE]) == EGRESS_TABLE &&
        (uint32_t)put_int(at[FRA_FWMASK]) == UINT32_MAX)
        f->has_rule = true;
    return 0;
}

static int take_route(const struct nlmsghdr *m, void *arg)
{
    const struct nlattr *at[RTA_TABLE + 1] = {NULL};
    const struct rtmsg *head = mnl_nlmsg_get_payload(m);
    struct found *f = arg;

    parse(m, sizeof(*head), at, RTA_TABLE);
    if (m->nlmsg_type == RTM_NEWROUTE && head->rtm_type == RTN_LOCAL &&
        head->rtm_dst_len == 0 && (uint32_t)put_int(at[RTA_TABLE]) == EGRESS_TABLE &&
        put_int(at[RTA_OIF]) == LO)
        f->has_route = true;
    return 0;
}

/* Is there IPv6 in this namespace? -1 with *e. */
static int has_ip6(int fd, struct err *e)
{
    struct ip_net a[RT_ADDRS_MAX] = {{{0}, 0}};
    int n = rt_addrs(fd, LO, a, COUNT_OF(a), e);

    for (int i = 0; i < n; i++)
        if (a[i].addr.family == AF_INET6)
            return 1;
    return n < 0 ? -1 : 0;
}

int rt_tproxy_verify(int fd, struct err *e)
{
    _Alignas(struct nlmsghdr) char buf[REQUEST_MAX];
    int has_both = has_ip6(fd, e);

    if (has_both < 0)
        return -1;
    for (int i = 0; i < (has_both > 0 ? 2 : 1); i++) {
        const char *v = i == 0 ? "IPv4" : "IPv6";
        struct fib_rule_hdr *rule;
        struct rtmsg *route;
        struct nlmsghdr *m = request(buf, RTM_GETRULE, 0, sizeof(*rule));
        struct found f;

        rule = mnl_nlmsg_get_payload(m);
        rule->family = families[i];
        if (dump(fd, m, take_rule, &f, found_reset) < 0)
            return err_sys(e, "list routing rules");
        if (!f.has_rule)
            return err_set(e, ERR_DENIED,
                           "the %s routing rule for marked packets is gone", v);
        m = request(buf, RTM_GETROUTE, 0, sizeof(*route));
        route = mnl_nlmsg_get_payload(m);
        route->rtm_family = families[i];
        if (dump(fd, m, take_route, &f, found_reset) < 0)
            return err_sys(e, "list routes");
        if (!f.has_route)
            return err_set(e, ERR_DENIED, "the %s local route of table %d is gone", v,
                           EGRESS_TABLE);
    }
    return 0;
}

/* -- other namespaces ---------------------------------------------------------------- */

static int take_nsid(const struct nlmsghdr *m, void *arg)
{
    const struct nlattr *at[NETNSA_NSID + 1] = {NULL};
    int *id = arg;

    if (m->nlmsg_type != RTM_NEWNSID)
        return 0;
    parse(m, sizeof(struct rtgenmsg), at, NETNSA_NSID);
    if (at[NETNSA_NSID] != NULL && mnl_attr_get_payload_len(at[NETNSA_NSID]) == 4)
        *id = (int)mnl_attr_get_u32(at[NETNSA_NSID]);
    return 0;
}

int rt_nsid(int fd, int netns_fd, struct err *e)
{
    _Alignas(struct nlmsghdr) char buf[REQUEST_MAX];
    int id = NETNSA_NSID_NOT_ASSIGNED;

    for (int i = 0; i < 2 && id < 0; i++) {
        struct talk t = {.fd = fd, .take = take_nsid, .arg = &id};
        struct nlmsghdr *m;

        if (i > 0) {
            m = request(buf, RTM_NEWNSID, 0, sizeof(struct rtgenmsg));
            mnl_attr_put_u32(m, NETNSA_FD, (uint32_t)netns_fd);
            mnl_attr_put_u32(m, NETNSA_NSID, (uint32_t)NETNSA_NSID_NOT_ASSIGNED);
            if (change(fd, m) < 0 && errno != EEXIST)
                return err_sys(e, "number a network namespace");
        }
        m = request(buf, RTM_GETNSID, NLM_F_ACK, sizeof(struct rtgenmsg));
        mnl_attr_put_u32(m, NETNSA_FD, (uint32_t)netns_fd);
        if (talk(&t, m) < 0)
            return err_sys(e, "ask for a network namespace's number");
    }
    return id >= 0 ? id : err_set(e, ERR_PROTO, "the network namespace got no number");
}

/* -- changes ------------------------------------------------------------------------- */

int rt_monitor_start(int fd, struct err *e)
{
    static const int groups[] = {
        RTNLGRP_LINK,       RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV4_ROUTE,
        RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV4_RULE,   RTNLGRP_IPV6_RULE,
    };
    struct sockaddr_nl a = {.nl_family = AF_NETLINK};

    if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 && errno != EINVAL)
        return err_sys(e, "bind a netlink socket");
    for (size_t i = 0; i < COUNT_OF(groups); i++)
        if (setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &groups[i],
                       sizeof(groups[i])) < 0)
            return err_sys(e, "watch the network's configuration");
    return 0;
}

bool rt_monitor_read(int fd)
{
    uint8_t in[4096];
    bool is_changed = false;

    for (int i = 0; i < MONITOR_READS; i++) {
        ssize_t n = recv(fd, in, sizeof(in), MSG_DONTWAIT | MSG_TRUNC);

        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            break;
        is_changed = is_changed || n > 0 || errno == ENOBUFS;
    }
    return is_changed;
}
