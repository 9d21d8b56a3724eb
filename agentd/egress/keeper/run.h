/* SPDX-License-Identifier: MIT */
/**
 * run -- `agentd egress run`: one sealed sandbox around one command.
 *
 * Processes: this one becomes the keeper (as an ordinary user inside a user namespace
 * that it makes for itself); it starts the guard, and a child that makes the sandbox's
 * network namespace, waits for "go" (the policy is in force), makes user, mount, pid, ipc
 * and uts namespaces, and becomes pid 1 (sandbox_init.c), which starts COMMAND, passes
 * signals on and reaps. With --up one more process is the agent, outside, which gets its
 * sockets from the maker.
 */
#ifndef AGENTD_EGRESS_KEEPER_RUN_H
#define AGENTD_EGRESS_KEEPER_RUN_H

#include <stdbool.h>

#include "agentd/egress/keeper/sandbox.h"

struct run_conf {
    const char *policy; /* a file, or a preset */
    const char *name;   /* NULL: one is made */
    const char *audit;  /* NULL: none */
    const char *bind[SANDBOX_BINDS_MAX];
    unsigned n_bind;
    bool up;
    char **command; /* NULL-terminated */
};
/** The exit code: the command's, 128 + its signal, or 1, 2. */
int run_main(const struct run_conf *conf);

#endif
