/* SPDX-License-Identifier: MIT */
/**
 * ward -- one sandbox as the guard sees it: policy, listeners, names, pins, flows,
 *         counts. What the guard's parts share.
 */
#ifndef AGENTD_EGRESS_GUARD_WARD_H
#define AGENTD_EGRESS_GUARD_WARD_H

#include "agentd/egress/audit.h"
#include "agentd/egress/channel.h"
#include "agentd/egress/policy/decision.h"
#include "common/loop.h"

struct names;
struct pins;
struct flows;
struct dns_server;
struct keeper_link;
struct learn;
struct refusals;

/** What all sandboxes of a guard share; owned by guard.c. */
struct guard {
    struct loop *loop;
    struct audit *audit;
    struct keeper_link *keeper;       /* WANT_REPLY, ASK_WHO with answers */
    struct floor floor;               /* changes under FLOOR */
    char resolvers[CHANNEL_TEXT_MAX]; /* the system's, "addr:port,..." */
    /* Of trusted certificates (tls_store_open()), as nothing can be opened
     * later; 0: none. */
    int store_fd;
    size_t n_wards;
    size_t flows_max; /* of all, by the descriptors there are; 0: no bound */
    size_t flows_open;
    size_t held; /* bytes in hand, all sandboxes' */
};

struct ward {
    struct guard *guard; /* borrowed */
    uint32_t index;
    char name[EGRESS_NAME_MAX + 1];
    enum egress_tier tier;
    int pin_fd;   /* to the kernel: pin.h; -1: none, and no name can be answered */
    uint32_t tag; /* of this sandbox's pins */
    struct policy *policy; /* counted */
    struct names *names;
    struct pins *pins;
    struct flows *flows;
    struct dns_server *dns;
    struct refusals *refusals; /* what the kernel refused */
    struct learn *learn;       /* mode learn: what was seen; NULL else */
    struct channel_counts counts;
};

/** decide() with this ward's policy and floor. In audit and learn mode a denial that is
 *  not the floor becomes allowed, with *ret_would_refuse; stage, rule and text stay what
 *  they are. Pure: see ward_learn(). */
void ward_decide(const struct ward *w, const struct target *t, struct verdict *ret,
                 bool *ret_would_refuse);
/** A connection is made to t: in mode learn it is to be in the policy that is
 *  proposed, unless a deny rule names it. */
void ward_learn(struct ward *w, const struct target *t);
/** A refusal's record, with what the ward knows filled in: sandbox, policy, time, and
 *  kind and by where they are 0: the guard's own is of TCP. pid 0 and uid UINT32_MAX are
 *  "not known". Counts it. */
void ward_record_refusal(struct ward *w, struct audit_record *r);
/** The record of a connection at its end, the same way. */
void ward_record_connection(struct ward *w, struct audit_record *r);

#endif
