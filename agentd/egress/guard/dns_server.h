/* SPDX-License-Identifier: MIT */
/**
 * dns_server -- answers a sandbox's questions, over UDP and TCP: policy,
 *               names, pins, reply.
 *
 * A and AAAA of allowed names are answered with addresses that are pinned in the kernel
 * first. A name that is not allowed: NXDOMAIN with extended error 15 or 18 (RFC 8914) and
 * the rule as its text. Allowed names, other types: NODATA (HTTPS and SVCB among them).
 * An allowed name whose addresses are all refused: NODATA with extended error 17 and the
 * reason (not NXDOMAIN, which would speak for the other address family too). What is no
 * question: FORMERR or nothing. More than the policy's questions a second: REFUSED.
 */
#ifndef AGENTD_EGRESS_GUARD_DNS_SERVER_H
#define AGENTD_EGRESS_GUARD_DNS_SERVER_H

#include "agentd/egress/guard/ward.h"

#define DNS_WAITING_MAX   256 /* questions in work, a sandbox */
#define DNS_TCP_MAX       16  /* connections, a sandbox */
#define DNS_TCP_IDLE_MS   10000
#define DNS_REPLY_SOCKETS 8 /* addresses a sandbox may ask as name servers */

/** @take_udp  two descriptors, IPv4 and IPv6, with IP_RECVORIGDSTADDR set; -1: none */
struct dns_server *dns_server_new(struct ward *w, int take_udp[2], struct err *e);
void dns_server_free(struct dns_server *d);
/** A connection that flows accepted whose destination port is 53. */
void dns_server_take_tcp(struct dns_server *d, int *take_fd);

#endif
