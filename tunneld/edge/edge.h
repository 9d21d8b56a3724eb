/* SPDX-License-Identifier: MIT */
/**
 * edge -- one worker's client connections: TLS, HTTP/1, access, and the way to the app.
 *
 * Shape    owns every connection given to it until that is closed or moved on. Decides
 * per request, by authority. Threads  one worker's. What comes from
 * elsewhere comes as a struct worker_guest.
 */
#ifndef TUNNELD_EDGE_EDGE_H
#define TUNNELD_EDGE_EDGE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/host.h"
#include "common/loop.h"
#include "common/tls.h"
#include "common/token.h"
#include "tunneld/config.h"
#include "tunneld/tunnel/registry.h"
#include "tunneld/worker.h"

struct edge;

/** What the edge asks of the worker that owns it. Never called from inside edge_new(). */
struct edge_ops {
    /* Does this worker own the sandbox? */
    bool (*owns)(void *owner, const char *id);
    /* Move a connection, between two exchanges, to the worker that owns the sandbox: to
     * its edge, or where take->is_link to its link server (which may be this worker's
     * own; only from plaintext connections, the unread bytes are the upgrade request).
     * Takes the guest. */
    void (*give)(void *owner, const char *id, struct worker_guest *take);
    /* NAME.domain: the sandbox and port it points at; false: no such name. */
    bool (*find_name)(void *owner, const char *name, char ret_id[HOST_ID_MAX + 1],
                      uint16_t *ret_port);
    /* Whose sandbox is it, linked now or not? false: nobody's yet. */
    bool (*find_tenant)(void *owner, const char *id,
                        char ret_tenant[TOKEN_TENANT_MAX + 1]);
};

#define EDGE_COOKIE_KEY_LEN 32

struct edge_conf {
    struct loop *loop;             /* borrowed, outlives the edge */
    struct registry *registry;     /* borrowed, outlives the edge */
    const struct config *config;   /* a reference is taken */
    struct tls_ctx *tls;           /* borrowed; NULL: no TLS listener */
    const struct token_keys *keys; /* borrowed until edge_set_keys() or edge_free() */
    uint8_t
        cookie_key[EDGE_COOKIE_KEY_LEN]; /* the same in all workers, across restarts */
    const struct edge_ops *ops;
    void *owner;
};

/** NULL with *e set: no memory. */
struct edge *edge_new(const struct edge_conf *c, struct err *e);
/** Cuts every connection that is left. Before registry_free() and loop_free(). */
void edge_free(struct edge *e);

/** Takes a connection (emptied in all cases): handshake where has_tls and there is no TLS
 *  yet, then requests. Above limits.connections it is closed. Not for links. */
void edge_accept(struct edge *e, struct worker_guest *take);

/** After a reload: from the next request on. */
void edge_set_config(struct edge *e, const struct config *config);
void edge_set_keys(struct edge *e, const struct token_keys *keys);

/** Each connection ends with its next answer, which says so; one without a request closes after
 *  EDGE_DRAIN_MS. New connections are still taken: they had connected before. */
void edge_drain(struct edge *e);
/** No connection is left. */
bool edge_is_idle(const struct edge *e);

#endif
