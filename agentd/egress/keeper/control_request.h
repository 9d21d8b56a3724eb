/* SPDX-License-Identifier: MIT */
/** control_request -- one request line to a keeper, read strictly. Pure. */
#ifndef AGENTD_EGRESS_KEEPER_CONTROL_REQUEST_H
#define AGENTD_EGRESS_KEEPER_CONTROL_REQUEST_H

#include <stdbool.h>
#include <sys/types.h>

#include "agentd/egress/policy/policy.h"
#include "agentd/egress/sandbox_name.h"

#define CONTROL_LINE_MAX  (POLICY_TEXT_MAX + 65536)
#define CONTROL_NETNS_MAX 1024 /* of a namespace's path */

enum control_op {
    CONTROL_ATTACH,
    CONTROL_RELOAD,
    CONTROL_DETACH,
    CONTROL_STATUS,
    CONTROL_OP_COUNT
};

struct json;
struct control_request {
    enum control_op op;
    char name[EGRESS_NAME_MAX + 1]; /* STATUS: "" for all */
    struct span policy;             /* ATTACH, RELOAD: JSON text, lent by the line */
    enum egress_tier tier;          /* ATTACH, and what follows */
    pid_t pid;                      /* 0: none */
    const char *netns, *iface;      /* lent by `root`; NULL: none */
    struct json *root;
};

/** @line  without its newline; must outlive *ret. 0, or -1 with ERR_CONFIG and the rule
 *  (*ret needs nothing then). */
int control_request_parse(struct span line, struct control_request *ret, struct err *e);
void control_request_done(struct control_request *r);

#endif
