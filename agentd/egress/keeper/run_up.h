/* SPDX-License-Identifier: MIT */
/**
 * run_up -- the agent of `run --up`: a process outside the sandbox that publishes
 *           the ports inside. Its options are the environment's (TUNNEL_SERVER,
 *           TUNNEL_TOKEN_FILE, ...); none of them is visible inside. It reads what
 *           a server sends, so it keeps no capability: its sockets in the sandbox
 *           come from a maker.
 */
#ifndef AGENTD_EGRESS_KEEPER_RUN_UP_H
#define AGENTD_EGRESS_KEEPER_RUN_UP_H

#include <sys/types.h>

#include "common/err.h"

struct run_up {
    pid_t pid; /* 0: none */
    int go;    /* its start signal; -1 */
};
#define RUN_UP_END_MS 2000 /* until it has ended after SIGTERM */

/** Are the options there? 0, or -1 with ERR_CONFIG. */
int run_up_check(struct err *e);
/** Start it; it waits for run_up_go().
 *  @take_maker  for netns_from_maker() */
int run_up_start(struct run_up *u, int *take_maker, struct err *e);
void run_up_go(struct run_up *u);
void run_up_end(struct run_up *u);

#endif
