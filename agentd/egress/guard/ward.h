/* SPDX-License-Identifier: MIT */
/**
 * ward -- one sandbox as the guard sees it: policy, listeners, names, pins, flows, counts. What the
 *         guard's parts share.
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

/** What all sandboxes of a guard share; owned by guard.c. */
struct guard {
    struct loop *loop;
    struct audit *audit;
    struct keeper_link
        *keeper;        /* guard/keeper_link.h: PIN, WANT_REPLY, ASK_WHO with answers */
    struct floor floor; /* changes under FLOOR */
    char resolvers[CHANNEL_TEXT_MAX]; /* the system's, "addr:port,..." */
};

struct ward {
    struct guard *guard; /* borrowed */
    uint32_t index;
    char name[EGRESS_NAME_MAX + 1];
    enum egress_tier tier;
    struct policy *policy; /* counted */
    struct names *names;
    struct pins *pins;
    struct flows *flows;
    struct dns_server *dns;
    struct channel_counts counts;
};

/** Seconds since 1970. */
int64_t ward_now_s(const struct ward *w);
/** decide() with this ward's policy and floor. In audit and learn mode a denial that is not
 *  the floor becomes allowed, with *ret_would_refuse. */
void ward_decide(const struct ward *w, const struct target *t, struct verdict *ret,
                 bool *ret_would_refuse);
/** A refusal's record, with what the ward knows filled in. */
void ward_record_refusal(struct ward *w, struct audit_record *r);

#endif
