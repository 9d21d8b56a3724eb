/* SPDX-License-Identifier: MIT */
/**
 * streams -- may a descriptor that somebody gave us be a sandbox's standard stream?
 *
 * A socket belongs to the network that it was made in, wherever it goes, and most can
 * be connected anew; a folder is a way into the file system as it was before the
 * covers. Files, terminals, pipes and connected local sockets are what they are and
 * lead nowhere else.
 */
#ifndef AGENTD_EGRESS_KEEPER_STREAMS_H
#define AGENTD_EGRESS_KEEPER_STREAMS_H

#include "common/err.h"

/** 0: it may, or it is closed. -1: ERR_DENIED with what it is. */
int stream_check(int fd, struct err *e);
/** All three; the sentence says which. */
int streams_check(struct err *e);

#endif
