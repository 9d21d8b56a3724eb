/* SPDX-License-Identifier: MIT */
/**
 * registry -- one worker's sandboxes: who is linked, which ports they publish, who waits.
 *             And dial: a stream to a sandbox's port, waiting for it where that helps.
 *
 * Threads  one worker's; nothing here is shared.
 */
#ifndef TUNNELD_TUNNEL_REGISTRY_H
#define TUNNELD_TUNNEL_REGISTRY_H

#include <stdbool.h>
#include <stdint.h>

#include "common/control.h"
#include "common/loop.h"
#include "common/mux.h"
#include "tunneld/config.h"

struct registry;
struct session; /* a linked agent; tunnel/session.h */

struct registry *registry_new(struct loop *l, const struct config *conf, struct err *e);
void registry_free(struct registry *r);
/** After a reload. */
void registry_set_config(struct registry *r, const struct config *conf);

/** What the edge needs to decide about a port before it dials. All false when unknown. */
struct registry_port {
    bool is_linked;
    bool is_published;
    bool is_public; /* published as public, or by default_visibility */
    enum control_host_mode host_mode;
    char tenant[TOKEN_TENANT_MAX + 1]; /* of the link */
};
void registry_look(struct registry *r, const char *id, uint16_t port,
                   struct registry_port *ret);
/** Is this other port of the sandbox published (for rewriting)? */
bool registry_publishes(struct registry *r, const char *id, uint16_t port);

enum dial_result {
    DIAL_OK,
    DIAL_OFFLINE,     /* -> agent-offline */
    DIAL_PORT_CLOSED, /* -> port-closed */
    DIAL_LIMIT,       /* too many holds or streams -> limit */
};
/** On DIAL_OK the stream is open (perhaps not yet accepted) and belongs to the caller, with
 *  the ops and user given; call comes at most once, never inside dial_start(). */
typedef void dial_fn(void *arg, enum dial_result r, struct mux_stream *s);

struct dial_want {
    const char *id; /* copied */
    struct mux_open open;
    uint64_t until_ms;  /* loop time: the end of the hold */
    bool after_refusal; /* the agent just said REFUSED or NOT_PUBLISHED: wait for a change
                            of the port, or 250 ms, before trying again */
    const struct mux_stream_ops *ops;
    void *user;
};
struct dial;
/** A stream at once: *ret_stream set and NULL returned. Otherwise the wait, NULL and
 *  *ret_why when it ended already. */
struct dial *dial_start(struct registry *r, const struct dial_want *w, dial_fn *fn,
                        void *arg, struct mux_stream **ret_stream,
                        enum dial_result *ret_why);
void dial_cancel(struct dial **take); /* no callback after it; NULL is fine */

/* -- for the sessions, the worker and the tests -------------------------------------------- */

/** The session is its sandbox's from now on; a former one is replaced. 0, or -1: no memory. */
int registry_attach(struct registry *r, struct session *s);
/** Its link is gone. Fine when it was replaced or never attached. */
void registry_detach(struct registry *r, struct session *s);
/** Its ports changed: those who wait for one look again. */
void registry_changed(struct registry *r, struct session *s);
/** Call fn for each session; it may end the session it is given. */
void registry_each(struct registry *r, void (*fn)(struct session *s, void *arg),
                   void *arg);
unsigned registry_links(const struct registry *r);

#endif
