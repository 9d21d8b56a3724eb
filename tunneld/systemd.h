/* SPDX-License-Identifier: MIT */
/**
 * systemd -- sockets passed by the service manager, sd_listen_fds(3), by hand.
 */
#ifndef TUNNELD_SYSTEMD_H
#define TUNNELD_SYSTEMD_H

#include <stdbool.h>

#include "common/sock.h"

#define SYSTEMD_FDS_MAX 32

/** Listening sockets that came with the process. */
struct systemd_fds {
    int fd[SYSTEMD_FDS_MAX]; /* -1: taken */
    unsigned n;
};

/** How many: LISTEN_PID and LISTEN_FDS as the environment has them (NULL: not set), our
 *  process id. 0 when they are not for us or make no sense; at most SYSTEMD_FDS_MAX. */
unsigned systemd_count(const char *listen_pid, const char *listen_fds, long pid);
/** Takes what the environment announces and clears it there. */
void systemd_fds_init(struct systemd_fds *s);
/** Closes what nobody took, with a log line each. */
void systemd_fds_done(struct systemd_fds *s);
/** The first that listens on `a` (or on every address, with a's port), or -1. */
int systemd_fds_take(struct systemd_fds *s, const struct sock_addr *a);

#endif
