/* SPDX-License-Identifier: MIT */
/**
 * worker -- one thread: a loop, a libwebsockets context, a registry and an edge. Nothing
 * of it is touched by another thread but through worker_give() and the like, which post
 * to its loop.
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
    struct conn_parts parts; /* owned */
    struct sock_addr client; /* as PROXY protocol or accept() told */
    bool is_trusted;         /* the socket's peer is one of trusted_proxies */
    bool has_tls; /* a TLS listener: handshake still to do when parts.ssl NULL */
    bool is_link; /* for libwebsockets */
    uint64_t accepted_ms;
};
/** Thread-safe. Takes the guest (emptied in all cases). */
void worker_give(struct worker *w, struct worker_guest *take);
void worker_guest_done(struct worker_guest *g);

/* -- for server.c ----------------------------------------------------------------------
 */

struct directory;
struct keys;

/** What the workers share, for their whole life. */
struct worker_shared {
    struct server *server;
    struct directory *directory;
    struct tls_cert_slot *certs; /* NULL: no TLS listener */
    struct tls_ctx *tls;         /* for the edge; NULL as well */
    /* A worker has nothing more to give to others; called once, on its own thread. */
    void (*quiet)(struct server *server);
};

/** Builds everything but the thread. Contexts of libwebsockets must be made one after the
 *  other and before any connection, so call this for all workers first. */
struct worker *worker_new(const struct worker_shared *shared, const struct config *conf,
                          struct keys *keys, struct err *e);
int worker_start(struct worker *w, struct err *e);
/** Thread-safe: use these from now on. */
void worker_reload(struct worker *w, const struct config *conf, struct keys *keys);
/** Thread-safe: let exchanges finish for `drain_ms`, tell the agents, then quiet(). A second
 *  call with 0 shortens it. */
void worker_drain(struct worker *w, uint64_t drain_ms);
/** Thread-safe, when all workers are quiet: let links close for `grace_ms`, end the thread. */
void worker_stop(struct worker *w, uint64_t grace_ms);
/** Waits for the thread to end. */
void worker_join(struct worker *w);
void worker_free(struct worker *w);

#endif
