/* SPDX-License-Identifier: MIT */
/**
 * listener -- the public sockets: accept, read the PROXY header where there is one, classify,
 *             hand over. All of the main thread.
 *
 * Owner    a struct listeners owns its sockets and every connection until it is delivered.
 * Limits   limits.connections, ACCEPT_BATCH a turn, CLASSIFY_MS for all of a connection.
 */
#ifndef TUNNELD_EDGE_LISTENER_H
#define TUNNELD_EDGE_LISTENER_H

#include "common/host.h"
#include "common/loop.h"
#include "tunneld/config.h"
#include "tunneld/worker.h"

struct listeners;

/** Gives a connection to whom it belongs. @route: kind PREVIEW, LINK and NAME name somebody.
 *  take->is_link is set. Takes the guest. */
typedef void listener_deliver_fn(void *owner, const struct host_route *route,
                                 struct worker_guest *take);

struct listeners *listeners_new(struct loop *l, const struct config *conf,
                                listener_deliver_fn *deliver, void *owner, struct err *e);
/** Also closes the connections not yet delivered. */
void listeners_free(struct listeners *ls);
/** A listening socket and how to serve it. 0, or -1 with *e; the descriptor is taken. */
int listeners_add(struct listeners *ls, int *take_fd, const struct config_listen *how,
                  struct err *e);
/** Begin to accept. */
void listeners_start(struct listeners *ls);
/** After a reload. */
void listeners_set_config(struct listeners *ls, const struct config *conf);
/** Accept what has connected, then no more, and close the sockets. Connections on their way
 *  are still delivered. */
void listeners_stop(struct listeners *ls);
/** Connections not yet delivered. */
unsigned listeners_pending(const struct listeners *ls);

#endif
