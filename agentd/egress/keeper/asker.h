/* SPDX-License-Identifier: MIT */
/**
 * asker -- is whoever connected to our unix socket in a sandbox? An ordinary
 *         user's sandbox has his uid, so SO_PEERCRED alone would let COMMAND
 *         change its own policy wherever --bind, or a runtime folder at an odd
 *         place, shows it the socket.
 */
#ifndef AGENTD_EGRESS_KEEPER_ASKER_H
#define AGENTD_EGRESS_KEEPER_ASKER_H

#include <stdbool.h>

#include "common/span.h"

/** True when the process that connected lives in our own pid namespace, as far as can be
 *  told: one that is gone, or cannot be looked at, does not. */
bool asker_is_outside(int fd);
/** Of a text like /proc/PID/status: is there exactly one id in its NSpid line? Pure. */
bool asker_status_is_outside(struct span status);

#endif
