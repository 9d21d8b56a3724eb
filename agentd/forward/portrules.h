/* SPDX-License-Identifier: MIT */
/**
 * portrules -- which listeners are published by themselves and which are left alone.
 *
 * Shape    pure: no I/O but portrules_ephemeral().
 * Order    an excluded port never; with a list, the list alone; else all but the agent's
 *          own, ssh's, debuggers' and those in the ephemeral range. A port that the list
 *          names (or a person, by `agentd http PORT`) is published whatever it is.
 */
#ifndef AGENTD_FORWARD_PORTRULES_H
#define AGENTD_FORWARD_PORTRULES_H

#include <stdbool.h>
#include <stdint.h>

#include "agentd/forward/process.h"
#include "common/host.h"

struct portrules {
    bool has_only; /* --ports was given, even if it is empty */
    struct port_list only, exclude;
    uint16_t ephemeral_first, ephemeral_last; /* 0, 0: none */
    pid_t own_pid;
};

enum portrules_verdict {
    PORTRULES_PUBLISH,
    PORTRULES_EXCLUDED,
    PORTRULES_NOT_LISTED,
    PORTRULES_OWN,
    PORTRULES_SSH,
    PORTRULES_DEBUGGER,
    PORTRULES_EPHEMERAL,
    PORTRULES_VERDICT_COUNT
};
const char *portrules_why(enum portrules_verdict v); /* "a debugger's port" */

enum portrules_verdict portrules_judge(const struct portrules *r, uint16_t port,
                                       const struct process *holder);
/** May a person publish this port by name? All but the excluded. */
bool portrules_may_name(const struct portrules *r, uint16_t port);
/** The ports that no listener would be published on, for the link's hello. When they do
 * not fit a list, the highest are left out: they then wait the hold before port-closed.
 */
void portrules_never(const struct portrules *r, struct port_list *ret);
/** Read the kernel's range for outgoing connections from its file in /proc/sys/net; the usual
 *  one when it cannot be read.
 *  @fd  taken; -1: it could not be opened */
void portrules_ephemeral(struct portrules *r, int fd);

#endif
