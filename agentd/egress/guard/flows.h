/* SPDX-License-Identifier: MIT */
/**
 * flows -- a sandbox's TCP connections: accepted (the address that was meant is the
 *          socket's own), looked at, decided, resolved again, dialed, relayed, recorded.
 */
#ifndef AGENTD_EGRESS_GUARD_FLOWS_H
#define AGENTD_EGRESS_GUARD_FLOWS_H

#include "agentd/egress/guard/ward.h"

#define FLOWS_MAX         4096 /* open at once, a sandbox, where the policy says no less */
#define FLOW_LOOK_MS      10000 /* from accept to a whole ClientHello or head */
#define FLOW_HEAD_MAX     65536
#define FLOW_RELAY_BUFFER 262144
#define FLOW_LINGER_MS    10000 /* a refused HTTP request may read its answer this long */

/** @take_tcp  two listeners, IPv4 and IPv6; -1: none */
struct flows *flows_new(struct ward *w, int take_tcp[2], struct err *e);
/** Ends all, with their records. */
void flows_free(struct flows *f);
/** The policy changed: each open connection is decided anew, and cut when it is no longer
 *  allowed. */
void flows_reload(struct flows *f);

#endif
