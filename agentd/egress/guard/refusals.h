/* SPDX-License-Identifier: MIT */
/**
 * refusals -- what the kernel refused, as records: reads the NFLOG socket of a namespace.
 *
 * One namespace has one such socket, and a host has many sandboxes: each passes a copy,
 * and one watch reads for all that have it in common.
 */
#ifndef AGENTD_EGRESS_GUARD_REFUSALS_H
#define AGENTD_EGRESS_GUARD_REFUSALS_H

#include "agentd/egress/guard/ward.h"

#define REFUSALS_TURN 32 /* datagrams in one turn of the loop */

/** The ward of this index; NULL: none (any more). */
typedef struct ward *refusals_ward_fn(void *arg, uint32_t index);

/** @all  where the watches are kept that may be shared; NULL at first. NULL with *e. */
struct refusals *refusals_join(struct refusals **all, struct loop *l, int *take_fd,
                               refusals_ward_fn *fn, void *arg, struct err *e);
/** Fine with NULL; sets *r to NULL. */
void refusals_leave(struct refusals **r);

#endif
