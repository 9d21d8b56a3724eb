/* SPDX-License-Identifier: MIT */
/**
 * arrival -- one accepted connection until it is known whose it is: PROXY header consumed,
 *            first bytes looked at without consuming them, one deadline for all.
 *
 * Owner    the list it is in; it takes itself out when it is delivered or given up.
 */
#ifndef TUNNELD_EDGE_ARRIVAL_H
#define TUNNELD_EDGE_ARRIVAL_H

#include "common/loop.h"
#include "tunneld/edge/listener.h"

struct arrival;

struct arrivals {
    struct loop *loop;         /* borrowed */
    const struct config *conf; /* borrowed */
    listener_deliver_fn *deliver;
    void *owner;
    struct log_rate bad_rate; /* lines about connections given up */
    struct arrival *first;
    unsigned n;
};

/** @client  the socket's peer. Takes the descriptor in all cases. */
void arrival_start(struct arrivals *list, int *take_fd, const struct config_listen *how,
                   const struct sock_addr *client);
/** Close all. */
void arrivals_done(struct arrivals *list);

#endif
