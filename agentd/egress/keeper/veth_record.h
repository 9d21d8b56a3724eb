/* SPDX-License-Identifier: MIT */
/**
 * veth_record -- what a sandbox's rules were made from, as JSON in the keeper's own
 *                state: after a restart the rules are made from the same, not from what
 *                the sandbox says then.
 */
#ifndef AGENTD_EGRESS_KEEPER_VETH_RECORD_H
#define AGENTD_EGRESS_KEEPER_VETH_RECORD_H

#include "agentd/egress/keeper/veth.h"
#include "common/buf.h"

struct json;

/** Append one object. 0, or -1: no memory. */
int veth_record_print(const struct veth *v, struct buf *out);
/** 0, or -1: it is not what was printed. */
int veth_record_read(const struct json *o, struct veth *ret, struct err *e);

#endif
