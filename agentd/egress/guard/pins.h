/* SPDX-License-Identifier: MIT */
/**
 * pins -- which name an address stands for in one sandbox, and until when; the same as
 *         the kernel's sets pin4 and pin6. The end of a pin is the maximum of all answers,
 *         and is pushed back while a connection that came by it lives.
 */
#ifndef AGENTD_EGRESS_GUARD_PINS_H
#define AGENTD_EGRESS_GUARD_PINS_H

#include "agentd/egress/guard/ward.h"

#define PINS_MAX 16384 /* addresses; the one that ends first goes */

/** NULL: no memory. The ward has its policy, and keeps both. */
struct pins *pins_new(struct ward *w, struct err *e);
void pins_free(struct pins *p);

/** What a name stands for, and for how long. */
struct pins_answer {
    const char *name;
    const struct ip_addr *addr; /* n, at most NAMES_ADDRS_MAX */
    size_t n;
    uint32_t ttl_s;
};
/** Pin the addresses of a name for its time, and NAMES_GRACE_S more, for the ports the
 *  policy gives the name. `a` is copied. 0: the kernel has them, and the answer may be
 *  sent; -1 with *e. */
int pins_add(struct pins *p, const struct pins_answer *a, struct err *e);
/** The names for which an address is pinned now, oldest first: *ret_name is good until
 *  the next change. False at the end; start with *pos = 0. */
bool pins_next(struct pins *p, const struct ip_addr *a, size_t *pos,
               const char **ret_name);
/** A connection by this pin lives, or ends: it is renewed meanwhile. */
void pins_hold(struct pins *p, const struct ip_addr *a, const char *name);
void pins_release(struct pins *p, const struct ip_addr *a, const char *name);
/** The policy changed: take out of table and kernel what is no longer allowed, put in
 *  what is missing. */
void pins_reload(struct pins *p);
size_t pins_count(const struct pins *p);

#endif
