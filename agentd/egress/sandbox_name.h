/* SPDX-License-Identifier: MIT */
/** sandbox_name -- how a sandbox is called, and the constants of a sealed one. */
#ifndef AGENTD_EGRESS_SANDBOX_NAME_H
#define AGENTD_EGRESS_SANDBOX_NAME_H

#include "common/err.h"
#include "common/host.h"

/* A name is as a sandbox id (host_id_parse()); a container's id is cut to 12. */
#define EGRESS_NAME_MAX HOST_ID_MAX
/** 0, or -1 with ERR_CONFIG and the rule: it is none, or not written as we write it. */
int sandbox_name_check(const char *name, struct err *e);

/* A sealed sandbox's own addresses: the IPv4 dummy address (RFC 7600 section 4.8) and one
 * of the discard-only prefix (RFC 6666), so that they are nobody's in any network. Its
 * name server stands at the first; in truth every packet to port 53 reaches the guard. */
#define EGRESS_SEALED_IP4 "192.0.0.8"
#define EGRESS_SEALED_IP6 "100::8"

/* Marks packets on their way to the guard; also the routing table's number on a host. */
#define EGRESS_MARK     0x54470001u
#define EGRESS_PIN_MARK 0x54470002u /* of pins on a host: see pin.h */
#define EGRESS_TABLE    54470
#define EGRESS_NFLOG    5447            /* group */
#define EGRESS_NFT      "agentd_egress" /* the nftables table, inet and netdev */

/* The congestion control between a sandbox and the guard: no path that could be
 * congested, so nothing to pace or to guess, as the host's choice (bbr, say) would. Linux
 * always has it. */
#define EGRESS_CONTROL "reno"

enum egress_tier {
    EGRESS_SEALED, /* a namespace with nothing but lo */
    EGRESS_VETH,   /* an engine's interface, ruled from the host's side */
};

#endif
