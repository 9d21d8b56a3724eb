/* SPDX-License-Identifier: MIT */
/**
 * cmd_keeper -- sandboxes by name on the command line, and the keeper that has one.
 */
#ifndef AGENTD_EGRESS_CMD_CMD_KEEPER_H
#define AGENTD_EGRESS_CMD_CMD_KEEPER_H

#include "agentd/egress/keeper/control_socket.h"
#include "common/buf.h"
#include "common/err.h"
#include "common/span.h"

struct cmd_keeper {
    const char *socket;           /* ask this one; NULL */
    const char *name;             /* the sandbox; NULL: ask the host's service */
    unsigned ms;                  /* for each that is asked; 0: CONTROL_CALL_MS */
    char asked[CONTROL_PATH_MAX]; /* the one that the answer, or *e, is from */
};

/** Ask the keeper that has it: its own `run`, or else the host's service. */
int cmd_keeper_ask(struct cmd_keeper *k, struct span request, struct buf *ret,
                   struct err *e);

#endif
