/* SPDX-License-Identifier: MIT */
/**
 * netns -- another network namespace, in which the agent lists listeners and makes its
 *          connections while the link stays in its own (`up --netns`, `up --pid`).
 *
 * A socket belongs for life to the namespace it is made in, so entering is needed only
 * around socket(2). NULL as the namespace means our own everywhere.
 */
#ifndef AGENTD_FORWARD_NETNS_H
#define AGENTD_FORWARD_NETNS_H

#include <sys/types.h>

#include "common/err.h"

struct netns;

/** By a namespace file, or that of a process when `path` is NULL. NULL with ERR_SYS when
 * it cannot be opened or entered (that needs CAP_SYS_ADMIN). */
struct netns *netns_open(const char *path, pid_t pid, struct err *e);
void netns_free(struct netns *n);
/** Enter; 0, or -1. Each success is followed by netns_leave() on the same thread before
 *  anything else makes a socket. */
int netns_enter(struct netns *n, struct err *e);
/** Back to our own. Ends the process when the kernel refuses: going on would send the
 *  link's traffic into the sandbox. */
void netns_leave(struct netns *n);

#endif
