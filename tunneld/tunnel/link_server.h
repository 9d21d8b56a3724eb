/* SPDX-License-Identifier: MIT */
/**
 * link_server -- the server's end of the links, on libwebsockets: one context a worker,
 *                without listeners; sockets are given to it. Each accepted upgrade
 * becomes a struct link (common/link.h).
 *
 * Shape    thin shell. Who may link is decided by ops->admit(), who uses the link is set
 *          in ops->opened().
 * Threads  one worker's; link_server_new() of all workers one after the other, before any
 *          connection (libwebsockets 4.1.6 re-allocates a process-wide OpenSSL index in
 *          each context's creation).
 * Limits   LINK_* in common/limits.def.
 */
#ifndef TUNNELD_TUNNEL_LINK_SERVER_H
#define TUNNELD_TUNNEL_LINK_SERVER_H

#include "common/link.h"
#include "common/loop.h"
#include "common/sock.h"
#include "common/tls.h"

#define LINK_PATH     "/.tunnel/v1/link"
#define LINK_PROTOCOL "tunnel.v1"

struct link_server;

/** An upgrade request, as sent; spans are good for the call. */
struct link_request {
    const char *server_name; /* of TLS; NULL on a plaintext listener, "" when none */
    struct span host;
    struct span authorization;
    bool has_protocol; /* offers the subprotocol LINK_PROTOCOL */
};
struct link_refusal {
    unsigned status;        /* HTTP */
    const char *code;       /* literal, for Tunnel-Error */
    unsigned retry_after_s; /* 0: not said */
    char why[160];          /* a sentence for the agent's operator */
};
struct link_server_ops {
    /* 0 with *ret_pass for opened() or dropped(), or -1 with *ret. */
    int (*admit)(void *owner, const struct link_request *rq, void **ret_pass,
                 struct link_refusal *ret);
    /* The upgrade is done: set l->user_ops and l->user. 0, or -1: close it again (no
     * event follows). Takes `pass` in both cases. */
    int (*opened)(void *owner, struct link *l, void *pass,
                  const struct sock_addr *client);
    /* It never came to opened(): free `pass`. */
    void (*dropped)(void *owner, void *pass);
};

/** @certs  for links over TLS; NULL: plaintext only. Borrowed, as `l`. */
struct link_server *link_server_new(struct loop *l, struct tls_cert_slot *certs,
                                    const struct link_server_ops *ops, void *owner,
                                    struct err *e);
/** A connected socket on which the client has said (almost) nothing yet that we consumed:
 *  `unread` is what was. Taken in all cases. */
void link_server_take(struct link_server *ls, int *take_fd, bool has_tls,
                      struct span unread, const struct sock_addr *client);
/** Cut all connections; then, when libwebsockets' part of the loop is gone, fn(arg),
 * never inside this call. */
void link_server_stop(struct link_server *ls, loop_job_fn *fn, void *arg);
/** After link_server_stop()'s fn. Without it, and only when the loop does not run, it runs the
 *  loop until libwebsockets is gone. NULL is fine. */
void link_server_free(struct link_server *ls);

#endif
