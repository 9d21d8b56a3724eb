/* SPDX-License-Identifier: MIT */
/**
 * localpath -- where the agent's unix socket is, and that nobody else put it there.
 *
 * /tmp is everybody's: a directory or socket that another user made there under our name
 * would let him read requests and answer them. So directories are looked at without
 * following links, must be ours and closed to others, and the two ends check each other's
 * uid on top.
 *
 * Who makes or removes sockets holds the folder's lock (flock() of the folder itself):
 * between looking whether one is dead and removing it nobody puts a live one there.
 */
#ifndef AGENTD_LOCALPATH_H
#define AGENTD_LOCALPATH_H

#include <stdbool.h>
#include <sys/types.h>

#include "agentd/localsock.h"
#include "common/err.h"

/** A socket in the file system, remembered so that only ours is removed. */
struct localpath {
    char path[LOCALSOCK_PATH_MAX]; /* "": none */
    dev_t dev;
    ino_t ino;
};

/** Listening, non-blocking; -1 with *e (ERR_LIMIT: an agent answers there already). */
int localpath_listen(const char *path, struct localpath *ret, struct err *e);
void localpath_remove(struct localpath *p);
/** Remove sockets of ours below `dir` that nobody has any more: what was killed leaves them.
 *  Best effort, and never waits; live ones notice nothing. Which it looks at: those whose
 *  names end in ".sock", in the first `max` entries. */
void localpath_sweep(const char *dir, unsigned max);
/** Connected and blocking, the other end being ours or root's; 1 in *ret_absent when nobody
 *  listens. -1 with *e otherwise.
 *  @ms  how long it may take, for one who accepts nobody lets others wait; 0: any time */
int localpath_connect(const char *path, unsigned ms, bool *ret_absent, struct err *e);
/** Is the other end of a connected unix socket the same user's as we, or root's? */
bool localpath_is_one_of_us(int fd);

#endif
