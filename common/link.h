/* SPDX-License-Identifier: MIT */
/**
 * link -- the message channel between agent and server, whoever carries it: our own
 *         WebSocket client in agentd, libwebsockets in tunneld.
 *
 * Binary messages are one ordered byte stream (the mux); text messages carry one control
 * object each. The side that implements it embeds struct link and fills `ops`; the side
 * that uses it (a session) fills `user_ops`.
 */
#ifndef COMMON_LINK_H
#define COMMON_LINK_H

#include "common/mux.h"
#include "common/span.h"

struct link;

struct link_ops {
    /* A place for the payload of one binary message, or NULL when the socket has enough
     * for now: then user_ops->room() will come. *ret_cap >= MUX_SEND_MIN. */
    uint8_t *(*begin)(struct link *l, size_t *ret_cap);
    /* Send what was put there, n >= 1. */
    void (*commit)(struct link *l, size_t n);
    /* Send a text message; copied. 0, or -1: no memory. */
    int (*text)(struct link *l, struct span json);
    /* Close with this status (RFC 6455 7.4) and reason; user_ops->closed() comes later.
     */
    void (*close)(struct link *l, unsigned status, const char *reason);
};

struct link_user_ops {
    void (*room)(void *user);
    void (*text)(void *user, struct span json);   /* whole, at most CONTROL_MAX bytes */
    void (*bytes)(void *user, struct span bytes); /* any piece of the byte stream */
    void (*closed)(void *user, const char *why);  /* last; the link is gone after it */
};

struct link {
    const struct link_ops *ops;
    const struct link_user_ops *user_ops;
    void *user;
};

/** How long a message may be when the socket holds so many unsent bytes: what comes to a
 *  slow link later, however urgent, waits for all of them. */
size_t link_batch(size_t unsent);

/** Move frames from the mux to the link until one of them has no more. */
void link_pump(struct link *l, struct mux *m, uint64_t now_us);

#endif
