/* SPDX-License-Identifier: MIT */
/**
 * rt -- rtnetlink: what `ip link`, `ip addr`, `ip route` and `ip rule` would do, over a
 *       NETLINK_ROUTE socket made in the namespace that is meant. Blocking requests with
 *       a deadline (RT_MS); the kernel answers at once.
 */
#ifndef AGENTD_EGRESS_KERNEL_RT_H
#define AGENTD_EGRESS_KERNEL_RT_H

#include <net/if.h>

#include "agentd/egress/policy/ip.h"
#include "common/err.h"

#define RT_MS        2000
#define RT_ADDRS_MAX 64

struct rt_link {
    int index;
    int peer_index; /* IFLA_LINK: of a veth, the other end's index in the other namespace; 0 */
    int master; /* the bridge it is in; 0 */
    char name[IF_NAMESIZE];
    char kind[16]; /* "veth", "bridge", ... "" */
    uint8_t mac[6];
    bool is_up;
};

/** In a sealed namespace: lo up, our two addresses on it, and every address local through
 *  it (`ip route add local 0.0.0.0/0 dev lo src ... congctl reno`: the host's own choice,
 *  such as bbr, would pace a way that has no width). Packets on it may be as long as the
 *  kernel allows, where it lets one choose. Fine when parts are there already.
 *  IPv6 that is switched off is left out: *ret_has_ip6. */
int rt_seal(int fd, bool *ret_has_ip6, struct err *e);
/** On a host: rule "fwmark EGRESS_MARK lookup EGRESS_TABLE", and there "local default dev
 *  lo", both families. Idempotent. */
int rt_tproxy_set(int fd, struct err *e);
int rt_tproxy_drop(int fd, struct err *e);
/** Are all four there? 0, or -1 naming the one that is gone. */
int rt_tproxy_verify(int fd, struct err *e);

/** All links / addresses (of one link, or of all with 0; each whole, with its host bits).
 *  Returns how many, at most `cap`; -1. */
int rt_links(int fd, struct rt_link *ret, size_t cap, struct err *e);
int rt_addrs(int fd, int link, struct ip_net *ret, size_t cap, struct err *e);
/** Nothing goes through this link any more. Fine when it is gone. */
int rt_link_down(int fd, int index, struct err *e);
/** The number by which fd's namespace knows another, given one when it has none yet: news
 *  of all namespaces come with it. It stays while that namespace lives. -1 with *e. */
int rt_nsid(int fd, int netns_fd, struct err *e);
/** Subscribe `fd` to changes of links, addresses, rules and routes. */
int rt_monitor_start(int fd, struct err *e);
/** Read what waits; true when something of these changed (or was lost). */
bool rt_monitor_read(int fd);

#endif
