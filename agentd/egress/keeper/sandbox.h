/* SPDX-License-Identifier: MIT */
/**
 * sandbox -- one command in namespaces of its own: made whole first, started only when
 *            its network is ruled, and ended with whoever made it.
 *
 *   caller (the keeper)
 *     `- stage            has the network namespace, which belongs to the caller's user namespace
 *          |- maker       sockets of that network namespace, for who cannot enter it
 *          `- init        pid 1: mounts, own user namespace, role; waits for sandbox_go()
 *               `- COMMAND, in a process group of its own
 *
 * Owner    the namespaces of mounts, processes, ipc, host name and cgroups belong to the
 *          caller's user namespace like the network's, so that no capability inside
 *          counts for any of them.
 * End      COMMAND's end ends init, and with it the kernel ends all that is left inside. The
 *          caller's death ends stage and init (parent-death signals, and the closed socket).
 * Terminal COMMAND is in a process group of its own, or kill(0, ...) inside would reach
 *          the caller's. It is given the terminal's foreground where the caller has it.
 */
#ifndef AGENTD_EGRESS_KEEPER_SANDBOX_H
#define AGENTD_EGRESS_KEEPER_SANDBOX_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "agentd/forward/netns.h"
#include "common/err.h"

#define SANDBOX_BUILD_MS  20000 /* namespaces and mounts */
#define SANDBOX_END_MS    5000  /* until all inside is gone */
#define SANDBOX_MAKERS    2
#define SANDBOX_BINDS_MAX 64
#define SANDBOX_TMP_BYTES "1g" /* /tmp, in memory */
#define SANDBOX_RUN_BYTES "64m"
#define SANDBOX_SHM_BYTES "512m"
#define SANDBOX_INODES    "200000"

struct sandbox_conf {
    uint32_t first_id; /* userns_range.first; 0: keep uid and gid */
    uid_t uid;
    gid_t gid;
    const char *const *bind; /* absolute or relative paths to show again */
    unsigned n_bind;
    const char *fixed[2];  /* files, read-only inside: the policy, the audit; or NULL */
    const char *secret[3]; /* files, empty inside: what holds credentials; or NULL */
    char *const *command;  /* NULL-terminated */
    unsigned makers; /* sandbox_maker() will be asked so often, at most SANDBOX_MAKERS */
};

struct sandbox;
/** All but COMMAND is there. Blocks, at most SANDBOX_BUILD_MS. ERR_CONFIG: a --bind that
 *  cannot be shown. */
struct sandbox *sandbox_new(const struct sandbox_conf *conf, struct err *e);
/** A process in its network namespace, as seen here. */
pid_t sandbox_pid(const struct sandbox *s);
/** The maker's socket for netns_from_maker(), moved out; -1 when there is none (left). */
int sandbox_maker(struct sandbox *s);
/** Start COMMAND. */
int sandbox_go(struct sandbox *s, struct err *e);

enum sandbox_news {
    SANDBOX_NONE,
    SANDBOX_STOPPED, /* COMMAND was stopped by signal *ret */
    SANDBOX_ENDED,   /* *ret: exit code, 128 + signal; comes once */
};
/** To watch for reading. */
int sandbox_fd(const struct sandbox *s);
enum sandbox_news sandbox_read(struct sandbox *s, int *ret);
/** A signal that the caller got: to COMMAND's group when a terminal sends it
 *  so, else to it. */
void sandbox_signal(struct sandbox *s, int signo);
/** After SANDBOX_STOPPED: for the terminal's sake stop as well, or go on. Takes the
 *  foreground back, stops this process when COMMAND was suspended at the terminal,
 *  gives it again. */
void sandbox_stopped(struct sandbox *s, int signo);
/** Kills what is left, waits, takes the terminal back. NULL is fine. */
void sandbox_free(struct sandbox *s);

#endif
