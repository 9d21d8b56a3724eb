/* SPDX-License-Identifier: MIT */
/**
 * process -- which process holds a socket: from its inode, by way of /proc/PID/fd.
 *
 * One look costs a walk over all processes' descriptors (2 ms on a small machine, 30 ms
 * with 10,000 descriptors), so it takes many inodes at once and callers ask once per
 * socket, also when the answer was "not known". Processes of other users cannot be read
 * without privilege: pid 0, name "".
 */
#ifndef AGENTD_FORWARD_PROCESS_H
#define AGENTD_FORWARD_PROCESS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PROCESS_NAME_MAX   64
#define PROCESS_LOOKUP_MAX 128 /* inodes in one look */

struct process {
    pid_t pid;                       /* 0: not known */
    char name[PROCESS_NAME_MAX + 1]; /* printable ASCII; "" when not known */
};

/** Fill ret[i] for inode[i]; n <= PROCESS_LOOKUP_MAX. Of several processes that share the
 *  socket the one with the lowest pid is named (a pre-forking server's parent). */
void process_lookup(const uint64_t *inode, size_t n, struct process *ret);

/** The name of a process. Empty when it is gone. */
void process_name(pid_t pid, char ret[PROCESS_NAME_MAX + 1]);

#endif
