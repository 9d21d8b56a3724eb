/* SPDX-License-Identifier: MIT */
/**
 * flow_limit -- what a policy's `limits` allow the connections of a sandbox, or of one
 *               rule in it: how many at once, how many a second, how many bytes a second
 *               and in all. No I/O; time is given.
 */
#ifndef AGENTD_EGRESS_GUARD_FLOW_LIMIT_H
#define AGENTD_EGRESS_GUARD_FLOW_LIMIT_H

#include "agentd/egress/policy/policy.h"

/* A bucket holds a second's worth for connections, and for bytes this part of a second's,
 * so that what is left over while idle is no burst; but never less than one segment. */
#define FLOW_BURST_PART 10
#define FLOW_BURST_MIN  16384

struct flow_bucket {
    uint64_t milli; /* thousandths */
    uint64_t at_ms;
};
enum flow_way {
    FLOW_UP, /* from the sandbox */
    FLOW_DOWN,
};
struct flow_limit {
    struct flow_limit *next;
    char *rule; /* its text; NULL: the whole sandbox */
    enum policy_list list;
    struct policy_limits limits;
    uint32_t open;
    uint64_t bytes;
    bool is_new; /* buckets are to be filled */
    struct flow_bucket connects, rate[2];
};

/** A new one, its buckets full; NULL on no memory. @rule  NULL: the sandbox */
struct flow_limit *flow_limit_new(const struct policy_rule *rule,
                                  const struct policy_limits *limits);
void flow_limit_free(struct flow_limit *l); /* NULL is fine */

/** May one more connection be? Counts it and returns NULL, or the name and number of the
 *  limit that says no, in `why`. */
const char *flow_limit_enter(struct flow_limit *l, uint64_t now_ms, char why[64]);
void flow_limit_leave(struct flow_limit *l);
/** How many of n bytes may move now; 0: none, ask again later. */
size_t flow_limit_room(struct flow_limit *l, enum flow_way way, size_t n,
                       uint64_t now_ms);
/** They moved. */
void flow_limit_moved(struct flow_limit *l, enum flow_way way, size_t n);
/** Are all bytes of its life used up? */
bool flow_limit_is_used_up(const struct flow_limit *l);

#endif
