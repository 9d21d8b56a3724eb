/* SPDX-License-Identifier: MIT */
/**
 * learned -- the distinct names that a sandbox has asked for under wildcards, in its
 *            life: a set that only grows, to the policy's limit. Pure.
 *
 * Under a wildcard whoever chooses names can send bytes out through the labels, so
 * the number of names is bounded (how deep they go: decide() bounds that). Names that
 * are in the set keep working when it is full. Kept as 64-bit hashes by a secret seed
 * of the caller's.
 */
#ifndef AGENTD_EGRESS_GUARD_LEARNED_H
#define AGENTD_EGRESS_GUARD_LEARNED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LEARNED_MAX 1048576 /* whatever the policy says: 16 MiB */

struct learned {
    uint64_t *place; /* 0: free; never more than half are taken */
    size_t n, cap;   /* cap: a power of two, or 0 */
};

void learned_done(struct learned *l);
/** Put it in, unless it is there. @most 0: no limit but LEARNED_MAX. 1: it is in; 0: the
 *  set is full; -1: no memory. */
int learned_add(struct learned *l, uint64_t hash, size_t most);

#endif
