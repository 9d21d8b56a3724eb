/* SPDX-License-Identifier: MIT */
/**
 * binds -- what --bind may show. Who may speak to an engine, to D-Bus or to libvirt
 *          can have them start anything outside, so neither such a socket nor a
 *          folder with one is shown; other sockets are a way out that no policy
 *          rules, and are warned of.
 */
#ifndef AGENTD_EGRESS_KEEPER_BINDS_H
#define AGENTD_EGRESS_KEEPER_BINDS_H

#include "common/err.h"

/** In the caller's own namespaces, with its rights. 0, or -1 with ERR_CONFIG. */
int binds_check(const char *const *path, unsigned n, struct err *e);

#endif
