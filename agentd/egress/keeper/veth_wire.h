/* SPDX-License-Identifier: MIT */
/**
 * veth_wire -- the three questions to the kernel that veth asks beyond rt: in whose
 *              namespace a link's other end is, what a bridge hands to the firewall, and
 *              whether anything listens on an address. Bare netlink: build, send, read,
 *              each with a deadline.
 *
 * Source   rtnetlink(7), sock_diag(7), linux/net_namespace.h, linux/inet_diag.h.
 */
#ifndef AGENTD_EGRESS_KEEPER_VETH_WIRE_H
#define AGENTD_EGRESS_KEEPER_VETH_WIRE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

#define VETH_WIRE_MS 2000

/** Are two sockets of the same namespace? 1, 0 or -1. */
int veth_wire_is_same_ns(int a, int b, struct err *e);
/** Is the other end of link `index` in the namespace that `ns_fd` is? @fd NETLINK_ROUTE.
 *  1, 0 (also: it has no other end), or -1. */
int veth_wire_ends_in(int fd, int index, int ns_fd, struct err *e);
struct veth_wire_bridge {
    bool calls_iptables, calls_ip6tables; /* its own switches, beyond the sysctls */
};
int veth_wire_bridge(int fd, int index, struct veth_wire_bridge *ret, struct err *e);
/** Does a TCP socket listen on just this IPv4 address? @fd NETLINK_SOCK_DIAG.
 *  1, 0 or -1. */
int veth_wire_listens(int fd, const uint8_t addr[4], struct err *e);

#endif
