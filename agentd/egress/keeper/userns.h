/* SPDX-License-Identifier: MIT */
/**
 * userns -- user namespaces: ids of a sandbox that root starts, the namespace of
 *           a keeper that an ordinary user starts, and why the kernel would not
 *           make one, in words.
 *
 * Ids      a sandbox of root's gets 65536 ids of its own, from USERNS_FIRST on (above what
 *          useradd, systemd and login programs give to anybody), so that siblings own nothing of
 *          each other's and root inside owns nothing outside. Its guard gets one more id. Which
 *          of the USERNS_SLOTS ranges are in use is told by locks that end with their holders;
 *          ranges that /etc/subuid or /etc/subgid give away are passed over.
 *
 *            0x70000000 + slot * 65536   the sandbox's
 *            0x7ff00000 + slot           its guard's
 */
#ifndef AGENTD_EGRESS_KEEPER_USERNS_H
#define AGENTD_EGRESS_KEEPER_USERNS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"
#include "common/span.h"

#define USERNS_FIRST 0x70000000u
#define USERNS_COUNT 65536u
#define USERNS_SLOTS 4080u
#define USERNS_GUARD 0x7ff00000u

#define USERNS_LOCKS "/run/agentd/ids" /* folder of the locks, 0700 */

struct userns_range {
    uint32_t first; /* of USERNS_COUNT ids, users and groups alike; 0: none */
    uid_t guard;
    int lock; /* held while the ids are in use, also by children that keep it open; -1 */
    const char *locks; /* its folder; borrowed */
};
/** A range that nobody uses; the same one for the same name when it is free. Removes locks
 *  that nobody holds any more. 0, or -1.
 *  @locks  kept until userns_range_done() */
int userns_range_take(const char *name, const char *locks, struct userns_range *ret,
                      struct err *e);
void userns_range_done(struct userns_range *r);
/** Does a subuid(5) text give away any of these ids? Pure. */
bool userns_is_given(struct span subids, uint32_t first, uint32_t count);

/** Root of the machine, who may map any ids; not root of a user namespace. */
bool userns_is_host_root(void);
/** Move into a new user namespace with all capabilities in it, own user and group mapped
 *  to themselves. */
int userns_enter(struct err *e);
/** Write the maps of `pid`'s new user namespace: ids from 0 on to the range, or (first 0)
 *  `uid` and `gid` to themselves. For the process that made it, or its parent. */
int userns_map(pid_t pid, uint32_t first, uid_t uid, gid_t gid, struct err *e);
/** err_sys() for a namespace that could not be made, with the likely reason. */
int userns_refused(const char *what, struct err *e);

#endif
