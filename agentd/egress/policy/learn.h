/* SPDX-License-Identifier: MIT */
/**
 * learn -- what a sandbox was seen to reach, and the smallest policy that covers
 *          it (mode learn).
 *
 * Shape    an accumulator and a pure function over it. Names count with the ports
 *          that were connected to, not by being asked for; addresses count where no
 *          name led to them.
 * Limits   LEARN_MAX things; what does not fit is counted.
 */
#ifndef AGENTD_EGRESS_POLICY_LEARN_H
#define AGENTD_EGRESS_POLICY_LEARN_H

#include "agentd/egress/policy/ip.h"
#include "common/buf.h"

#define LEARN_MAX 4096
/* So many names beside each other with the same port become a wildcard: never above the
 * registrable domain, and never for the domain itself. */
#define LEARN_SIBLINGS 4

struct policy;
struct learn;
struct learn *learn_new(void); /* NULL: no memory */
void learn_free(struct learn *l);
/** @name  canonical; a thing seen before costs a look-up */
void learn_name(struct learn *l, const char *name, uint16_t port);
void learn_addr(struct learn *l, const struct ip_addr *a, uint16_t port);
size_t learn_count(const struct learn *l);
size_t learn_dropped(const struct learn *l);
/** Append the policy (JSON, mode enforce). The same things in any order give the same
 *  text.
 *  @under  what is named by a deny rule of this one that lives at `now_s` (wall clock)
 *          is not in it, nor a wildcard over such a name; NULL: none
 *  0, or -1: no memory, nothing appended. */
int learn_print(const struct learn *l, const struct policy *under, int64_t now_s,
                const char *policy_name, struct buf *out);

/** The i-th thing, as it came; for learn_print.c. */
struct learn_thing {
    struct ip_addr addr; /* family 0: a name */
    uint16_t port;
    struct learn_thing *next; /* in its bucket */
    char name[];
};
const struct learn_thing *learn_at(const struct learn *l, size_t i);

#endif
