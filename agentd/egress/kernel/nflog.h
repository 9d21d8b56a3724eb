/* SPDX-License-Identifier: MIT */
/**
 * nflog -- packets that the kernel refused, told by NFLOG: binding (privileged, in
 *          the keeper) and reading (hostile bytes, in the guard; no privilege
 *          needed). No library.
 */
#ifndef AGENTD_EGRESS_KERNEL_NFLOG_H
#define AGENTD_EGRESS_KERNEL_NFLOG_H

#include "agentd/egress/policy/ip.h"
#include "common/err.h"
#include "common/span.h"

/** @fd  a NETLINK_NETFILTER socket made in the namespace. Binds `group`, copies 128
 *       bytes a packet. */
int nflog_bind(int fd, uint16_t group, struct err *e);

struct nflog_packet {
    uint32_t index;   /* the sandbox: from the prefix "sN " */
    char why[24];     /* the rest of the prefix: "floor", "udp", "default", ... */
    uint8_t protocol; /* IPPROTO_*; 0: not an IP packet that could be read */
    struct ip_addr from, to;
    uint16_t from_port, to_port; /* TCP, UDP, SCTP; else 0 */
    uint32_t uid;                /* of the socket; UINT32_MAX: the kernel does not tell */
};
/** Next packet of a datagram that recv(2) gave; *pos from 0. False at the end or at
 *  what is broken. */
bool nflog_next(struct span dgram, size_t *pos, struct nflog_packet *ret);

#endif
