/* SPDX-License-Identifier: MIT */
/**
 * worker -- one thread: a loop, a libwebsockets context, a registry and an edge. Nothing of
 *           it is touched by another thread but through worker_give() and the like, which
 *           post to its loop.
 */
#ifndef TUNNELD_WORKER_H
#define TUNNELD_WORKER_H

#include "common/conn.h"
#include "common/host.h"
#include "common/tls.h"
#include "tunneld/config.h"

struct worker;
struct server; /* server.h: owns the workers and what they share */

/** A connection on its way to the worker that owns its sandbox. */
struct worker_guest {
    struct conn_parts parts;   /* owned */
    struct sock_addr client;   /* as PROXY protocol or accept() told */
    bool is_trusted;           /* the socket's peer is one of trusted_proxies */
    bool has_tls;              /* a TLS listener: handshake still to do when parts.ssl NULL */
    bool is_link;              /* for libwebsockets */
    uint64_t accepted_ms;
};
/** Thread-safe. Takes the guest (emptied in all cases). */
void worker_give(struct worker *w, struct worker_guest *take);

#endif
